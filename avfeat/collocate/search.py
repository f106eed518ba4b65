"""Which pair is best: by training all of them, or by the decoupled search that spares most of it.

Wu et al., Toward a perceptive pretraining framework for Audio-Visual Video Parsing, Information
Sciences 2022, Algorithm 1; and Rethinking the constraints of multimodal fusion, 2021.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avfeat.collocate.corpus import Source
from avfeat.collocate.hyper import GRID, Hyper
from avfeat.collocate.log import Record
from avfeat.collocate.runner import Runner
from avfeat.collocate.training import Training
from avfeat.errors import TrainingError
from avfeat.manifests.jsonfile import digest

Pair = tuple[Source, Source]

#: Of the pairs that successive halving still trains, the share that goes on at each rung, and with
#: it those level with its last (Jamieson, Talwalkar: Non-stochastic best arm identification,
#: AISTATS 2016).
_KEPT = 0.5
#: Shares of the epochs after which it drops pairs.
_RUNGS = (0.25, 0.5)


_DIVERGED = (
    "all trainings diverged: lower the learning rate with --lr, or bring the features to a smaller "
    "scale"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A pair in a ranking.

    Attributes
    ----------
    pair
        Names of the audio and the visual backbone.
    value
        Segment-level Type@AV in percent, the mean over seeds; None where a training diverged.
    spread
        Its standard deviation over seeds; None of one seed.
    epochs
        That it is judged by; fewer where successive halving dropped it.
    records
        Of its trainings, one per seed.
    """

    pair: tuple[str, str]
    value: float | None
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
        All pairs, the best first; a pair that was dropped stands behind all that were not, and one
        that diverged behind these.
    records
        Of all its trainings, each once, also of those that the log had.
    facts
        What else is to be told: the path of the proxy, what halving saved.
    spent
        Of a search that drops pairs: how many epochs it took of each training, by `_whole`. The log
        may have had more of one.
    """

    method: str
    places: tuple[Place, ...]
    records: tuple[Record, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> tuple[str, str]:
        """The pair at the top."""
        return self.places[0].pair

    @property
    def seconds(self) -> float:
        """What the epochs of its trainings took, whenever they ran; each epoch counts once."""
        curves: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            name = _whole(record)
            curve = record["curve"][: self.spent.get(name)]
            curves[name] = max(curve, curves.get(name, []), key=len)
        return float(sum(epoch["seconds"] for curve in curves.values() for epoch in curve))

    @property
    def trainings(self) -> int:
        """How many; one that paused and went on counts once."""
        return len({_whole(record) for record in self.records})


def traverse(
    runner: Runner,
    pairs: Sequence[Pair],
    *,
    motion: Source | None,
    splits: tuple[str, str, str],
    hyper: Hyper,
    seeds: Sequence[int],
    device: str = "cpu",
) -> Search:
    """Train every pair to the end and judge it on clips that it never saw: the truth to hold to.

    Parameters
    ----------
    splits
        To train on, to choose the epoch with, and to judge by.
    hyper
        Its seed is not used.
    seeds
        Each pair is trained with every one.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    TrainingError
        If every pair diverged.
    """
    train, val, test = splits
    trainings = {
        _names(pair): [
            Training(
                audio=pair[0],
                visual=pair[1],
                motion=motion,
                train=train,
                val=val,
                test=test,
                hyper=replace(hyper, seed=seed),
                device=device,
            )
            for seed in seeds
        ]
        for pair in pairs
    }
    places = _trained(runner, trainings, hyper.epochs)
    _check_any(places)
    records = _once(record for place in places for record in place.records)
    return Search("traverse", tuple(places), records)


def proxy(
    runner: Runner,
    pairs: Sequence[Pair],
    *,
    motion: Source | None,
    split: str,
    hyper: Hyper,
    seeds: Sequence[int],
    device: str = "cpu",
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
    seeds
        Each pair is trained with every one; the first tunes.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    grid
        Learning rates to choose from.
    halving
        Drop hopeless pairs early, see `_halved`.

    Raises
    ------
    TrainingError
        If every pair diverged, or every learning rate.
    """
    records: list[Record] = []
    spent: dict[str, int] = {}
    path: list[dict[str, Any]] = []
    here = pairs[0]
    unstable = 0  # pairs from the first on that diverge with every learning rate
    # No pair is stood at twice, so this ends.
    while True:
        training = Training(
            audio=here[0],
            visual=here[1],
            motion=motion,
            train=split,
            val=split,
            test=None,
            hyper=replace(hyper, seed=seeds[0]),
            device=device,
        )
        tuned = runner.run([replace(training, hyper=replace(training.hyper, lr=lr)) for lr in grid])
        rated = [(type_av(one), lr) for one, lr in zip(tuned, grid, strict=True) if one["scores"]]
        if not rated:
            records += tuned
            spent |= {_whole(record): hyper.epochs for record in tuned}
            unstable += 1
            if unstable == len(pairs):
                raise TrainingError(_DIVERGED)
            here = pairs[unstable]
            continue
        # Where others are as good, the one that was asked for stays.
        _, lr = max(rated, key=lambda one: (one[0], one[1] == hyper.lr))
        trainings = {
            _names(pair): [
                replace(
                    training, audio=pair[0], visual=pair[1], hyper=replace(hyper, lr=lr, seed=seed)
                )
                for seed in seeds
            ]
            for pair in pairs
        }
        if halving:
            places, ran = _halved(runner, trainings, hyper.epochs)
            judged = [(hyper.epochs, tuned), *((place.epochs, place.records) for place in places)]
            for epochs, ones in judged:
                for name in map(_whole, ones):
                    spent[name] = max(spent.get(name, 0), epochs)
        else:
            places = _trained(runner, trainings, hyper.epochs)
            ran = [record for place in places for record in place.records]
        _check_any(places)
        records += [*tuned, *ran]
        own = next(place for place in places if place.pair == _names(here))
        # As good is not better; a pair that was dropped early is worse, whatever it had reached.
        level = (own.epochs, own.value) == (places[0].epochs, places[0].value)
        best = own if level else places[0]
        path.append({"pair": list(_names(here)), "lr": lr, "best": list(best.pair)})
        if level or best.pair in [tuple(step["pair"]) for step in path]:
            break
        here = next(pair for pair in pairs if _names(pair) == best.pair)
    unique = _once(records)
    facts: dict[str, Any] = {"path": path, "grid": list(grid)}
    if not level:
        facts["returned_to"] = list(best.pair)
    if halving:
        in_full = hyper.epochs * len(spent)
        facts |= {"epochs_in_full": in_full, "epochs_saved": in_full - sum(spent.values())}
    return Search("proxy", tuple(places), unique, facts, spent)


