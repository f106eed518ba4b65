"""VGG-19 with batch norm on single frames, cut after fc7's ReLU.

Simonyan and Zisserman, arXiv:1409.1556; network and weights of torchvision; layer and preprocessing
of pretrainedmodels with its last layer removed, as in the AVVP scripts. The features of AVE come
from another network, without batch norm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.maps import MapOption, unflattened
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput
from avfeat.extract.weights.registry import WeightsEntry

if TYPE_CHECKING:
    from torch import Tensor, nn

# timm's names of the linear layers, the first two of which are convolutions there.
_TIMM = {
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.3",
    "head.fc": "classifier.6",
}


@register
class VGG19BN(MapOption):
    """fc7 after its ReLU: ``[N, 4096]``; ``map``: the last convolution's. Non-negative.

    The map is the one after the ReLU and before pool5, ``[N, 14, 14, 512]``: like the maps of the
    other networks nothing has pooled it. AVE's 7 x 7 one is ``vgg19.pool5``, another network's.
    """

    converts = True
    spec = BackboneSpec(
        name="vgg19_bn",
        modality="visual",
        dim=4096,
        layer="fc7 after ReLU",
        input=VisualInput(Geometry(resize=256, crop=224)),
        weights=("tv_in1k_v1",),
        parameters=139_581_248,
        gmacs_per_item=19.628,
        paper="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556",
        description="ImageNet-1k image features, one row per frame",
    )
    map_spec = replace(
        spec,
        layer="last convolution after ReLU, before pool5",
        dim=512,
        map=(14, 14),
        parameters=20_035_392,
        gmacs_per_item=19.508,
    )

    def weights_entry(self, tag: str) -> WeightsEntry:
        """Leave out the linear layers of the file for the map."""
        entry = super().weights_entry(tag)
        return entry if self.spec.map is None else replace(entry, drop=("classifier.*",))

    def build(self) -> nn.Module:
        """Build torchvision's network with its classifier cut before the last linear layer."""
        from torch import nn
        from torchvision.models import vgg19_bn

        net: nn.Module = vgg19_bn(weights=None, init_weights=False)
        # Linear, ReLU, Dropout, Linear, ReLU | Dropout, Linear; dropout does nothing in inference.
        net.classifier = nn.Sequential(*list(net.get_submodule("classifier").children())[:5])
        if self.spec.map is not None:
            *layers, _pool5 = net.get_submodule("features").children()
            net.features = nn.Sequential(*layers)
            net.avgpool = nn.Identity()
            net.classifier = unflattened(self.spec)
        return net

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename and flatten the linear layers of timm's conversion to those of torchvision."""
        if "head.fc.weight" not in state:
            return state
        found = {}
        for key, value in state.items():
            layer, _, kind = key.rpartition(".")
            linear = _TIMM.get(layer)
            found[f"{linear}.{kind}" if linear else key] = (
                value.flatten(1) if linear and kind == "weight" else value
            )
        return found
