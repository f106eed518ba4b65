"""OpenL3 audio: embeddings of one-second windows at 48 kHz.

Cramer et al., Look, Listen and Learn More, ICASSP 2019; weights of openl3 (CC BY 4.0), whose Keras
files are converted array by array. Three spectrogram front ends are in the wild: ``frontend_a`` is
the one the weights were trained with (kapre 0.1.4, openl3 up to 0.3.1, torchopenl3), ``frontend_b``
and ``frontend_c`` what openl3 0.4 calls ``kapre`` (0.3) and ``librosa``. openl3 itself hops 0.1 s
and puts half a window of silence first; here window i is second i, as the other audio rows are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from avfeat.extract.backbones.nets.openl3 import Representation
    from avfeat.extract.backbones.nets.openl3_mel import FrontEnd

PAPER = "Cramer et al., ICASSP 2019, doi:10.1109/ICASSP.2019.8682475"

_GMACS = {"mel256": 10.20, "mel128": 5.10, "linear": 10.16}
_FRONT_ENDS: dict[str, FrontEnd] = {
    "frontend_a": "kapre-0.1.4",
    "frontend_b": "kapre-0.3",
    "frontend_c": "librosa",
}
_HOPS = {"hop_1s": 48_000, "hop_500ms": 24_000, "hop_100ms": 4_800}


@register
class OpenL3(Backbone):
    """Last convolution, max-pooled: ``[N, 512]`` or ``[N, 6144]``; may be negative.

    Options: content that the weights were trained on, spectrogram, size, front end, hop, and
    ``16k``: sound that went through 16 kHz first, whose upper bands are then empty (75 of the 256).
    """

    axes = (
        ("env", "music"),
        tuple(_GMACS),
        ("512", "6144"),
        tuple(_FRONT_ENDS),
        tuple(_HOPS),
        ("48k", "16k"),
    )
    converts = True
    spec = BackboneSpec(
        name="openl3",
        modality="audio",
        dim=512,
        layer="audio_embedding_layer, max-pooled",
        input=AudioInput(48_000, 48_000, 48_000, front_end="openl3-kapre-0.1.4-mel256"),
        weights=("v0_4_0_mel256_env",),
        parameters=4_687_042,
        gmacs_per_item=_GMACS["mel256"],
        paper=PAPER,
        description="AudioSet audio features, one row per second",
        cuda_batch=32,
    )

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of a choice of content, spectrogram, size, front end, hop and rate."""
        content, representation, size, front_end, hop, rate = chosen
        return replace(
            type(self).spec,
            dim=int(size),
            input=AudioInput(
                48_000,
                window=48_000,
                hop=_HOPS[hop],
                front_end=f"openl3-{_FRONT_ENDS[front_end]}-{representation}",
                via=16_000 if rate == "16k" else None,
            ),
            weights=(f"v0_4_0_{representation}_{content}",),
            gmacs_per_item=_GMACS[representation],
        )

    @property
    def _representation(self) -> Representation:
        return cast("Representation", self.chosen[1])

    def build(self) -> nn.Module:
        """Build avfeat's port of the Keras network."""
        from avfeat.extract.backbones.nets.openl3 import OpenL3Audio

        return OpenL3Audio(self._representation, self.spec.dim)

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the Keras files of openl3, or the files of torchopenl3."""
        from avfeat.extract.backbones.nets.keras_order import openl3_audio

        return openl3_audio(state)

    def to_input(self, items: Tensor) -> Tensor:
        """Decibel maps float32 ``[N, 1, bands, frames]`` of waveforms float32 ``[N, 48000]``."""
        from avfeat.extract.backbones.nets.openl3_mel import decibel_map

        front_end = _FRONT_ENDS[self.chosen[3]]
        return decibel_map(items, self._representation, front_end).float().unsqueeze(1)
