"""The searches by a runner that trains nothing: its curves are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from avfeat.collocate.corpus import Source
from avfeat.collocate.hyper import GRID, Hyper, grid_around
from avfeat.collocate.log import Record
from avfeat.collocate.search import Search, proxy, traverse
from avfeat.collocate.training import Training
from avfeat.errors import TrainingError

EPOCHS = 8
PAIRS = [
    (Source(audio, f"/{audio}", "f"), Source(visual, f"/{visual}", "f"))
    for audio in ("a", "b")
    for visual in ("x", "y", "z")
]


class Fake:
    """Gives the Type@AV that a table has for a pair and a learning rate; a second per epoch."""

    def __init__(self, values: dict[tuple[str, str, float], float]) -> None:
        self.values = values
        self.ran: list[tuple[tuple[str, str], float, int, int]] = []
        self.log: dict[str, Record] = {}

    def run(
        self, trainings: Sequence[Training], *, going_on: Sequence[Training] | None = None
    ) -> list[Record]:
        return [self._one(training) for training in trainings]

    def _one(self, training: Training) -> Record:
        whole, key = str(dataclasses.replace(training, until=None)), str(training)
        if found := self.log.get(whole) or self.log.get(key):
            return found
        hyper, last = training.hyper, training.until or EPOCHS
        diverged = (*training.pair, hyper.lr) not in self.values
        if diverged:
            self.log[key] = {
                "key": key,
                "pair": list(training.pair),
                "motion": None,
                "splits": {"train": training.train, "val": training.val, "test": training.test},
                "hyper": dataclasses.asdict(hyper),
                "curve": [],
                "diverged": True,
                "scores": None,
                "seconds": 0.0,
            }
            return self.log[key]
        final = self.values[(*training.pair, hyper.lr)] + 0.1 * hyper.seed
        # It rises to its last value, so that what was best is what came last.
        curve = [{"type_av": final * (n + 1) / EPOCHS, "seconds": 1.0} for n in range(last)]
        self.ran.append((training.pair, hyper.lr, hyper.seed, last))
        self.log[key] = {
            "key": key,
            "pair": list(training.pair),
            "motion": None,
            "splits": {"train": training.train, "val": training.val, "test": training.test},
            "hyper": dataclasses.asdict(hyper),
            "curve": curve,
            "diverged": False,
            "scores": {"segment": {"type_av": curve[-1]["type_av"]}},
            "seconds": float(last),
        }
        return self.log[key]


def table(rates: dict[float, list[float]]) -> dict[tuple[str, str, float], float]:
    return {
        (audio.name, visual.name, lr): value
        for lr, values in rates.items()
        for (audio, visual), value in zip(PAIRS, values, strict=True)
    }


def search(runner: Fake, **options: object) -> Search:
    defaults = {"motion": None, "split": "val", "hyper": Hyper(epochs=EPOCHS), "seeds": (1,)}
    return proxy(runner, PAIRS, **{**defaults, **options})  # type: ignore[arg-type]


def test_traversal_ranks_by_the_mean_over_seeds() -> None:
    values = table({3e-4: [50, 52, 51, 55, 49, 55.5]})
    runner = Fake(values)
    found = traverse(
        runner,  # type: ignore[arg-type]
        PAIRS,
        motion=None,
        splits=("train", "val", "test"),
        hyper=Hyper(epochs=EPOCHS),
        seeds=(1, 2, 4),
    )
    ranked = sorted(values.items(), key=lambda item: -item[1])
    assert [place.pair for place in found.places] == [(a, v) for (a, v, _), _ in ranked]
    seeds = 0.1 * np.array([1, 2, 4])
    for place, (_, value) in zip(found.places, ranked, strict=True):
        assert place.value == pytest.approx(value + seeds.mean())
        assert place.spread == pytest.approx(seeds.std(ddof=1))
        assert place.epochs == EPOCHS
        assert [record["splits"]["test"] for record in place.records] == ["test"] * 3
    assert (found.trainings, found.seconds) == (18, 18 * EPOCHS)


def test_proxy_moves_until_none_is_better() -> None:
    # At the first pair's favourite rate b + z is best, and likes the same: there it stays.
    rates = {
        1e-4: [10, 11, 12, 13, 20, 14],
        3e-4: [11, 10, 10, 10, 30, 31],
        1e-3: [9, 9, 9, 9, 9, 30],
    }
    runner = Fake(table(rates))
    found = search(runner)
    assert found.facts["path"] == [
        {"pair": ["a", "x"], "lr": 3e-4, "best": ["b", "z"]},
        {"pair": ["b", "z"], "lr": 3e-4, "best": ["b", "z"]},
    ]
    assert found.best == ("b", "z")
    # Three rates of two pairs, six pairs at one rate; two are both.
    assert len(runner.ran) == len(set(runner.ran)) == found.trainings == 3 + 3 + 6 - 2
    assert found.seconds == EPOCHS * found.trainings
    assert {record["splits"]["train"] for record in found.records} == {"val"}


def test_proxy_moves_twice_where_rates_disagree() -> None:
    rates = {
        1e-4: [10, 11, 12, 13, 20, 14],
        3e-4: [11, 10, 10, 10, 30, 14],
        1e-3: [9, 9, 40, 9, 32, 9],
    }
    found = search(Fake(table(rates)))
    stations = [("a", "x"), ("b", "y"), ("a", "z")]
    assert [tuple(step["pair"]) for step in found.facts["path"]] == stations
    assert [step["lr"] for step in found.facts["path"]] == [3e-4, 1e-3, 1e-3]
    assert found.best == ("a", "z")


def test_proxy_stays_where_others_are_as_good() -> None:
    level = Fake(table({3e-4: [10, 10, 10, 10, 10, 10]}))
    found = proxy(
        level,  # type: ignore[arg-type]
        PAIRS[::-1],
        motion=None,
        split="val",
        hyper=Hyper(epochs=EPOCHS),
        seeds=(1,),
        grid=(3e-4,),
    )
    assert len(found.facts["path"]) == 1


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_halving_ends_as_the_full_search_for_those_that_survive(seeds: tuple[int, ...]) -> None:
    values = table({3e-4: [30, 10, 20, 28, 12, 14]})
    full = search(Fake(values), grid=(3e-4,), seeds=seeds)
    runner = Fake(values)
    found = search(runner, grid=(3e-4,), seeds=seeds, halving=True)
    assert found.best == full.best == ("a", "x")
    survivors = [place for place in found.places if place.epochs == EPOCHS]
    by_pair = {place.pair: place for place in full.places}
    for place in survivors:
        assert (place.value, place.spread) == (
            by_pair[place.pair].value,
            by_pair[place.pair].spread,
        )
    # Six pairs for 2 epochs, three for 4, two for all: dropped ones stand behind.
    assert [place.epochs for place in found.places] == [8, 8, 4, 2, 2, 2]
    n = len(seeds)
    assert found.facts["epochs_in_full"] == 6 * EPOCHS * n
    assert found.facts["epochs_saved"] == n * (4 + 6 * 3)
    # What ran is what was not saved: nothing was run twice, the tuned pair neither.
    assert found.seconds == found.facts["epochs_in_full"] - found.facts["epochs_saved"]
    assert found.trainings == 6 * n
    assert "epochs_saved" not in full.facts


@pytest.mark.parametrize("halving_first", [True, False])
def test_seconds_and_saved_epochs_do_not_depend_on_what_the_log_had(halving_first: bool) -> None:
    values = table({3e-4: [30, 10, 20, 28, 12, 14]})
    runner = Fake(values)  # one log for both
    found = {
        halving: search(runner, grid=(3e-4,), halving=halving)
        for halving in (halving_first, not halving_first)
    }
    # Two pairs to the end, one for 4 epochs, three for 2.
    assert found[True].seconds == 2 * 8 + 4 + 3 * 2
    assert found[True].facts["epochs_saved"] == 6 * 8 - found[True].seconds
    assert found[False].seconds == 6 * 8
    assert (found[True].trainings, found[False].trainings) == (6, 6)


@pytest.mark.parametrize("halving", [False, True])
def test_what_diverged_stands_last_and_is_not_chosen(halving: bool) -> None:
    values = table({1e-4: [20, 10, 15, 9, 8, 7], 3e-4: [10, 10, 10, 10, 10, 10]})
    del values["b", "x", 1e-4], values["a", "y", 1e-4]
    found = search(Fake(values), halving=halving)  # at 1e-3 all diverge
    assert found.facts["path"] == [{"pair": ["a", "x"], "lr": 1e-4, "best": ["a", "x"]}]
    assert {place.pair for place in found.places[-2:]} == {("b", "x"), ("a", "y")}
    assert [place.value is None for place in found.places] == [False] * 4 + [True] * 2
    with pytest.raises(TrainingError, match="all trainings diverged"):
        search(Fake({}), halving=halving)


def test_the_proxy_starts_at_the_first_pair_that_can_be_tuned() -> None:
    values = table({3e-4: [0, 10, 15, 9, 8, 7]})
    del values["a", "x", 3e-4]
    found = search(Fake(values))
    assert found.facts["path"][0] == {"pair": ["a", "y"], "lr": 3e-4, "best": ["a", "z"]}
    assert found.places[-1].pair == ("a", "x")


def test_rates_around_hans_own_are_the_grid() -> None:
    assert grid_around(Hyper().lr) == GRID
    assert grid_around(3e-5) == pytest.approx((1e-5, 3e-5, 1e-4))


def test_ties_decide_nothing() -> None:
    """Not the learning rate, not where to stand, not who is dropped."""
    level = table(dict.fromkeys(GRID, [50.0] * 6))
    found = search(Fake(level))
    (step,) = found.facts["path"]
    assert step == {"pair": ["a", "x"], "lr": 3e-4, "best": ["a", "x"]}
    assert "returned_to" not in found.facts
    halved = search(Fake(level), halving=True)
    assert {place.epochs for place in halved.places} == {EPOCHS}
    assert halved.facts["epochs_saved"] == 0
    # Three of six go on, and the fourth, which is level with the third.
    some = table({3e-4: [50, 40, 45, 45, 30, 60]})
    places = {p.pair: p.epochs for p in search(Fake(some), grid=(3e-4,), halving=True).places}
    assert {pair for pair, epochs in places.items() if epochs == EPOCHS // 4} == {
        ("a", "y"),
        ("b", "y"),
    }


def test_a_mean_that_leads_back_is_told() -> None:
    """The first seed tunes a + x to a rate under which, in the mean, b + x is better, and back."""

    class Moody(Fake):
        def run(self, trainings: Sequence[Training], **options: object) -> list[Record]:
            changed = []
            for training in trainings:
                record = self._one(training)
                if training.pair == ("a", "x") and training.hyper.seed == 2:
                    value = {3e-4: 20.0, 1e-3: 90.0}[training.hyper.lr]
                    curve = [{"type_av": value, "seconds": 1.0}] * EPOCHS
                    scores = {"segment": {"type_av": value}}
                    record = {**record, "curve": curve, "scores": scores}
                changed.append(record)
            return changed

    values = table({3e-4: [50, 40, 40, 45, 40, 40], 1e-3: [49, 40, 40, 56, 40, 40]})
    found = search(Moody(values), grid=(3e-4, 1e-3), seeds=(1, 2))
    assert [(step["pair"], step["lr"], step["best"]) for step in found.facts["path"]] == [
        (["a", "x"], 3e-4, ["b", "x"]),
        (["b", "x"], 1e-3, ["a", "x"]),
    ]
    assert found.facts["returned_to"] == ["a", "x"]
