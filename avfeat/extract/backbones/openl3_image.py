"""OpenL3 image: embeddings of single frames.

Cramer et al., Look, Listen and Learn More, ICASSP 2019; weights of openl3 (CC BY 4.0). The network
was trained on pixels in [-1, 1]. The openl3 library gives it those only for pictures of exactly 224
x 224; its video path has ffmpeg squash frames to 256 x 256 by its bicubic filter, crops, and
divides by the largest value of the batch, so that the network sees [0, 1]. ``compat`` does that
too, with 255 as the largest value, and with Pillow's bicubic filter on RGB, where ffmpeg scales the
planes of a video before they become RGB (docs/parity.md has the difference).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.openl3 import PAPER
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput

if TYPE_CHECKING:
    from torch import Tensor, nn

_HALF = (0.5, 0.5, 0.5)


@register
class OpenL3Image(Backbone):
    """Last convolution, max-pooled: ``[N, 512]`` or ``[N, 8192]``; ``map``: not pooled.

    There is one image network per content and audio spectrogram that it was trained with.
    ``compat`` gives it pictures as the openl3 library does those of a video: squashed to 256 x 256
    (bicubic), cropped, in [0, 1], though it was trained on [-1, 1].
    """

    axes = (
        ("env", "music"),
        ("mel256", "mel128", "linear"),
        ("512", "8192", "map"),
        ("", "compat"),
    )
    converts = True
    spec = BackboneSpec(
        name="openl3_image",
        modality="visual",
        dim=512,
        layer="vision_embedding_layer, max-pooled",
        input=VisualInput(Geometry(resize=256, crop=224), mean=_HALF, std=_HALF),
        weights=("v0_4_0_mel256_env",),
        parameters=4_688_198,
        gmacs_per_item=10.26,
        paper=PAPER,
        description="AudioSet image features, one row per frame",
        cuda_batch=32,
    )

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of a choice of content, spectrogram, size and range of pixels."""
        content, representation, size, compat = chosen
        spec = replace(type(self).spec, weights=(f"v0_4_0_{representation}_{content}",))
        if size == "map":
            spec = replace(spec, layer="vision_embedding_layer", map=(28, 28))
        else:
            spec = replace(spec, dim=int(size))
        if compat:
            squashed = Geometry((256, 256), crop=224, interpolation="pil-bicubic")
            black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            spec = replace(spec, input=VisualInput(squashed, mean=black, std=white))
        return spec

    def build(self) -> nn.Module:
        """Build avfeat's port of the Keras network."""
        from avfeat.extract.backbones.nets.openl3 import OpenL3Image as Net

        return Net(self.spec.dim, map=self.spec.map is not None)

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the Keras files of openl3."""
        from avfeat.extract.backbones.nets.keras_order import openl3_image

        return openl3_image(state)
