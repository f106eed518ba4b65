"""R(2+1)D-18 on snippets of eight frames, one second at 8 frames/s, as the AVVP scripts do it.

Tran et al., A Closer Look at Spatiotemporal Convolutions, arXiv:1711.11248; network and weights of
torchvision (Kinetics-400). AVVP squashes each frame to 112 x 112 without keeping the aspect and
takes 8 frames, where torchvision's own recipe crops and takes 16.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import nn


@register
class R2Plus1D18(Backbone):
    """Average over time and space of the last block: ``[N, 512]``, non-negative.

    ``tv`` is torchvision's own recipe: 16 frames at 15 frames/s, resized to 128 x 171, cropped.
    """

    axes = (("", "tv"),)

    converts = True
    spec = BackboneSpec(
        name="r2plus1d_18",
        modality="visual",
        dim=512,
        layer="global average pool (time, height, width)",
        input=VisualInput(
            Geometry(resize=(112, 112)),
            frames=8,
            stride=8,
            mean=(0.43216, 0.394666, 0.37645),
            std=(0.22803, 0.22145, 0.216989),
        ),
        weights=("tv_k400_v1",),
        parameters=31_300_125,
        gmacs_per_item=20.26,
        paper="Tran et al., CVPR 2018, arXiv:1711.11248",
        description="Kinetics-400 motion features, one row per 8 frames",
        cpu_batch=5,
        cuda_batch=20,
    )

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of AVVP's recipe or of torchvision's."""
        spec = type(self).spec
        if "tv" not in chosen:
            return spec
        assert isinstance(spec.input, VisualInput)
        snippets = replace(
            spec.input, geometry=Geometry((128, 171), crop=112), frames=16, stride=16, fps=15.0
        )
        return replace(
            spec,
            input=snippets,
            gmacs_per_item=40.52,
            description="Kinetics-400 motion features, one row per 16 frames",
        )

    def build(self) -> nn.Module:
        """Build torchvision's network without its classifier."""
        from torch import nn
        from torchvision.models.video import r2plus1d_18

        net: nn.Module = r2plus1d_18(weights=None)
        net.fc = nn.Identity()
        return net
