"""Which pair is best: by training all of them, or by the decoupled search that spares most of it.

Wu et al., Toward a perceptive pretraining framework for Audio-Visual Video Parsing, Information
Sciences 2022, Algorithm 1; and Rethinking the constraints of multimodal fusion, 2021.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avfeat.collocate.corpus import Source
from avfeat.collocate.runner import Runner
from avfeat.collocate.train import Hyper
from avfeat.collocate.training import Record, Training

Pair = tuple[Source, Source]

#: Learning rates among which Algorithm 1 tunes the collocation it stands at; HAN's own is 3e-4.
GRID = (1e-4, 3e-4, 1e-3)

#: Of the pairs that successive halving still trains, the share that goes on at each rung
#: (Jamieson, Talwalkar: Non-stochastic best arm identification, AISTATS 2016).
_KEPT = 0.5
#: Shares of the epochs after which it drops pairs.
_RUNGS = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Place:
    """A pair in a ranking.

    Attributes
    ----------
    pair
        Names of the audio and the visual backbone.
    value
        Segment-level Type@AV in percent, the mean over seeds.
    spread
        Its standard deviation over seeds; None of one seed.
    epochs
        That it was trained for; fewer where successive halving dropped it.
    records
        Of its trainings, one per seed.
    """

    pair: tuple[str, str]
    value: float
    spread: float | None
    epochs: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found.

    Attributes
    ----------
    method
        ``traverse`` or ``proxy``.
    places
        All pairs, the best first; a pair that was dropped stands behind all that were not.
    seconds
        Of all its trainings, also of those that the log had.
    trainings
        How many.
    facts
        What else is to be told: hyper-parameters, the path of the proxy, what halving saved.
    """

    method: str
    places: tuple[Place, ...]
    seconds: float
    trainings: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> tuple[str, str]:
        """The pair at the top."""
        return self.places[0].pair


def traverse(
    runner: Runner,
    pairs: Sequence[Pair],
    *,
    motion: Source | None,
    splits: tuple[str, str, str],
    hyper: Hyper,
    seeds: Sequence[int],
    halving: bool = False,
) -> Search:
    """Train every pair and judge it on clips that it never saw.

    Parameters
    ----------
    splits
        To train on, to choose the epoch with, and to judge by.
    hyper
        Its seed is not used.
    seeds
        Each pair is trained with every one.
    halving
        Drop hopeless pairs early, see `_halved`.
    """
    train, val, test = splits
    trainings = {
        (audio.name, visual.name): [
            Training(
                audio=audio,
                visual=visual,
                motion=motion,
                train=train,
                val=val,
                test=test,
                hyper=replace(hyper, seed=seed),
            )
            for seed in seeds
        ]
        for audio, visual in pairs
    }
    return _search("traverse", runner, trainings, halving=halving)


