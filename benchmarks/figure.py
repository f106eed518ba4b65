"""One figure of the benchmarks: a value, what it should be, and what it stands on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes
    ----------
    name
        What was measured, unique within a run.
    value, unit
        The figure; ``"x"`` is a ratio of times, more is better.
    target
        What it should be at least, or None where there is nothing to reach.
    met
        Whether it is; None without a target.
    detail
        What else was measured on the way.
    """

    name: str
    value: float
    unit: str
    target: float | None
    met: bool | None
    detail: str
