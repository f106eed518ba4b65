"""A collocation as one page of HTML that needs no network.

Everything in the document of `avfeat.collocate.session.collocate` is in it, each number rounded for
people and in full for programs (``<data value="…">``). Figures are SVG within the page. All text is
escaped: names and messages come from stores that somebody else may have made.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avfeat.collocate import figures, outline, reasons
from avfeat.collocate.candidates import Pair
from avfeat.collocate.log import Log
from avfeat.errors import UsageError, WriteError
from avfeat.words import duration

Document = Mapping[str, Any]

#: Seconds of the traversal and of the proxy in Wu et al. 2022.
PAPER_SECONDS = (33887.77, 11706.04)

# Parts of the diagnostics from this depth on are details.
_DEEP = 2

#: Titles and meanings of parts of the diagnostics, by the way to them.
DIAGNOSED = {
    ("sampled",): (
        "The sample",
        "Whole clips of the target split, drawn by the seed: recall, discriminator and similarity "
        "look at these.",
    ),
    ("recall",): (
        "Is the nearest segment of the same label? (2022, Table 1; 2021, Table 2)",
        "Share of segments whose nearest one by cosine matches, and what chance reaches. A reading "
        "is what matches (share: a label in common; equal: the same set), among which segments "
        "(labelled ones, or all), and what the nearest may not be (the segment itself, any of its "
        "clip, or nothing is ruled out: then within a modality a segment finds itself). The values "
        "outside the readings are those of share, labelled, segment. Distinguish: share of "
        "segments with labels whose nearest other has some. Precision: R-precision, of as many "
        "nearest as there are matches the share that match.",
    ),
    ("recall", "unimodal"): ("Within a modality", ""),
    ("recall", "multimodal"): ("Visual segments sought for audio ones, in a common space", ""),
    ("discriminator",): (
        "Which network made this? (2022, Table 4)",
        "Accuracy of a linear and a non-linear classifier that tell two networks of a modality "
        "apart by their features, on clips that they were not fitted on.",
    ),
    ("discriminator", "preparations"): ("What is taken from the features first", ""),
    ("lags",): ("By time lag (2022, Fig. 8)", ""),
    ("lags", "labels"): (
        "Labels",
        "Of segments so many seconds apart, equal: share that have the same set of labels; per "
        "class: that agree on a class, mean over classes; conditional: that have a class which the "
        "first has, mean over classes.",
    ),
    ("lags", "similarity"): (
        "Features",
        "Mean cosine of segments so many seconds apart; elsewhere is that of different clips.",
    ),
    ("classes",): (
        "Fewer classes (2022, Fig. 6)",
        "Scores where the source split has clips of the first classes alone, and Kendall's tau "
        "with the order of pairs under all.",
    ),
    ("classes", "reads"): ("Splits that each score looks at", ""),
}

_FORMS = {"printed": "As the paper has it", "centred": "Of centred features"}

_TITLES = {"traverse": "traversal"}


def check_target(path: str | Path) -> Path:
    """Return where a report is to go, before hours are spent on what is to be in it.

    Raises
    ------
    UsageError
        If its folder is not there, or it is a folder itself.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise UsageError(
            f"cannot write the report {target}: there is no folder {target.parent}; create it, or "
            "choose another file with --report"
        )
    if target.is_dir():
        raise UsageError(f"cannot write the report {target}: it is a folder; name a file in it")
    return target


def write(document: Document, path: str | Path, *, log: str | None = None) -> None:
    """Write the report of a collocation, whole or not at all.

    Parameters
    ----------
    document
        Of `avfeat.collocate.session.collocate`; what it has no part of is left out.
    path
        The HTML file; one that is there is replaced.
    log
        Folder or URL of the trainings' records, whose curves are drawn; None for none.

    Raises
    ------
    UsageError
        See `check_target`.
    WriteError
        Disk full, or not permitted; what was there before is untouched.
    """
    target = check_target(path)
    text = render(document, find=Log(log).find if log is not None else lambda key: None)
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            with scratch.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write the report {target}: {error.strerror or error}") from error


