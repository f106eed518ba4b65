"""What a network's weights are: the part of a recipe that tells random weights from real ones."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

RANDOM_METHOD = "calibrated-normal-v2"
"""Name of what `avfeat.extract.weights.random` does; changed whenever its numbers change."""


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Provenance of one backbone's weights.

    Parameters
    ----------
    source
        ``"published"`` or ``"random"``.
    tag, file, sha256, url, licence, citation
        Of the published file; the hash is the full one of the file at hand. None if random.
    tensors
        SHA-256 of what the network takes from the file, equal for all files that hold the same; see
        `avfeat.extract.weights.state.identify`. None if random, or before it was computed.
    seed, method
        Of random weights; None if published.
    path
        Where the file lies on this machine; no part of equality or of `to_dict`.
    parts
        Of weights put together from several files: submodule and provenance of each. `file`,
        `sha256` and `url` then name all of them; nor are the parts in `to_dict`.
    """

    source: Literal["published", "random"]
    tag: str | None = None
    file: str | None = None
    sha256: str | None = None
    url: str | None = None
    licence: str | None = None
    citation: str | None = None
    tensors: str | None = None
    seed: int | None = None
    method: str | None = None
    path: Path | None = field(default=None, compare=False)
    parts: tuple[tuple[str, WeightsInfo], ...] = ()

    @classmethod
    def random(cls, seed: int) -> WeightsInfo:
        """Weights that are drawn, not trained."""
        return cls(source="random", seed=seed, method=RANDOM_METHOD)

    def to_dict(self) -> dict[str, Any]:
        """All but the path and the parts, ready for JSON."""
        hidden = ("path", "parts")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
