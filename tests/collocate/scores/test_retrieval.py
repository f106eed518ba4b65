"""Recall@1, precision and distinguish: brute force, and the chance levels of real labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from avfeat.collocate.scores.retrieval import (
    READINGS,
    Reading,
    Retrieval,
    chance,
    recall,
    retrieval,
)
from avfeat.errors import FeaturesError


def segments(n: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Clips of five segments with sparse labels, some empty, and features that follow them."""
    rng = np.random.default_rng(seed)
    labels = [rng.random((n, 4)) < 0.3 for _ in range(2)]
    maps = rng.standard_normal((4, 6))
    queries, candidates = (
        (label @ maps + 0.7 * rng.standard_normal((n, 6))).astype(np.float32) for label in labels
    )
    return {
        "queries": queries,
        "candidates": candidates,
        "query_labels": labels[0],
        "candidate_labels": labels[1],
        "clips": np.arange(n) // 5,
    }


def literal(reading: Reading, data: dict[str, np.ndarray]) -> tuple[float, float, float, float]:
    """Recall@1, its chance, R-precision, its chance: by loops."""
    x, y = (
        data[name].astype(float) / np.linalg.norm(data[name], axis=1, keepdims=True)
        for name in ("queries", "candidates")
    )
    sets = [
        [frozenset(np.flatnonzero(row)) for row in data[name]]
        for name in ("query_labels", "candidate_labels")
    ]
    recalls, recall_chances, precisions, precision_chances = [], [], [], []
    for i, own in enumerate(sets[0]):
        if reading.among == "labelled" and not own:
            continue
        choices = [
            j
            for j, other in enumerate(sets[1])
            if not (reading.among == "labelled" and not other)
            and not (reading.besides == "segment" and i == j)
            and not (reading.besides == "clip" and data["clips"][i] == data["clips"][j])
        ]
        matches = {
            j
            for j in choices
            if (own & sets[1][j] if reading.match == "share" else own == sets[1][j])
        }
        order = sorted(choices, key=lambda j: -float(x[i] @ y[j]))
        recalls.append(order[0] in matches)
        recall_chances.append(len(matches) / len(choices))
        if matches:
            precisions.append(len(matches & {*order[: len(matches)]}) / len(matches))
            precision_chances.append(len(matches) / len(choices))
    values = (recalls, recall_chances, precisions, precision_chances)
    return tuple(float(np.mean(each)) for each in values)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return segments(120)


@pytest.fixture(scope="module")
def found(data: dict[str, np.ndarray]) -> Retrieval:
    return retrieval(**data)


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_is_that_of_loops(
    reading: Reading, data: dict[str, np.ndarray], found: Retrieval
) -> None:
    recall, precision = found.recall[reading], found.precision[reading]
    levels = [each.value for each in (recall.value, recall.chance, precision.value)]
    assert [*levels, precision.chance.value] == pytest.approx(literal(reading, data), abs=1e-12)
    labels = (data["query_labels"], data["candidate_labels"])
    assert chance(*labels, clips=data["clips"])[reading] == recall.chance


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("alike", [False, True])
def test_one_reading_is_that_of_all(
    reading: Reading, alike: bool, data: dict[str, np.ndarray]
) -> None:
    if alike:  # every candidate is level with every other
        data = data | {"candidates": np.ones_like(data["candidates"])}
    data = data | {"query_labels": data["query_labels"].copy()}
    data["query_labels"][:7] = False
    expected = retrieval(**data).recall[reading]
    assert recall(data.pop("queries"), data.pop("candidates"), reading, **data) == expected


def test_the_default_reading() -> None:
    assert len(READINGS) == len(set(READINGS)) == 12
    assert Reading() == Reading("share", "labelled", "segment") == READINGS[0]


def test_distinguish_is_that_of_loops(data: dict[str, np.ndarray], found: Retrieval) -> None:
    x, y = (
        data["queries"],
        data["candidates"] / np.linalg.norm(data["candidates"], axis=1, keepdims=True),
    )
    likeness = (x @ y.T).astype(float)
    np.fill_diagonal(likeness, -np.inf)
    labelled = data["candidate_labels"].any(axis=1)
    asked = data["query_labels"].any(axis=1)
    assert found.distinguish.value.value == (asked & labelled[likeness.argmax(axis=1)]).mean()
    expected = np.mean([asked[i] * np.delete(labelled, i).mean() for i in range(120)])
    assert found.distinguish.chance.value == pytest.approx(expected, abs=1e-12)


