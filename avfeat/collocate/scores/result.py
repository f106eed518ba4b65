"""What every score gives: a number, or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """A number, or the reason that there is none; never both, and never NaN or infinite.

    >>> Score(0.75), Score.not_applicable("one clip only")
    (Score(value=0.75, reason=''), Score(value=None, reason='one clip only'))
    """

    value: float | None
    reason: str = ""

    def __post_init__(self) -> None:
        known = self.value is not None and math.isfinite(self.value)
        if known == bool(self.reason):
            raise ValueError(f"a score is a number or has a reason: {self.value}, {self.reason!r}")

    @classmethod
    def not_applicable(cls, reason: str) -> Score:
        """Say why there is no number."""
        return cls(None, reason)

    def to_dict(self) -> dict[str, Any]:
        """Return ``value``, and ``reason`` where it is None; ready for JSON."""
        return {"value": self.value} | ({"reason": self.reason} if self.value is None else {})
