"""Very Deep PolyNet on single frames.

Zhang et al., PolyNet: A Pursuit of Structural Diversity in Very Deep Networks, arXiv:1611.05725;
network of pretrainedmodels, whose weights were converted from Caffe. Their host has been down for
long; pytorchcv serves the same weights under other key names, which are renamed here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.maps import MapOption, unflattened
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class PolyNet(MapOption):
    """Global average pool: ``[N, 2048]``; ``map``: what is averaged. Non-negative."""

    libraries = ("pretrainedmodels",)
    converts = True
    spec = BackboneSpec(
        name="polynet",
        modality="visual",
        dim=2048,
        layer="global average pool",
        # 331 / 0.875 = 378: pretrainedmodels' own transform, which keeps the aspect.
        input=VisualInput(Geometry(resize=378, crop=331)),
        weights=("cadene_in1k",),
        parameters=93_317_600,
        gmacs_per_item=34.70,
        paper="Zhang et al., CVPR 2017, arXiv:1611.05725",
        description="ImageNet-1k image features, one row per frame",
        cpu_batch=4,
        cuda_batch=32,
    )
    map_spec = replace(spec, layer="stage C, before the pool", map=(9, 9))

    def build(self) -> nn.Module:
        """Build pretrainedmodels' network without its classifier."""
        from pretrainedmodels.models.polynet import polynet
        from torch import nn

        net: nn.Module = polynet(pretrained=None)
        net.last_linear = nn.Identity()
        if self.spec.map is not None:
            net.avg_pool = nn.Identity()
            net.last_linear = unflattened(self.spec)
        return net

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename pytorchcv's keys to those of pretrainedmodels."""
        from avfeat.extract.backbones.nets.polynet_keys import from_pytorchcv

        if "features.init_block.conv1.conv.weight" not in state:
            return state
        return {from_pytorchcv(key): value for key, value in state.items()}