def render(
    document: Document,
    *,
    find: Callable[[str], Document | None] = lambda key: None,
) -> str:
    """Return the page.

    Parameters
    ----------
    find
        Gives the record of a training by its key, or None.
    """
    environment = Environment(
        loader=PackageLoader("avfeat.collocate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    searches = document.get("searches", {})
    return environment.get_template("report.html.j2").render(
        document=document,
        titles=_TITLES,
        unreal={
            name: store["weights"]
            for name, store in document["stores"].items()
            if store["weights"] != "published"
        },
        methods=list(_methods(document)),
        order=_order(document),
        reasons=reasons.collect([*document.get("pairs", []), *document.get("singles", [])]),
        evidence=_evidence(document),
        curves={name: _curves(document, name, find) for name in searches},
        diagnostics=list(_diagnostics(document.get("diagnostics", {}))),
        angled={
            form: title
            for form, title in _FORMS.items()
            if any(row["angles"][form] for row in document.get("pairs", []))
        },
        ratio=_ratio(document),
        paper_seconds=PAPER_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Method:
    """A column of the ranking.

    Attributes
    ----------
    name
        Of the search or score.
    values
        By pair; those without one are not in it.
    spreads
        Standard deviations over seeds, by pair; only of searches with several.
    epochs
        By pair, only of searches: one that was dropped early is behind all that were not.
    """

    name: str
    values: Mapping[Pair, float]
    spreads: Mapping[Pair, float] = field(default_factory=dict)
    epochs: Mapping[Pair, int] = field(default_factory=dict)

    def shade(self, pair: Pair) -> float:
        """Share of the other pairs that this one is better than, from 0 to 1."""
        if len(self.values) < 2:
            return 0.0
        own = self._key(pair)
        return sum(self._key(other) < own for other in self.values) / (len(self.values) - 1)

    def dropped(self, pair: Pair) -> int | None:
        """Epochs after which a pair was dropped; None where it was not."""
        epochs = self.epochs.get(pair)
        return epochs if epochs is not None and epochs < max(self.epochs.values()) else None

    def _key(self, pair: Pair) -> tuple[int, float]:
        return self.epochs.get(pair, 0), self.values[pair]


def _methods(document: Document) -> Iterator[Method]:
    """Give all methods that value pairs: the dear one first, then the cheap ones."""
    for name in ("traverse", "proxy"):
        if search := document.get("searches", {}).get(name):
            places = {_pair(place["pair"]): place for place in search["places"]}
            yield Method(
                name,
                {p: one["type_av"] for p, one in places.items() if one["type_av"] is not None},
                {p: one["spread"] for p, one in places.items() if one["spread"] is not None},
                {pair: place["epochs"] for pair, place in places.items()},
            )
    rows = {_pair(row["names"]): row["scores"] for row in document.get("pairs", [])}
    for name in document.get("scores", {}):
        yield Method(
            name,
            {p: s[name]["value"] for p, s in rows.items() if s[name]["value"] is not None},
        )


def _order(document: Document) -> list[Pair]:
    """Pairs, the best first, by the dearest method that values any."""
    pairs = _pairs(document)
    valuing = [method for method in _methods(document) if method.values]
    if not valuing:
        return pairs
    first = valuing[0]
    return sorted(pairs, key=lambda pair: -first.shade(pair) if pair in first.values else 1)


def _evidence(document: Document) -> Markup | None:
    """Draw who follows the traversal."""
    searches = document.get("searches", {})
    if "traverse" not in searches:
        return None
    agreements = document.get("evidence", {})
    methods = {one.name: one for one in _methods(document) if one.name != "traverse"}
    if not methods:
        return None
    cheap = []
    for name, one in methods.items():
        # Values after different epochs are not of one scale; their order is what counts.
        early = any(map(one.dropped, one.values))
        values = {pair: one.shade(pair) for pair in one.values} if early else one.values
        cheap.append(figures.Follower(name, values, agreements.get(name, {}).get("tau")))
    proxy = [
        place for place in _valued(searches.get("proxy")) if not methods["proxy"].dropped(place[0])
    ]
    return Markup(figures.evidence(_valued(searches["traverse"]), cheap, proxy=proxy))


def _valued(search: Document | None) -> list[tuple[Pair, float, float | None]]:
    return (
        []
        if search is None
        else [
            (_pair(place["pair"]), place["type_av"], place["spread"])
            for place in search["places"]
            if place["type_av"] is not None
        ]
    )


def _curves(document: Document, name: str, find: Callable[[str], Document | None]) -> Markup | None:
    """Draw the trainings behind a ranking, of those that the log still has."""
    places = {_pair(place["pair"]): place for place in document["searches"][name]["places"]}
    found = [
        figures.Curve(
            pair,
            [epoch["loss"] for epoch in record["curve"]],
            [epoch["type_av"] for epoch in record["curve"]],
        )
        # Not in the order of the ranking: a backbone has one colour in all figures.
        for pair in _pairs(document)
        for key in places[pair]["records"]
        if (record := find(key)) is not None and record["curve"]
    ]
    return Markup(figures.curves(found, name=f"curves-{name}")) if found else None


@dataclass(slots=True)
class Part:
    """A heading of the diagnostics and what is under it.

    Attributes
    ----------
    title
        Of deep parts the whole way to them.
    depth
        From 0.
    blocks
        Tables, and curves as a figure with the table of its numbers; each with its title.
    meaning
        What is under it, in words.
    """

    title: str
    depth: int
    blocks: list[tuple[Markup | None, outline.Table, str]]
    meaning: str = ""

    @property
    def folded(self) -> bool:
        """Whether it opens on a click only: what is deep and has nothing to look at."""
        return self.depth >= _DEEP and not any(figure for figure, *_ in self.blocks)


def _diagnostics(diagnostics: Document) -> Iterator[Part]:
    """Lay the diagnostics out in the order in which they are to be read."""
    part = Part("", 0, [])
    way: list[str] = []
    for number, block in enumerate(outline.outline(dict(diagnostics)) if diagnostics else ()):
        match block:
            case outline.Heading():
                if part.blocks or (part.title and part.depth < _DEEP):
                    yield part
                way = [*way[: block.depth], block.text]
                told, meaning = DIAGNOSED.get(tuple(way), (block.text, ""))
                part = Part(": ".join(way[_DEEP:]) or told, block.depth, [], meaning)
            case outline.Table():
                part.blocks.append((None, block, ""))
            case outline.Curves():
                # All curves of the diagnostics are over time lags.
                figure = figures.lines(
                    block.series, title=block.title, x="lag, s", name=f"lines-{number}"
                )
                part.blocks.append((Markup(figure), _columns(block.series), block.title))
    if part.blocks:
        yield part


def _columns(series: Mapping[str, Sequence[float | None]]) -> outline.Table:
    """Put curves into a table, a row each."""
    longest = max(len(values) for values in series.values())
    rows = [[name, *values, *[None] * (longest - len(values))] for name, values in series.items()]
    return outline.Table(["", *map(str, range(longest))], rows)


def _ratio(document: Document) -> float | None:
    """How many times the proxy's seconds the traversal took; None unless both ran."""
    searches = document.get("searches", {})
    if not {"traverse", "proxy"} <= searches.keys() or not searches["proxy"]["seconds"]:
        return None
    return float(searches["traverse"]["seconds"] / searches["proxy"]["seconds"])


def _pairs(document: Document) -> list[Pair]:
    return [(audio, visual) for audio in document["audio"] for visual in document["visual"]]


def _pair(names: Sequence[str]) -> Pair:
    return names[0], names[1]