def test_levels_of_the_real_labels(llp_dense: np.ndarray) -> None:
    """Random audio-visual pairs, synchronous pairs and background of LLP's test split."""
    audio, visual = llp_dense[:, :, 0].reshape(-1, 25), llp_dense[:, :, 1].reshape(-1, 25)
    assert (~audio.any(axis=1)).sum() == 1_289
    assert (~visual.any(axis=1)).sum() == 2_298
    levels = chance(audio, visual, clips=np.arange(12_000) // 10)
    anything = {
        match: levels[Reading(match, "all", "nothing")].value for match in ("equal", "share")
    }
    assert anything["equal"] == pytest.approx(0.043, abs=5e-4)
    assert anything["share"] == pytest.approx(0.062, abs=5e-4)
    # As one-dimensional features that find the synchronous segment and no other would have it.
    synchronous = (audio == visual).all(axis=1).mean(), (audio & visual).any(axis=1).mean()
    assert synchronous == pytest.approx((0.539, 0.674), abs=5e-4)
    default = levels[Reading()].value
    assert default is not None
    # Among segments with labels the chance of a shared one is larger by their shares.
    shares = audio.any(axis=1).mean(), visual.any(axis=1).mean()
    assert shares == pytest.approx((0.8926, 0.8085), abs=5e-5)
    assert np.prod(shares) == pytest.approx(0.7217, abs=5e-5)
    assert default == pytest.approx(anything["share"] / np.prod(shares), rel=2e-3)


def real_sample(llp_dense: np.ndarray, clips: int) -> dict[str, np.ndarray]:
    chosen = llp_dense[:clips].reshape(clips * 10, 2, 25)
    return {
        "query_labels": chosen[:, 0],
        "candidate_labels": chosen[:, 1],
        "clips": np.repeat(np.arange(clips), 10),
    }


def test_random_features_reach_chance_and_no_more(llp_dense: np.ndarray) -> None:
    data = real_sample(llp_dense, 200)
    rng = np.random.default_rng(0)
    queries, candidates = (rng.standard_normal((2_000, 8)).astype(np.float32) for _ in range(2))
    found = retrieval(queries, candidates, **data)
    for reading in READINGS:
        for level in (found.recall[reading], found.precision[reading]):
            assert level.value.value == pytest.approx(level.chance.value, abs=0.02)
    assert found.distinguish.value.value == pytest.approx(found.distinguish.chance.value, abs=0.02)


def test_features_that_are_all_alike_reach_chance() -> None:
    data = segments(60)
    data["queries"] = np.ones((60, 6), np.float32)
    data["candidates"] = np.full((60, 6), 3.0, np.float32)
    found = retrieval(**data)
    for reading in READINGS:
        for level in (found.recall[reading], found.precision[reading]):
            assert level.value.value == pytest.approx(level.chance.value, abs=1e-12)
    assert found.distinguish.value.value == pytest.approx(found.distinguish.chance.value, abs=1e-12)


def test_synchronous_features_find_their_own_second(llp_dense: np.ndarray) -> None:
    """Recall with nothing barred is then the agreement of synchronous labels."""
    data = real_sample(llp_dense, 100)
    same = np.random.default_rng(0).standard_normal((1_000, 16)).astype(np.float32)
    found = retrieval(same, same, **data)
    equal = (data["query_labels"] == data["candidate_labels"]).all(axis=1).mean()
    assert found.recall[Reading("equal", "all", "nothing")].value.value == pytest.approx(equal)
    share = (data["query_labels"] & data["candidate_labels"]).any(axis=1).mean()
    assert found.recall[Reading("share", "all", "nothing")].value.value == pytest.approx(share)


def test_unimodal_neighbours_in_time(llp_dense: np.ndarray) -> None:
    """Features that change slowly reach 0.97: the level of the papers' unimodal recall."""
    audio = llp_dense[:100, :, 0].reshape(1_000, 25)
    clips = np.repeat(np.arange(100), 10)
    rng = np.random.default_rng(0)
    slow = rng.standard_normal((100, 1, 64)) + 0.1 * np.cumsum(
        rng.standard_normal((100, 10, 64)), axis=1
    )
    flat = slow.reshape(1_000, 64).astype(np.float32)
    found = retrieval(flat, flat, query_labels=audio, candidate_labels=audio, clips=clips)
    share = found.recall[Reading()].value.value
    assert share is not None
    assert share > 0.95
    barred = found.recall[Reading("share", "labelled", "clip")]
    assert barred.value.value == pytest.approx(barred.chance.value, abs=0.1)
    exact = found.recall[Reading("equal", "all", "segment")].value.value
    assert exact is not None
    assert exact < share
    own = found.recall[Reading("equal", "all", "nothing")]
    assert own.value.value == 1.0
    levels = [
        found.recall[Reading("share", "all", name)].value.value
        for name in ("nothing", "segment", "clip")
    ]
    assert all(one is not None and two is not None and one >= two for one, two in pairwise(levels))


def test_readings_without_queries_are_not_applicable() -> None:
    data = segments(10)
    data["query_labels"] = np.zeros((10, 4), bool)
    found = retrieval(**data)
    for name in ("segment", "clip", "nothing"):
        level = found.recall[Reading("share", "labelled", name)]  # type: ignore[arg-type]
        assert level.value.reason == level.chance.reason == "no segment can be a query"
        assert found.recall[Reading("share", "all", name)].value.value == 0.0  # type: ignore[arg-type]
        assert found.precision[Reading("share", "all", name)].value.reason.startswith(  # type: ignore[arg-type]
            "no segment has a match"
        )
    assert found.distinguish.value.value == 0.0
    one = {name: each[:1] for name, each in segments(5).items()}
    assert retrieval(**one).distinguish.value.value is None
    none = {name: each[:0] for name, each in segments(5).items()}
    assert retrieval(**none).recall[Reading()].value.value is None


def test_bad_input_is_refused() -> None:
    data = segments(20)
    with pytest.raises(FeaturesError, match="20 segments do not fit"):
        retrieval(**{**data, "candidates": data["candidates"][:19]})
    with pytest.raises(FeaturesError, match=r"labels \[20, 4\] and \[20, 3\]"):
        retrieval(**{**data, "candidate_labels": data["candidate_labels"][:, :3]})
    bad = data["candidates"].copy()
    bad[7, 1] = np.inf
    with pytest.raises(FeaturesError, match="feature 1 of row 7 is inf"):
        retrieval(**{**data, "candidates": bad})
