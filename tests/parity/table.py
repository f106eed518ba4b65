"""The tables of docs/parity.md, from what the tests of `make parity` measured.

``python table.py RECORD DOCUMENT`` prints them and writes them into the document, between two
comments each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import between

Record = dict[str, Any]


def main(record: Path, document: Path) -> None:
    records = latest(json.loads(line) for line in record.read_text().splitlines())
    text = document.read_text()
    absent = []
    for name, (kind, write) in TABLES.items():
        if not any(one["kind"] == kind for one in records):
            absent.append(kind)
            continue
        table = write(records)
        print(table, end="\n\n")
        text = between(text, name, table)
    document.write_text(text)
    if absent:
        raise SystemExit(f"nothing was recorded of {', '.join(absent)}: no such table was written")


def latest(records: Iterable[Record]) -> list[Record]:
    """Of measurements of the same the last, so that a part can be measured again.

    >>> latest([{"kind": "flow", "backbone": "a", "mean": n} for n in (1, 2)])
    [{'kind': 'flow', 'backbone': 'a', 'mean': 2}]
    """
    keys = ("kind", "backbone", "oracle")
    return list({tuple(one.get(key) for key in keys): one for one in records}.values())


def networks(records: Iterable[Record]) -> str:
    """One row per backbone, or variant, and oracle."""
    records = list(records)
    rows = []
    for one in _of_kind(records, "network"):
        errors = [_power(one[key]) for key in ("l2", "max", "mean")]
        rows.append(
            [
                f"`{one['backbone']}`",
                one["oracle"],
                *errors,
                _power(one["tolerance"]),
                _input_of(one["backbone"], records),
                _power(one["sensitivity"]),
            ]
        )
    heads = ["backbone", "oracle", "L2", "max", "mean", "L2 allowed", "input, max", "sensitivity"]
    return _table(heads, rows)


def inputs(records: Iterable[Record]) -> str:
    """One row per front end and oracle."""
    rows = [
        [
            f"`{one['backbone']}`",
            one["oracle"],
            f"{_power(one['max'])} {one['unit']}" if one["max"] else "0",
            f"{_power(one['mean'])} {one['unit']}" if one["mean"] else "0",
        ]
        for one in _of_kind(records, "input")
    ]
    return _table(["input of", "oracle", "max", "mean"], rows)


def rounding(records: Iterable[Record]) -> str:
    """One row per backbone."""
    found = _of_kind(records, "rounding")
    threads = {one["threads"] for one in found}
    rows = [
        [f"`{one['backbone']}`", str(one["batch"]), _power(one["alone"]), _power(one["single"])]
        for one in found
    ]
    counts = " or ".join(map(str, sorted(threads)))
    return _table(["backbone", "batch", "batch of 1", f"1 thread for {counts}"], rows)


def engines(records: Iterable[Record]) -> str:
    """One row per backbone; bfloat16 is left open where the processor has none."""
    rows = []
    for one in _of_kind(records, "engine"):
        half = [_power(one["half"][engine]) for engine in ("openvino", "torch") if one["half"]]
        least = [f"{one['half_cosine']:.5f}"] if one["half"] else []
        rows.append(
            [
                f"`{one['backbone']}`",
                _power(one["own"]),
                _power(one["l2"]),
                f"{one['cosine']:.7f}",
                *(half + least or ["-", "-", "-"]),
            ]
        )
    heads = ["backbone", "torch to float64", "OpenVINO", "least cosine"]
    return _table([*heads, "OpenVINO bf16", "torch bf16", "least cosine, OpenVINO bf16"], rows)


def flow(records: Iterable[Record]) -> str:
    """One row per pair of pictures."""
    rows = [
        [
            one["backbone"],
            f"{one['length']:.1f} px",
            f"{one['left_out']:.0%}",
            f"{_power(one['mean'])} px",
            f"{_power(one['own'])} px",
            " / ".join(f"{_power(error)} px" for error in one["errors"] or ()) or "-",
        ]
        for one in _of_kind(records, "flow")
    ]
    heads = ["pictures", "motion", "left out", "torch - OpenCV", "OpenCV - OpenCV", "errors"]
    return _table(heads, rows)


def _of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    found = [one for one in records if one["kind"] == kind]
    return sorted(found, key=lambda one: (one["backbone"], one.get("oracle", "")))


def _input_of(backbone: str, records: list[Record]) -> str:
    """The worst of what was measured of a variant's input, or of that which it shares."""
    name = backbone
    while name:
        # What an oracle loses by its own precision is not ours.
        own = [
            one
            for one in records
            if (one["kind"], one["backbone"]) == ("input", name)
            and "as shipped" not in one["oracle"]
        ]
        if own:
            worst = max(own, key=lambda one: one["max"])
            return f"{_power(worst['max'])} {worst['unit']}" if worst["max"] else "0"
        name = name.rpartition(".")[0]
    # Both streams' input is, to the bit, the one's and the other's.
    return "as of its streams" if backbone == "i3d" else "-"


def _power(value: float) -> str:
    """
    >>> [_power(value) for value in (0, 1.26e-7, 0.0123, 0.5, 1e-5)]
    ['0', '1.3e-7', '0.012', '0.5', '1e-5']
    """
    if value == 0:
        return "0"
    if value >= 1e-3:
        return f"{value:.2g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Each block of the document, with the kind of records that it is made of.
TABLES: dict[str, tuple[str, Callable[[Iterable[Record]], str]]] = {
    "networks": ("network", networks),
    "inputs": ("input", inputs),
    "flow": ("flow", flow),
    "rounding": ("rounding", rounding),
    "engines": ("engine", engines),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
