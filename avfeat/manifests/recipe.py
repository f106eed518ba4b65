"""The recipe: everything that can change a number in a row, and its fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from avfeat.manifests.jsonfile import canonical, digest

#: Libraries whose version can change a number, by modality.
LIBRARIES = {
    "visual": ("av", "numpy", "pillow", "torch", "torchvision", "timm"),
    "audio": ("av", "numpy", "soxr", "torch"),
}

#: Stands for the value of a field that only one of two recipes has.
_ABSENT = "(absent)"


class Recipe(BaseModel):
    """Everything that can change a number in a row. Two stores of one recipe can be compared.

    Attributes
    ----------
    backbone
        Name, layer, dimension and preprocessing, as `BackboneSpec.recipe` gives them.
    weights
        Source (``published`` or ``random``), tag, sha256 of the tensors that the network takes (not
        of the file, see `avfeat.extract.weights.state.identify`), or seed and method.
    sampling
        Frames: rule and frames per second. Audio: rate, down-mix and resampler.
    compute
        Engine, device type, precision and batch shape.
    store
        Dtype of the rows and layout of the units (batches are packed within a unit).
    libraries
        Versions of the decoder, resampler, image and network libraries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    backbone: dict[str, Any]
    weights: dict[str, Any]
    sampling: dict[str, Any]
    compute: dict[str, Any]
    store: dict[str, Any]
    libraries: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the recipe's canonical JSON."""
        return digest(self.model_dump(mode="json"))


#: Of FFmpeg, as PyAV carries it: decoding, timestamps and colour conversion.
_FFMPEG = ("libavcodec", "libavformat", "libswscale")


def library_versions(modality: str, *, beside: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of the libraries that rows of `modality` depend on.

    `beside` names packages that only some recipes use.
    """
    names = {*LIBRARIES[modality], *beside, *_FFMPEG}
    return {name: installed(name) for name in sorted(names)}


def installed(library: str) -> str:
    """Return the version of a package, or of one of FFmpeg's libraries, that is at hand here.

    ``none`` if it is not there.
    """
    import av

    if library in _FFMPEG:
        return ".".join(map(str, av.library_versions[library]))
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


def differences(stored: Recipe, asked: Recipe) -> list[tuple[str, Any, Any]]:
    """List ``(dotted field, stored value, asked value)`` where two recipes differ."""
    return _differences("", stored.model_dump(mode="json"), asked.model_dump(mode="json"))


def _differences(prefix: str, stored: Any, asked: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            difference
            for key in sorted(stored.keys() | asked.keys())
            for difference in _differences(
                f"{prefix}.{key}" if prefix else key,
                stored.get(key, _ABSENT),
                asked.get(key, _ABSENT),
            )
        ]
    # By their JSON, as the fingerprint has them: 8 and 8.0 are equal and yet two fingerprints.
    return [] if canonical(stored) == canonical(asked) else [(prefix, stored, asked)]
