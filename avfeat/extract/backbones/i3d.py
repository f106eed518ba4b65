"""Inflated 3-D Inception (I3D): RGB, optical flow, and both.

Carreira and Zisserman, Quo Vadis, Action Recognition?, arXiv:1705.07750; weights of pytorch-i3d,
converted from TensorFlow (ImageNet-inflated, then Kinetics-400). On sets of ten-second clips the 16
frames of a row are centred on each second of video at 8 frames/s, at the edges with repeated
frames; on untrimmed videos they are non-overlapping and at 25 frames/s, as in weakly supervised
temporal action localisation (W-TALC and its successors). ``centred`` and ``chunks`` insist on one
of the two.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import FLOW_METHODS, BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import Tensor, nn

_CENTRED = VisualInput(
    Geometry(resize=256, crop=224),
    frames=16,
    stride=8,
    padding=4,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_CHUNKS = replace(_CENTRED, stride=16, padding=0, fps=25.0)
_GRIDS = ("", "centred", "chunks")
_METHODS = {method.replace("-", "_"): method for method in FLOW_METHODS}


class _I3D(Backbone):
    """What the streams share: the grid of windows, and the method of optical flow."""

    axes: ClassVar[tuple[tuple[str, ...], ...]] = (_GRIDS,)
    converts = True
    decided_by: ClassVar[tuple[str, ...]] = ("data set",)

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of a choice of grid and, where there is flow, method and levels."""
        grid, method, levels = (*chosen, "", "")[:3]
        spec = type(self).spec
        assert isinstance(spec.input, VisualInput)
        taken = replace(_CHUNKS if grid == "chunks" else _CENTRED, stream=spec.input.stream)
        if method:
            taken = replace(taken, flow=_METHODS[method])
        if levels:
            taken = replace(taken, flow_bits=8)
        return replace(spec, input=taken)

    def adapted(self, *, untrimmed: bool, device: str) -> Backbone:
        """Take the grid of the kind of data set, and the flow method of the kind of device."""
        chosen = list(self.chosen)
        chosen[0] = chosen[0] or ("chunks" if untrimmed else "centred")
        if len(chosen) > 1:
            chosen[1] = chosen[1] or ("tvl1_opencv" if device == "cpu" else "tvl1_torch")
        return self.renamed(self.specify(tuple(chosen)))

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of hassony2's conversion to those of pytorch-i3d."""
        from avfeat.extract.backbones.nets.i3d import from_hsi3d

        return from_hsi3d(state)

    def to_input(self, items: Tensor) -> Tensor:
        """Scale RGB and flow to [-1, 1]: float32 ``[N, C, 16, 224, 224]``."""
        import torch

        from avfeat.extract.flow import normalise

        taken = self.spec.input
        assert isinstance(taken, VisualInput)
        if taken.stream == "rgb":
            return super().to_input(items)
        flow = normalise(items[..., -2:], quantised=taken.flow_bits is not None)
        parts = [flow.movedim(-1, 1)]
        if taken.stream == "rgb+flow":
            parts.insert(0, super().to_input(items[..., :3]))
        return torch.cat(parts, dim=1).contiguous()


_FLOW_AXES = (_GRIDS, ("", *_METHODS), ("", "8bit"))
_FLOW_DECIDED_BY = ("data set", "device", "")


@register
class I3DRGB(_I3D):
    """Average pool of the RGB network: ``[N, 1024]``, non-negative.

    Sets of ten-second clips get one row per second of 16 frames at 8 frames/s; untrimmed sets get
    one row per 16 frames at 25 frames/s. ``centred`` and ``chunks`` insist on either.
    """

    spec = BackboneSpec(
        name="i3d_rgb",
        modality="visual",
        dim=1024,
        layer="average pool",
        input=_CENTRED,
        weights=("pgi3d",),
        parameters=12_287_264,
        gmacs_per_item=27.79,
        paper="Carreira and Zisserman, CVPR 2017, arXiv:1705.07750",
        description="Kinetics-400 motion features of RGB, 16 frames per row",
        cpu_batch=4,
        cuda_batch=16,
    )

    def build(self) -> nn.Module:
        """Build avfeat's port of the RGB network."""
        from avfeat.extract.backbones.nets.i3d import I3D

        return I3D(3)


@register
class I3DFlow(_I3D):
    """Average pool of the flow network: ``[N, 1024]``, non-negative.

    TV-L1 flow, clipped to 20 pixels per frame. It is OpenCV's on a CPU and a batched one in torch
    on CUDA, unless ``tvl1_opencv`` or ``tvl1_torch`` says which; ``8bit`` rounds it to 256 levels,
    as where it was kept in JPEG files. Rows are as those of ``i3d_rgb``: per second on sets of
    ten-second clips, per 16 frames at 25 frames/s on untrimmed ones.
    """

    axes = _FLOW_AXES
    decided_by = _FLOW_DECIDED_BY
    spec = replace(
        I3DRGB.spec,
        name="i3d_flow",
        input=replace(_CENTRED, stream="flow"),
        parameters=12_265_312,
        gmacs_per_item=25.58,
        description="Kinetics-400 motion features of TV-L1 flow, 16 frames per row",
    )

    def build(self) -> nn.Module:
        """Build avfeat's port of the flow network."""
        from avfeat.extract.backbones.nets.i3d import I3D

        return I3D(2)


@register
class I3DTwoStream(_I3D):
    """RGB (first 1024) and flow (last 1024) side by side: ``[N, 2048]``, non-negative.

    Options and rows are those of ``i3d_flow``: one per second on sets of ten-second clips, one per
    16 frames at 25 frames/s on untrimmed ones; flow by OpenCV on a CPU and by torch on CUDA.
    """

    axes = _FLOW_AXES
    decided_by = _FLOW_DECIDED_BY
    spec = replace(
        I3DRGB.spec,
        name="i3d",
        dim=2048,
        input=replace(_CENTRED, stream="rgb+flow"),
        parameters=24_552_576,
        gmacs_per_item=53.37,
        description="Kinetics-400 motion features, RGB then flow, 16 frames per row",
    )

    def build(self) -> nn.Module:
        """Build both networks."""
        from avfeat.extract.backbones.nets.i3d import TwoStream

        return TwoStream()
