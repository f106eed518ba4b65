"""Any JSON value as headings, tables and curves.

What the diagnostics hold is theirs to say; the report shows all of it, by its shape alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | int | bool | None

# Rows of more cells than this are cut into tables of their own.
_WIDEST = 12
# Fewer numbers than this are no curve.
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Heading:
    """A title; `depth` from 0."""

    text: str
    depth: int


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, the first of each its name; None where there is nothing."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Curves:
    """Numbers over their places, from 0, by label."""

    title: str
    series: Mapping[str, Sequence[float | None]]


Block = Heading | Table | Curves


@dataclass(frozen=True, slots=True)
class _Parts:
    """A record: what fits in a row, what is drawn, and what needs a place of its own."""

    cells: dict[str, Cell] = field(default_factory=dict)
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        return {*self.cells, *self.curves}


def outline(value: Any, *, depth: int = 0) -> Iterator[Block]:
    """Lay a value out.

    Records that have something in common are rows of one table, and their curves of one name are
    drawn together; of anything else, plain values are a table, and the others have headings.

    Examples
    --------
    >>> list(outline({"a": {"value": 0.5, "chance": 0.1}, "b": {"value": 0.7, "chance": 0.1}}))
    [Table(columns=['', 'value', 'chance'], rows=[['a', 0.5, 0.1], ['b', 0.7, 0.1]])]
    >>> list(outline({"vggish": {"cosine": [1.0, 0.8, 0.7]}}))
    [Curves(title='cosine', series={'vggish': [1.0, 0.8, 0.7]})]
    """
    value = _named(value)
    own = {
        name: _reasoned(item) if _is_reasoned(item) else _plain(item)
        for name, item in value.items()
        if _is_reasoned(item) or _is_plain(item)
    }
    if own:
        yield Table(["", ""], [[name, cell] for name, cell in own.items()])
    drawn = {name: item for name, item in value.items() if _is_curve(item)}
    if drawn:
        yield Curves("", drawn)
    left = {name: item for name, item in value.items() if name not in own and name not in drawn}
    records = {
        name: _split(_named(item)) if isinstance(item, dict) else _Parts()
        for name, item in left.items()
    }
    if not records or not set.intersection(*(record.keys for record in records.values())):
        for name, item in left.items():
            yield Heading(name, depth)
            yield from outline(item, depth=depth + 1)
        return
    yield from _together(records)
    for name, record in records.items():
        if record.rest:
            yield Heading(name, depth)
            yield from outline(record.rest, depth=depth + 1)


def _together(records: Mapping[str, _Parts]) -> Iterator[Block]:
    """Give a table with a row per record, and a figure per curve that records have."""
    columns = list(dict.fromkeys(key for record in records.values() for key in record.cells))
    if columns:
        rows = [
            [name, *(record.cells.get(column) for column in columns)]
            for name, record in records.items()
        ]
        yield Table(["", *columns], rows)
    for title in dict.fromkeys(key for record in records.values() for key in record.curves):
        yield Curves(
            title,
            {
                name: record.curves[title]
                for name, record in records.items()
                if title in record.curves
            },
        )


def _named(value: Any) -> dict[str, Any]:
    """Make a mapping of a list or a plain value; items are named by what they begin with."""
    if isinstance(value, dict):
        return {str(name): item for name, item in value.items()}
    if not isinstance(value, list) or _is_plain(value) or _is_curve(value):
        return {"": value}
    named: dict[str, Any] = {}
    for number, item in enumerate(value, start=1):
        name = str(number)
        if isinstance(item, dict) and item:
            key, first = next(iter(item.items()))
            if isinstance(first, list) and _is_plain(first):
                name, item = _plain(first), {k: v for k, v in item.items() if k != key}
            elif _is_plain(first):
                name = f"{key} {first}"
        named[name if name not in named else f"{name} ({number})"] = item
    return named


def _split(record: Mapping[str, Any]) -> _Parts:
    parts = _Parts()
    nested: dict[str, _Parts] = {}
    for name, item in record.items():
        if _is_reasoned(item):
            parts.cells[name] = _reasoned(item)
        elif _is_curve(item):
            parts.curves[name] = item
        elif _is_plain(item):
            parts.cells[name] = _plain(item)
        else:
            nested[name] = _split(item) if isinstance(item, dict) else _Parts(rest={"": item})
    # All or none: of a mapping, a part in the row and a part elsewhere would be hard to read.
    width = len(parts.cells) + sum(len(below.cells) for below in nested.values())
    for name, below in nested.items():
        if below.rest or width > _WIDEST:
            parts.rest[name] = record[name]
        else:
            parts.cells.update({f"{name} {key}": cell for key, cell in below.cells.items()})
            parts.curves.update({f"{name} {key}": curve for key, curve in below.curves.items()})
    return parts


def _is_curve(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= _LEAST
        and all(
            item is None or (isinstance(item, int | float) and not isinstance(item, bool))
            for item in value
        )
        and any(item is not None for item in value)
    )


def _is_reasoned(value: Any) -> bool:
    """Whether it is a number alone, or the reason that there is none."""
    return isinstance(value, dict) and bool(value) and value.keys() <= {"value", "reason"}


def _reasoned(value: Mapping[str, Any]) -> Cell:
    number: Cell = value.get("value")
    return value.get("reason") if number is None else number


def _is_plain(value: Any) -> bool:
    """Whether it fits in a cell: no mapping in it, and no curve."""
    if isinstance(value, list):
        return not _is_curve(value) and all(map(_is_plain, value))
    return not isinstance(value, dict)


def _plain(value: Any) -> Any:
    """Write a list as text: names of a pair with a plus, as everywhere."""
    if not isinstance(value, list):
        return value
    if all(isinstance(item, str) for item in value) and len(value) == 2:
        return " + ".join(value)
    return ", ".join(str(_plain(item)) for item in value)
