"""What each method is worth on the synthetic family, whose best pair is known: the documented run.

Writes the table and the figure of docs/collocation.md beside the figures of the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avfeat.collocate import figures as drawings
from avfeat.collocate.candidates import Pair
from avfeat.datasets import synthetic_stores
from avfeat.datasets.synthetic import Family
from avfeat.words import counted
from benchmarks.collocation_command import Ran, collocate
from benchmarks.figure import Figure, plain
from benchmarks.report import PAGES, between
from benchmarks.setting import Setting

#: Type@AV that the proxy's choice may lose.
REGRET = 0.5
EPOCHS, QUICK_EPOCHS = 15, 2
#: Clips of a smoke test.
QUICK_CLIPS = (24, 12, 12)
#: Seeds of the family. Its pairs are trained for the first, and scored for all.
SEEDS = (0, 1, 2)
#: Trainings of each pair.
TRAININGS, QUICK_TRAININGS = 3, 1

_PAIRS = ("--audio", "vggish,openl3", "--visual", "all")


def run(setting: Setting) -> tuple[list[Figure], dict[str, Any]]:
    """Run every method on the family.

    Returns
    -------
    list of Figure
        Whether the truth holds, and what the proxy loses.
    dict
        The searches, of the command's document.
    """
    families = [
        Family(seed=seed, clips=QUICK_CLIPS) if setting.quick else Family(seed=seed)
        for seed in SEEDS[: 1 if setting.quick else None]
    ]
    first, *others = families
    epochs = QUICK_EPOCHS if setting.quick else EPOCHS
    log = setting.fresh("log")
    seeds = QUICK_TRAININGS if setting.quick else TRAININGS
    searching = ("--method", "all", "--epochs", str(epochs), "--seeds", str(seeds))
    searching += ("--log", str(log))
    ran = _collocate(setting, first, *searching)
    scored = [ran, *(_collocate(setting, one, "--resamples", "0") for one in others)]
    if not setting.quick:
        _write(first, ran.document, [one.document for one in scored])
    searches, evidence = ran.document["searches"], ran.document["evidence"]
    proxy = evidence["proxy"]
    declared, found = _declared(first), _pair(searches["traverse"]["places"][0]["pair"])
    rank = [_pair(place["pair"]) for place in searches["traverse"]["places"]].index(declared) + 1
    many = counted(len(searches["traverse"]["places"]), "pair")
    splits = " / ".join(map(str, first.clips))
    path = " to ".join(" + ".join(step["pair"]) for step in searches["proxy"]["facts"]["path"])
    holds = plain(
        f"traversal: place of the declared best pair, {splits} clips",
        rank,
        "",
        f"best is {' + '.join(found)}, of {many}; {counted(epochs, 'epoch')}, "
        f"{counted(seeds, 'seed')}",
        limit="1: what the family is made for",
    ).bounded(1)
    # Trainings of a smoke test are too short to tell pairs apart: nothing is chosen, nothing met.
    choice = f"chooses {' + '.join(proxy['best'])}" if proxy["best"] else proxy["reason"]
    lost = plain(
        f"proxy: what its choice loses, {splits} clips",
        math.inf if proxy["regret"] is None else proxy["regret"],
        "points of Type@AV",
        f"from {path}; {choice}; trainings: proxy "
        f"{searches['proxy']['trainings']} in {searches['proxy']['seconds']:.0f} s, traversal "
        f"{searches['traverse']['trainings']} in {searches['traverse']['seconds']:.0f} s",
        limit=f"0; the pair of the best singles loses {_regret(first, searches['traverse']):.2f}",
    ).bounded(REGRET)
    return [holds, lost], searches


def _collocate(setting: Setting, family: Family, *options: str) -> Ran:
    folder = setting.fresh("family")
    synthetic_stores.write(family, str(folder))
    return collocate(folder, *_PAIRS, *options)


def _pair(names: Sequence[str]) -> Pair:
    return names[0], names[1]


def _declared(family: Family) -> Pair:
    best = family.truth()["best_pair"]
    return best["audio"], best["visual"]


def _regret(family: Family, traversal: Mapping[str, Any]) -> float:
    """What the pair of the best single backbones loses."""
    singles = family.truth()["best_singles"]
    values = {_pair(place["pair"]): place["type_av"] for place in traversal["places"]}
    return float(max(values.values()) - values[singles["audio"], singles["visual"]])


def _write(
    family: Family, document: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]
) -> None:
    """Put the table into the page, and the figure beside it."""
    page: Path = PAGES["collocation"]
    page.write_text(between(page.read_text(), "evidence", _table(family, document, scored)))
    searches, evidence = document["searches"], document["evidence"]
    values: dict[str, dict[Pair, float]] = {
        name: {
            _pair(row["names"]): row["scores"][name]["value"]
            for row in document["pairs"]
            if row["scores"][name]["value"] is not None
        }
        for name in document["scores"]
    }
    truth, proxy = (
        [(_pair(p["pair"]), p["type_av"], p["spread"]) for p in searches[name]["places"]]
        for name in ("traverse", "proxy")
    )
    values = {"proxy": {pair: value for pair, value, _ in proxy}} | values
    followers = [
        drawings.Follower(name, own, evidence[name]["tau"]) for name, own in values.items()
    ]
    page.with_suffix(".svg").write_text(drawings.evidence(truth, followers, proxy=proxy))


def _table(family: Family, document: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]) -> str:
    declared = _declared(family)
    seeds = ", ".join(map(str, SEEDS))
    lines = [
        "| method | chooses | its place | regret, points | Kendall's tau | times cheaper | "
        f"place of the best pair, seeds {seeds} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in document["evidence"].items():
        chooses = "-" if one["best"] is None else " + ".join(one["best"])
        if one["tied"] > 1 and one["best"] is not None:
            chooses += f" and {one['tied'] - 1} more"
        cells = [
            name if name == "proxy" else f"`{name}`",
            chooses,
            "-" if one["rank"] is None else f"{one['rank']:g}",
            "-" if one["regret"] is None else f"{one['regret']:.2f}",
            "-" if one["tau"] is None else f"{one['tau']:+.2f}",
            "-" if one["times_cheaper"] is None else f"{one['times_cheaper']:.1f}",
            "-" if name == "proxy" else ", ".join(_place(each, name, declared) for each in scored),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    traversal = document["searches"]["traverse"]["places"]
    order = ", ".join(f"{' + '.join(p['pair'])} {_mean(p)}" for p in traversal)
    trained = counted(TRAININGS, "seed")
    told = (
        f"Type@AV of the traversal, family of seed {family.seed}, mean and deviation of {trained}"
    )
    return "\n".join([*lines, "", f"{told}: {order}."])


def _mean(place: Mapping[str, Any]) -> str:
    return f"{place['type_av']:.2f} ± {place['spread']:.2f}"


def _place(document: Mapping[str, Any], name: str, declared: Pair) -> str:
    """Where a score puts a pair, from 1; and of how many, where it does not have all."""
    values = {_pair(row["names"]): row["scores"][name]["value"] for row in document["pairs"]}
    own = values[declared]
    given = [value for value in values.values() if value is not None]
    if own is None:
        return f"- of {len(given)}"
    place = 1 + sum(value > own for value in given)
    return str(place) if len(given) == len(values) else f"{place} of {len(given)}"
