"""VGG-19 without batch norm, cut at its last pool: the visual features of AVE.

Simonyan and Zisserman, arXiv:1409.1556; Tian et al., Audio-Visual Event Localization, ECCV 2018.
Weights of Keras, converted from Caffe: other ones than torchvision's, which were trained anew. AVE
takes 16 frames of each second by counting, squashes them without antialiasing, and averages their
maps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.maps import unflattened
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput
from avfeat.extract.weights.registry import WeightsEntry, entry

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class VGG19Pool5(Backbone):
    """Mean of block5_pool over the 16 frames of each second: ``[N, 7, 7, 512]``, non-negative."""

    converts = True
    spec = BackboneSpec(
        name="vgg19.pool5",
        modality="visual",
        dim=512,
        layer="block5_pool",
        input=VisualInput(
            Geometry((224, 224), interpolation="cv2-linear"),
            fps=16.0,
            rule="ave",
            white=255.0,
            colour="BGR",
            mean=(103.939, 116.779, 123.68),
            std=(1.0, 1.0, 1.0),
        ),
        weights=("keras_in1k",),
        parameters=20_024_384,
        gmacs_per_item=19.508,
        paper="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556; Tian et al., ECCV 2018",
        description="ImageNet-1k maps, one row per second (AVE)",
        map=(7, 7),
        pool=16,
    )

    def build(self) -> nn.Module:
        """Build torchvision's network without its classifier."""
        from torchvision.models import vgg19

        net: nn.Module = vgg19(weights=None, init_weights=False)
        net.classifier = unflattened(self.spec)
        return net

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the Keras file, with or without its top."""
        from avfeat.extract.backbones.nets.keras_order import vgg19

        return vgg19(state)

    def weights_entry(self, tag: str) -> WeightsEntry:
        """Look ``vgg19.<tag>`` up: the weights are those of the whole network."""
        return entry(f"vgg19.{tag}")
