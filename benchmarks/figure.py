"""One figure of the benchmarks: a value, what it should be, and what it stands on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes
    ----------
    name
        What was measured, unique within a run.
    value, unit
        The figure; ``"x"`` is a ratio of times, or of what its name says.
    target
        What it should be, or None where there is nothing to reach.
    met
        Whether it is; None without a target.
    detail
        What else was measured on the way.
    limit
        What the machine allows: the value at which nothing would be left to gain, in words.
    bound
        Whether the target is the least that the value should be, or the most.
    """

    name: str
    value: float
    unit: str
    target: float | None
    met: bool | None
    detail: str
    limit: str = ""
    bound: Literal["least", "most"] = "least"

    def bounded(self, target: float) -> Figure:
        """Return the same with a target that its value should not exceed.

        >>> plain("memory", 5.0, "MB", "").bounded(4.0).met
        False
        """
        return replace(self, target=target, met=self.value <= target, bound="most")


def least(name: str, value: float, target: float, detail: str, *, limit: str = "") -> Figure:
    """Return a ratio that should be at least `target`.

    >>> least("speed", 2.0, 1.8, "").met
    True
    """
    return Figure(name, value, "x", target, value >= target, detail, limit)


def most(name: str, value: float, target: float, detail: str, *, limit: str = "") -> Figure:
    """Return a ratio that should be at most `target`.

    >>> most("overhead", 1.2, 1.1, "").met
    False
    """
    return Figure(name, value, "x", target, value <= target, detail, limit, "most")


def plain(name: str, value: float, unit: str, detail: str, *, limit: str = "") -> Figure:
    """Return a figure that has nothing to reach."""
    return Figure(name, value, unit, None, None, detail, limit)
