"""ResNet-152 on single frames, as the AVVP code base extracts it (torchvision's V1 weights).

He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385; network and weights of
torchvision (stride in the 3x3 convolution); preprocessing of pretrainedmodels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.maps import MapOption, unflattened
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import nn


@register
class ResNet152(MapOption):
    """Global average pool: ``[N, 2048]``; ``map``: what is averaged. Non-negative."""

    converts = True
    spec = BackboneSpec(
        name="resnet152",
        modality="visual",
        dim=2048,
        layer="global average pool",
        input=VisualInput(Geometry(resize=256, crop=224)),
        weights=("tv_in1k_v1",),
        parameters=58_143_808,
        gmacs_per_item=11.512,
        paper="He et al., CVPR 2016, arXiv:1512.03385",
        description="ImageNet-1k image features, one row per frame",
    )
    map_spec = replace(spec, layer="layer4, before the pool", map=(7, 7))

    def build(self) -> nn.Module:
        """Build torchvision's network without its classifier."""
        from torch import nn
        from torchvision.models import resnet152

        net: nn.Module = resnet152(weights=None)
        net.fc = nn.Identity()
        if self.spec.map is not None:
            net.avgpool = nn.Identity()
            net.fc = unflattened(self.spec)
        return net
