"""How tables and lists for people look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "failed": "red", "degraded": "yellow", "missing": "yellow"}

#: What people copy: never folded.
_WHOLE = ("name", "name and files", "store", "clip", "row", "bytes")


def table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    squeezed: str = "",
) -> None:
    """Print a table; cells are shown as they are, never taken for markup.

    Words are never folded: where they do not fit, lines are longer than the terminal.

    Parameters
    ----------
    columns
        Names; those of columns of numbers end in ``" #"``.
    squeezed
        Column that is cut to what the others leave, if need be.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    names = [column.removesuffix(" #") for column in columns]
    least = []
    for place, name in enumerate(names):
        texts = [row[place] for row in cells]
        # Of the name, words alone; of what people copy, all.
        words = [*name.split(), *(texts if name in _WHOLE else " ".join(texts).split())]
        least.append(max(map(len, words), default=1))
    grid = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, (column, name) in enumerate(zip(columns, names, strict=True)):
        if name == squeezed:
            room = console.width - sum(least) + least[place] - 2 * (len(names) - 1)
            longest = max((len(row[place]) for row in cells), default=1)
            least[place] = max(min(room, longest), len(name))
        grid.add_column(
            name,
            justify="right" if column.endswith((" #", "/s", "MiB")) else "left",
            overflow="ellipsis" if name == squeezed else "fold",
            min_width=least[place],
            max_width=least[place] if name == squeezed else None,
            no_wrap=name == squeezed or name in _WHOLE,
        )
    for row in cells:
        grid.add_row(*map(Text, row))
    console.print(grid, crop=False)


def pairs(console: Console, lines: Iterable[tuple[str, str | Text]]) -> None:
    """Print names and what they stand for, below each other."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for key, value in lines:
        grid.add_row(
            Text(f"  {key}", style="dim"), value if isinstance(value, Text) else Text(value)
        )
    console.print(grid)


def counts(values: dict[str, int]) -> Text:
    """Write counts by status in colour: ``1 ok, 11848 missing``."""
    parts = [
        Text(f"{number} {status}", style=_STYLES.get(status, ""))
        for status, number in values.items()
    ]
    return Text(", ").join(parts)


def size(number: float) -> str:
    """Write a number of bytes with a binary unit: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def fields(values: dict[str, Any]) -> str:
    """Write settings in one line."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def shaped(shape: Sequence[int]) -> str:
    """Write a shape: ``7 x 7 x 512``."""
    return " x ".join(map(str, shape))