def proxy(
    runner: Runner,
    pairs: Sequence[Pair],
    *,
    motion: Source | None,
    split: str,
    hyper: Hyper,
    seeds: Sequence[int],
    grid: Sequence[float] = GRID,
    halving: bool = False,
) -> Search:
    """Search by Algorithm 1: tune a pair, train all with what it liked, move, until none is better.

    Everything is trained and scored on the small validation split, so a training costs a fraction
    of one on the training split, and hyper-parameters are tuned for one pair, not for each.

    Parameters
    ----------
    pairs
        The search starts at the first.
    split
        To train and to score on.
    hyper
        What is not tuned. Its seed is not used.
    grid
        Learning rates to choose from.
    """
    done: list[Search] = []
    tuned: list[Record] = []
    path: list[dict[str, Any]] = []
    here = pairs[0]
    # A pair is stood at once at most, so this ends.
    while True:
        choices = [
            Training(
                audio=here[0],
                visual=here[1],
                motion=motion,
                train=split,
                val=split,
                test=None,
                hyper=replace(hyper, lr=lr, seed=seeds[0]),
            )
            for lr in grid
        ]
        records = runner.run(choices)
        tuned += records
        lr = max(zip(map(type_av, records), grid, strict=True))[1]
        trainings = {
            (audio.name, visual.name): [
                replace(choices[0], audio=audio, visual=visual, hyper=replace(hyper, lr=lr, seed=s))
                for s in seeds
            ]
            for audio, visual in pairs
        }
        found = _search("proxy", runner, trainings, halving=halving)
        done.append(found)
        path.append({"pair": [here[0].name, here[1].name], "lr": lr, "best": list(found.best)})
        better = next(pair for pair in pairs if (pair[0].name, pair[1].name) == found.best)
        stood = [tuple(step["pair"]) for step in path]
        if (better[0].name, better[1].name) in stood:
            break
        here = better
    unique = _unique([*tuned, *(r for one in done for p in one.places for r in p.records)])
    saved = sum(one.facts.get("epochs_saved", 0) for one in done)
    return Search(
        "proxy",
        done[-1].places,
        sum(record["seconds"] for record in unique),
        len(unique),
        {"path": path, "grid": list(grid), **({"epochs_saved": saved} if halving else {})},
    )


def type_av(record: Record) -> float:
    """Segment-level Type@AV of a training, in percent."""
    return float(record["scores"]["segment"]["type_av"])


def _search(
    method: str,
    runner: Runner,
    trainings: dict[tuple[str, str], list[Training]],
    *,
    halving: bool,
) -> Search:
    """Train pairs, each with every seed, and rank them."""
    epochs = next(iter(trainings.values()))[0].hyper.epochs
    if halving:
        places, facts = _halved(runner, trainings, epochs)
    else:
        places, facts = _trained(runner, trainings, epochs), {}
    records = [record for place in places for record in place.records]
    seconds = sum(record["seconds"] for record in records)
    return Search(method, tuple(places), seconds, len(records), facts)


def _trained(
    runner: Runner,
    trainings: dict[tuple[str, str], list[Training]],
    epochs: int,
    *,
    going_on: dict[tuple[str, str], list[Training]] | None = None,
) -> list[Place]:
    flat = [training for each in trainings.values() for training in each]
    before = [one for pair in trainings for one in going_on[pair]] if going_on else None
    records = iter(runner.run(flat, going_on=before))
    places = []
    for pair, each in trainings.items():
        own = tuple(next(records) for _ in each)
        values = [type_av(record) for record in own]
        spread = statistics.stdev(values) if len(values) > 1 else None
        places.append(Place(pair, statistics.fmean(values), spread, epochs, own))
    return sorted(places, key=lambda place: -place.value)


def _halved(
    runner: Runner, trainings: dict[tuple[str, str], list[Training]], epochs: int
) -> tuple[list[Place], dict[str, Any]]:
    """Rank pairs by successive halving: after a quarter and a half of the epochs half go on."""
    dropped: list[Place] = []
    left, before = trainings, None
    rungs = sorted({max(1, round(epochs * share)) for share in _RUNGS} - {epochs})
    for until in (*rungs, epochs):
        paused = {
            pair: [replace(one, until=until if until < epochs else None) for one in each]
            for pair, each in left.items()
        }
        places = _trained(runner, paused, until, going_on=before)
        if until == epochs:
            break
        kept = max(1, round(len(places) * _KEPT))
        dropped = [*places[kept:], *dropped]
        left = {place.pair: left[place.pair] for place in places[:kept]}
        before = {pair: paused[pair] for pair in left}
    seeds = len(next(iter(trainings.values())))
    saved = seeds * sum(epochs - place.epochs for place in dropped)
    return [*places, *dropped], {
        "epochs_saved": saved,
        "epochs_in_full": seeds * epochs * len(trainings),
    }


def _unique(records: Sequence[Record]) -> list[Record]:
    """Leave out records of one and the same training."""
    return list({record["key"]: record for record in records}.values())