def type_av(record: Record) -> float:
    """Segment-level Type@AV of a training, in percent."""
    return float(record["scores"]["segment"]["type_av"])


def _trained(
    runner: Runner,
    trainings: dict[tuple[str, str], list[Training]],
    epochs: int,
    *,
    going_on: dict[tuple[str, str], list[Training]] | None = None,
) -> list[Place]:
    """Train pairs, each with every seed, and rank them."""
    flat = [training for each in trainings.values() for training in each]
    before = [one for pair in trainings for one in going_on[pair]] if going_on else None
    records = iter(runner.run(flat, going_on=before))
    places = []
    for pair, each in trainings.items():
        own = tuple(next(records) for _ in each)
        values = [value for one in own if (value := _reached(one, epochs)) is not None]
        whole = len(values) == len(own)
        value = statistics.fmean(values) if whole else None
        spread = statistics.stdev(values) if whole and len(values) > 1 else None
        places.append(Place(pair, value, spread, epochs, own))
    return sorted(places, key=lambda place: math.inf if place.value is None else -place.value)


def _check_any(places: Sequence[Place]) -> None:
    if all(place.value is None for place in places):
        raise TrainingError(_DIVERGED)


def _halved(
    runner: Runner, trainings: dict[tuple[str, str], list[Training]], epochs: int
) -> tuple[list[Place], list[Record]]:
    """Rank pairs by successive halving: after a quarter and a half of the epochs half go on.

    Those that go on end as they would have without. Returns all records too, of pauses as well.
    """
    dropped: list[Place] = []
    records: list[Record] = []
    left, before = trainings, None
    rungs = sorted({max(1, round(epochs * share)) for share in _RUNGS} - {epochs})
    for until in rungs:
        paused = {pair: [replace(one, until=until) for one in each] for pair, each in left.items()}
        places = _trained(runner, paused, until, going_on=before)
        records += [record for place in places for record in place.records]
        kept = math.ceil(len(places) * _KEPT)
        # Of level pairs none is more hopeless than another.
        while kept < len(places) and places[kept].value == places[kept - 1].value:
            kept += 1
        dropped = [*places[kept:], *dropped]
        going = [place for place in places[:kept] if place.value is not None]
        dropped = [*(place for place in places[:kept] if place.value is None), *dropped]
        left = {place.pair: left[place.pair] for place in going}
        before = paused
    places = _trained(runner, left, epochs, going_on=before)
    records += [record for place in places for record in place.records]
    return sorted([*places, *dropped], key=lambda place: place.value is None), records


def _reached(record: Record, epochs: int) -> float | None:
    """Type@AV after some epochs, of which the best one counts; of all where others judge it.

    None if it diverged before.
    """
    if record.get("diverged") and (record["splits"]["test"] or len(record["curve"]) < epochs):
        return None
    if record["splits"]["test"] is not None:
        return type_av(record)
    return max(float(epoch["type_av"]) for epoch in record["curve"][:epochs])


def _names(pair: Pair) -> tuple[str, str]:
    return pair[0].name, pair[1].name


def _once(records: Iterable[Record]) -> tuple[Record, ...]:
    """Leave out records of one and the same training."""
    return tuple({record["key"]: record for record in records}.values())


def _whole(record: Record) -> str:
    """Name the training that a record is of, wherever it paused."""
    return digest([record["pair"], record["motion"], record["splits"], record["hyper"]])
