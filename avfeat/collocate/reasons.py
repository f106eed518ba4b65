"""Why scores have no value: reasons that differ in numbers alone, told once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Not those within a name, such as resnet152.
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason and what it is of.

    Attributes
    ----------
    scores
        Names.
    text
        Of numbers that differ, the range.
    whose
        Names of pairs and of backbones, each with its own of these numbers.
    """

    scores: tuple[str, ...]
    text: str
    whose: tuple[str, ...]


def collect(rows: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """Collect reasons from rows of a document, those of pairs and of single backbones.

    Examples
    --------
    >>> def row(name, reason):
    ...     return {"names": [name], "scores": {"svd": {"value": None, "reason": reason}}}
    >>> collect([row("a", "2 clips of 5"), row("b", "3 clips of 5")])
    [Reason(scores=('svd',), text='2…3 clips of 5', whose=('a (2)', 'b (3)'))]
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        for name, score in row["scores"].items():
            if score["value"] is None:
                reason = score["reason"]
                kind = kinds.setdefault((name, _NUMBER.sub("…", reason)), [])
                kind.append((" + ".join(row["names"]), reason))
    told: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, _), found in kinds.items():
        told.setdefault(_tell(found), []).append(name)
    return [Reason(tuple(names), text, whose) for (text, whose), names in told.items()]


def _tell(found: list[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """Put ranges for the numbers in which reasons differ, and the numbers behind the names."""
    numbers = [_NUMBER.findall(reason) for _, reason in found]
    columns = list(zip(*numbers, strict=True))
    same = [len(set(values)) == 1 for values in columns]
    ranges = iter([f"{min(c, key=float)}…{max(c, key=float)}" for c in columns])
    shown = iter(zip(numbers[0], same, strict=True))

    def keep(_: re.Match[str]) -> str:
        (value, alike), range_ = next(shown), next(ranges)
        return value if alike else range_

    text = _NUMBER.sub(keep, found[0][1])
    whose = []
    for (name, _), values in zip(found, numbers, strict=True):
        own = [value for value, alike in zip(values, same, strict=True) if not alike]
        whose.append(f"{name} ({', '.join(own)})" if own else name)
    return text, tuple(whose)
