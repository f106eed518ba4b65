"""A collocation on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from avfeat.collocate import reasons
from avfeat.render_diagnostics import diagnostics
from avfeat.tables import pairs, table
from avfeat.words import counted, duration

_NONE = "-"


def collocation(console: Console, document: dict[str, Any]) -> None:
    """Print the document of `avfeat.collocate.session.collocate`."""
    _head(console, document)
    if "scores" in document:
        _scores(console, document)
    if "diagnostics" in document:
        diagnostics(console, document["diagnostics"])
    for name, search in document["searches"].items():
        _search(console, name, search)
    if document.get("evidence"):
        _evidence(console, document["evidence"], len(document["searches"]["traverse"]["places"]))


def _head(console: Console, document: dict[str, Any]) -> None:
    lines = [
        ("data set", document["dataset"]),
        ("audio", ", ".join(document["audio"])),
        ("visual", ", ".join(document["visual"])),
        *([("motion", document["motion"] or "none")] if document["method"] != "scores" else []),
        ("clips", f"{document['clips']} that all stores have" + _apart(document["clips_apart"])),
    ]
    console.print("collocation", style="bold")
    pairs(console, lines)
    for name, reason in document["left_out"].items():
        console.print(f"left out: {name}, {reason}", markup=False)
    for one in document["missing"]:
        console.print(
            f"no store of {one['name']}; make it by: {one['command']}", markup=False, soft_wrap=True
        )
    unreal = [name for name, one in document["stores"].items() if one["weights"] != "published"]
    if unreal:
        console.print(
            f"not real features (random or synthetic): {', '.join(unreal)}", style="yellow"
        )


def _apart(number: int) -> str:
    return f" ({number} more that only some have)" if number else ""


def _scores(console: Console, document: dict[str, Any]) -> None:
    names = list(document["scores"])
    splits = document["splits"]
    # As in the report: by the first score that any pair has.
    first = next((name for name in names if _applies(document["pairs"], name)), names[0])
    shown = sorted(document["pairs"], key=lambda row: _order(row["scores"][first]))
    rows = [*shown, *document["singles"]]
    columns = [f"{name} #" for name in names]
    intervals = [_interval(row) for row in rows]
    # Beside what it is of; of the other angles it is in the JSON document.
    place = names.index("svd") + 1 if "svd" in names and any(intervals) else None
    if place is not None:
        columns.insert(place, "svd 95 % #")
    cells = []
    for row, interval in zip(rows, intervals, strict=True):
        values = [_value(row["scores"][name]) for name in names]
        if place is not None:
            values.insert(place, interval or _NONE)
        cells.append((" + ".join(row["names"]), *values))
    table(
        console,
        f"scores without training, {splits['source']} to {splits['target']}, "
        f"{duration(document['seconds'])}, by {first}",
        ("pair", *columns),
        cells,
    )
    for name, meaning in document["scores"].items():
        console.print(f"  {name}: {meaning}", style="dim", markup=False)
    if compared := [name for name in names if name in ("mutual-knn", "recall")]:
        console.print(
            f"  {' and '.join(compared)} look at {document['sampled']} segments of "
            f"{splits['target']}, the others at all",
            style="dim",
        )
    if place is not None:
        console.print(
            f"  95 %: interval of svd by {document['resamples']} resamples of clips; sampling "
            "lowers cosines, so that it may lie above",
            style="dim",
        )
    for reason in reasons.collect(rows):
        line = f"  {_NONE} {', '.join(reason.scores)}: {reason.text}"
        console.print(line, style="dim", markup=False)


def _applies(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row["scores"][name]["value"] is not None for row in rows)


def _interval(row: dict[str, Any]) -> str:
    """Write the interval of cos psi_1 as printed; empty where there is none."""
    printed = row["angles"]["printed"]
    interval = printed and printed["interval"]
    return f"{interval[0][0]:.4f} to {interval[0][1]:.4f}" if interval else ""


def _order(score: dict[str, Any]) -> float:
    return float("inf") if score["value"] is None else -score["value"]


def _value(score: dict[str, Any]) -> str:
    return _NONE if score["value"] is None else f"{score['value']:.4f}"


def _search(console: Console, name: str, search: dict[str, Any]) -> None:
    # Pairs that are level share the first of their places.
    reached = [(place["epochs"], place["type_av"]) for place in search["places"]]
    table(
        console,
        f"{name}: {counted(search['trainings'], 'training')}, their epochs took "
        f"{duration(search['seconds'])}",
        ("place #", "pair", "Type@AV #", "spread #", "epochs #"),
        [
            (
                reached.index(own) + 1,
                " + ".join(place["pair"]),
                "diverged" if place["type_av"] is None else f"{place['type_av']:.2f}",
                _NONE if place["spread"] is None else f"{place['spread']:.2f}",
                place["epochs"],
            )
            for own, place in zip(reached, search["places"], strict=True)
        ],
    )
    if len(reached) > 1 and len(set(reached)) == 1:
        console.print("  no pair is told apart from another: train longer", style="dim")
    for step in search["facts"].get("path", []):
        console.print(
            f"  from {' + '.join(step['pair'])}, learning rate {step['lr']:g}: "
            f"best is {' + '.join(step['best'])}",
            style="dim",
            markup=False,
        )
    if "returned_to" in search["facts"]:
        pair = " + ".join(search["facts"]["returned_to"])
        console.print(f"  {pair} was stood at before: the search ends", style="dim", markup=False)
    if "epochs_saved" in search["facts"]:
        facts = search["facts"]
        console.print(
            f"  early stopping saved {facts['epochs_saved']} of "
            f"{counted(facts['epochs_in_full'], 'epoch')}",
            style="dim",
        )


def _evidence(console: Console, evidence: dict[str, Any], number: int) -> None:
    """Print what each method is worth, of a traversal of some number of pairs."""
    table(
        console,
        "agreement with the traversal",
        ("method", "chooses", "place #", "regret #", "Kendall tau #", "times cheaper #"),
        [
            (
                name,
                _choice(one),
                _NONE if one["rank"] is None else f"{one['rank']:.3g}",
                _NONE if one["regret"] is None else f"{one['regret']:.2f}",
                _NONE if one["tau"] is None else f"{one['tau']:+.2f}",
                _NONE if one["times_cheaper"] is None else f"{one['times_cheaper']:.1f}",
            )
            for name, one in evidence.items()
        ],
    )
    for name, one in evidence.items():
        notes = [f"has a value of {one['pairs']} of {number} pairs"] * (one["pairs"] < number)
        if one["tau"] is None:
            notes.append(f"no tau: {one['reason']}")
        elif one["best"] is None:
            notes.append(one["reason"])
        if notes:
            console.print(f"  {name}: {'; '.join(notes)}", style="dim", markup=False)


def _choice(one: dict[str, Any]) -> str:
    """Write what a method puts first, and how many more it puts beside it."""
    if one["best"] is None:
        return _NONE
    tied = f" ({counted(one['tied'], 'pair')} tied)" if one["tied"] > 1 else ""
    return " + ".join(one["best"]) + tied
