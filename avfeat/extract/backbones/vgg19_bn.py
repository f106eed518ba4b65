"""VGG-19 with batch norm on single frames, cut after fc7's ReLU.

Simonyan and Zisserman, arXiv:1409.1556; network and weights of torchvision; layer and preprocessing
of pretrainedmodels with its last layer removed, as in the AVVP scripts. The features of AVE come
from another network, without batch norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import nn


@register
class VGG19BN(Backbone):
    """fc7 after its ReLU: ``[N, 4096]``, non-negative."""

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

    def build(self) -> nn.Module:
        """Build torchvision's network with its classifier cut before the last linear layer."""
        from torch import nn
        from torchvision.models import vgg19_bn

        net: nn.Module = vgg19_bn(weights=None, init_weights=False)
        # Linear, ReLU, Dropout, Linear, ReLU | Dropout, Linear; dropout does nothing in inference.
        net.classifier = nn.Sequential(*list(net.get_submodule("classifier").children())[:5])
        return net
