"""Figures of a collocation's report, as SVG to be put into a page.

Text stays text, which can be searched and copied; ids are the figure's own, so that several stand
in one page. Names are shown as they are, never taken for mathematics.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from avfeat.collocate.candidates import Pair

# Okabe and Ito's colours, which colour-blind people tell apart; yellow, pale on white, is last.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"),
    "#F0E442",
)
_DASHES = ("-", "--", ":", "-.")
_GREY = "#9a9a9a"
_WIDTH = 11.0  # inches
_COLUMNS = 5
_PLAIN: dict[str, Any] = {"frameon": False, "fontsize": 8}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.unicode_minus": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.06,
}


@dataclass(frozen=True, slots=True)
class Follower:
    """A cheap method beside the traversal.

    Attributes
    ----------
    name
        Of the method.
    values
        By pair; not all need one.
    tau
        Kendall's tau with the traversal; None where it cannot be told.
    """

    name: str
    values: Mapping[Pair, float]
    tau: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A training: its loss, and Type@AV in percent, after each epoch."""

    pair: Pair
    loss: Sequence[float]
    type_av: Sequence[float]


def evidence(
    truth: Sequence[tuple[Pair, float, float | None]],
    followers: Sequence[Follower],
    *,
    proxy: Sequence[tuple[Pair, float, float | None]] = (),
) -> str:
    """Draw every method over the pairs in the traversal's order (after Wu et al. 2022, Fig. 5).

    Above, Type@AV of the traversal and of the proxy, with their spreads. Below, a panel per method:
    its values over the traversal's, each shifted and scaled to the range from 0 to 1.

    Parameters
    ----------
    truth
        Pair, Type@AV in percent and its standard deviation over seeds, or None; the best first.
    followers
        Methods to draw below.
    proxy
        As `truth`, of the proxy: the pairs that it trained to the end.
    """
    pairs = [pair for pair, _, _ in truth]
    rows = math.ceil(len(followers) / _COLUMNS)
    heights = [3.4, *[1.4] * rows]
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights) + 0.6), layout="constrained")
        grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
        top = figure.add_subplot(grid[0, :])
        _errors(top, pairs, truth, "traversal, on clips never seen", _COLOURS[6], "o-")
        if proxy:
            _errors(top, pairs, proxy, "proxy, on the clips it trains on", _COLOURS[1], "s--")
        top.set_ylabel("Type@AV, %")
        top.set_xticks(range(len(pairs)))
        labels = [f"{audio} +\n{visual}" for audio, visual in pairs]
        crowded = len(pairs) > 10
        top.set_xticklabels(
            [label.replace("\n", " ") for label in labels] if crowded else labels,
            rotation=40 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor" if crowded else "default",
            fontsize=8,
            parse_math=False,
        )
        top.grid(axis="y", alpha=0.3)
        top.margins(x=0.04)
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper left", ncols=2, **_PLAIN)
        reference = _scaled([value for _, value, _ in truth])
        for number, follower in enumerate(followers):
            panel = figure.add_subplot(grid[1 + number // _COLUMNS, number % _COLUMNS])
            _follow(panel, pairs, reference, follower)
        return _svg(figure, "evidence")


def _errors(
    axes: Axes,
    pairs: Sequence[Pair],
    values: Sequence[tuple[Pair, float, float | None]],
    label: str,
    colour: str,
    form: str,
) -> None:
    found = {pair: (value, spread or 0.0) for pair, value, spread in values}
    places = [number for number, pair in enumerate(pairs) if pair in found]
    shown = [found[pairs[number]] for number in places]
    axes.errorbar(
        places,
        [value for value, _ in shown],
        yerr=[spread for _, spread in shown] if any(spread for _, spread in shown) else None,
        fmt=form,
        color=colour,
        capsize=3,
        markersize=4,
        label=label,
    )


def _follow(
    axes: Axes, pairs: Sequence[Pair], reference: Sequence[float], follower: Follower
) -> None:
    places = [number for number, pair in enumerate(pairs) if pair in follower.values]
    values = _scaled([follower.values[pairs[number]] for number in places])
    if places:
        axes.plot(range(len(pairs)), reference, "-", color=_GREY, linewidth=3, alpha=0.5)
        axes.plot(places, values, "o-", color=_COLOURS[0], markersize=3, linewidth=1.2)
    tau = "" if follower.tau is None else f", tau {follower.tau:+.2f}"
    axes.set_title(f"{follower.name}{tau}", loc="left", parse_math=False)
    if not places:
        axes.text(
            0.5, 0.5, "does not apply", transform=axes.transAxes, ha="center", color="#666666"
        )
    axes.set_ylim(-0.1, 1.1)
    axes.set_xlim(-0.5, len(pairs) - 0.5)
    axes.set_xticks([])
    axes.set_yticks([0, 1])


def _scaled(values: Sequence[float]) -> list[float]:
    """Shift and scale to the range from 0 to 1; all equal ones are in the middle."""
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return []
    low, high = numbers.min(), numbers.max()
    if high <= low:
        return [0.5] * len(numbers)
    return [float(value) for value in (numbers - low) / (high - low)]


def curves(trainings: Sequence[Curve], *, name: str) -> str:
    """Draw loss and Type@AV over epochs, a column per audio backbone, a colour per visual one.

    Parameters
    ----------
    trainings
        Several of one pair are its seeds.
    name
        Of the figure, unlike those of others in the page.
    """
    audio = list(dict.fromkeys(one.pair[0] for one in trainings))
    looks = _looks(dict.fromkeys(one.pair[1] for one in trainings))
    with rc_context(_STYLE):
        figure = Figure(
            figsize=(min(_WIDTH, 1.6 + 4.7 * len(audio)), 4.8 + 0.2 * math.ceil(len(looks) / 6)),
            layout="constrained",
        )
        panels = figure.subplots(2, len(audio), sharex=True, sharey="row", squeeze=False)
        for column, (top, bottom) in enumerate(panels.T):
            for one in trainings:
                if one.pair[0] != audio[column]:
                    continue
                epochs = range(1, len(one.loss) + 1)
                look = looks[one.pair[1]]
                top.plot(epochs, one.loss, linewidth=1.2, **look)
                bottom.plot(epochs, one.type_av, linewidth=1.2, **look)
            top.set_title(audio[column], parse_math=False)
            bottom.set_xlabel("epoch")
            bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
            for panel in (top, bottom):
                panel.grid(alpha=0.3)
        panels[0, 0].set_ylabel("training loss")
        panels[1, 0].set_ylabel("Type@AV of validation, %")
        _legend(figure, looks)
        return _svg(figure, name)


def lines(series: Mapping[str, Sequence[float | None]], *, title: str, x: str, name: str) -> str:
    """Draw numbers over their place, from 0: lag curves, for one.

    Parameters
    ----------
    series
        By label; None is a gap.
    title
        What the numbers are; may be empty.
    x
        What their place is.
    name
        Of the figure, unlike those of others in the page.
    """
    looks = _looks(series)
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 3.0 + 0.2 * math.ceil(len(looks) / 3)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, loc="left", parse_math=False)
        for label, values in series.items():
            numbers = [math.nan if value is None else value for value in values]
            axes.plot(numbers, marker="o", markersize=3, linewidth=1.2, **looks[label])
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        _legend(figure, looks, columns=3)
        return _svg(figure, name)


def _looks(names: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Give each name a colour, and dashes where colours are used up."""
    return {
        name: {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        }
        for number, name in enumerate(names)
    }


def _legend(figure: Figure, looks: Mapping[str, dict[str, Any]], *, columns: int = 6) -> None:
    # Not by the lines' labels: one that begins with an underscore would be left out.
    handles = [Line2D([], [], **look) for look in looks.values()]
    legend = figure.legend(
        handles,
        list(looks),
        loc="outside lower center",
        ncols=min(columns, len(looks)),
        **_PLAIN,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _svg(figure: Figure, name: str) -> str:
    """Write a figure as an SVG element without prologue and without others' ids."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    # The salt makes ids of markers and clips the figure's own, and the same every time.
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Styles of an SVG in a page are the page's; report.html.j2 has this one for figures alone.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(r' height="[^"]*pt"', "", text, count=1)
