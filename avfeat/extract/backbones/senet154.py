"""SENet-154 on single frames.

Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507; converted from Caffe by
pretrainedmodels, whose code and key names timm keeps as ``legacy_senet154`` (its stem pools with
``ceil_mode`` and without padding; other ports pad, which gives other features). The network called
``senet154`` in timm is another one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.maps import MapOption
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class SENet154(MapOption):
    """Global average pool: ``[N, 2048]``; ``map``: what is averaged. Non-negative."""

    converts = True
    spec = BackboneSpec(
        name="senet154",
        modality="visual",
        dim=2048,
        layer="global average pool",
        input=VisualInput(Geometry(resize=256, crop=224)),
        weights=("cadene_in1k",),
        parameters=113_039_984,
        gmacs_per_item=20.686,
        paper="Hu et al., CVPR 2018, arXiv:1709.01507",
        description="ImageNet-1k image features, one row per frame",
    )
    map_spec = replace(spec, layer="layer4, before the pool", map=(7, 7))

    def build(self) -> nn.Module:
        """Build timm's network without its classifier."""
        from timm.models.senet import legacy_senet154

        pool = "avg" if self.spec.map is None else ""
        net: nn.Module = legacy_senet154(pretrained=False, num_classes=0, global_pool=pool)
        return net

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename pytorchcv's keys to those of pretrainedmodels."""
        from avfeat.extract.backbones.nets.senet_keys import from_pytorchcv

        if "features.init_block.conv1.conv.weight" not in state:
            return state
        return {from_pytorchcv(key): value for key, value in state.items()}
