"""Telling networks apart: what must not be told is at chance, what may be told is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from avfeat.collocate.discriminator import CLASSIFIERS, PREPARATIONS, tell_apart
from avfeat.errors import FeaturesError

CLIPS, SEGMENTS = 200, 10
# Three standard errors of an accuracy over 60 clips' segments of two networks.
LUCK = 3 * (0.25 / 1200) ** 0.5


def drawn(seed: int, *, dim: int = 32, skew: bool = True) -> np.ndarray:
    """Features [CLIPS, SEGMENTS, dim] with a decaying spectrum."""
    rng = np.random.default_rng(seed)
    shape = (CLIPS, SEGMENTS, dim)
    values = rng.exponential(size=shape) - 1 if skew else rng.standard_normal(shape)
    return (values * 0.9 ** np.arange(dim)).astype(np.float32)


def rotation(dim: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).standard_normal((dim, dim)))[0].astype(np.float32)


def test_two_draws_of_one_network_are_not_told_apart() -> None:
    found = tell_apart(drawn(0, skew=False), drawn(1, skew=False))
    assert set(found) == set(PREPARATIONS)
    for accuracies in found.values():
        assert set(accuracies) == set(CLASSIFIERS)
        assert accuracies == pytest.approx(dict.fromkeys(CLASSIFIERS, 0.5), abs=LUCK)


def test_scale_alone_tells_nothing() -> None:
    rows = drawn(0)
    # Rows are the same after scaling, to the bit, so one half of the answers is right.
    for accuracies in tell_apart(rows, 8 * rows).values():
        assert accuracies == {"logistic": 0.5, "mlp": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows + 3,
        lambda rows: rows @ rotation(rows.shape[-1]),
        lambda rows: 5 * (rows @ rotation(rows.shape[-1])) - 2,
    ],
    ids=["shifted", "rotated", "all"],
)
def test_shape_is_not_moved(change: Callable[[np.ndarray], np.ndarray]) -> None:
    # The rows are the same again but for rounding: a classifier is right on one of each two.
    found = tell_apart(drawn(0), change(drawn(0)))["shape"]
    assert found == pytest.approx({"logistic": 0.5, "mlp": 0.5}, abs=0.005)


def test_an_offset_is_told_apart_by_offset() -> None:
    found = tell_apart(drawn(0, skew=False), drawn(1, skew=False) + 1)
    assert found["shape"] == pytest.approx({"logistic": 0.5, "mlp": 0.5}, abs=LUCK)
    assert min(found["offset"].values()) > 0.98
    assert min(found["padded"].values()) > 0.98


def test_shape_is_told_apart_by_what_is_not_linear() -> None:
    normal = drawn(1, skew=False)
    found = tell_apart(drawn(0, skew=True), normal)["shape"]
    # Means and variances are equal, so a linear classifier has nothing to go by.
    assert found["logistic"] == pytest.approx(0.5, abs=LUCK)
    assert found["mlp"] > 0.8
    # Segments by turns near the mean and far from it, of the same variance in all.
    lengths = np.where(np.arange(SEGMENTS) % 2, 0.2, np.sqrt(2 - 0.04))[:, None]
    found = tell_apart(drawn(2, skew=False), (normal * lengths).astype(np.float32))["shape"]
    assert found["logistic"] == pytest.approx(0.5, abs=LUCK)
    assert found["mlp"] > 0.7


def test_the_width_leaks_where_zeros_are_put() -> None:
    rng = np.random.default_rng(0)
    # Of one distribution, around 0, so that nothing but the zeros can be told.
    wide, narrow = (
        rng.standard_normal((CLIPS, SEGMENTS, dim)).astype(np.float32) for dim in (96, 32)
    )
    found = tell_apart(wide, narrow)
    assert found["padded"]["mlp"] > 0.95
    for name in ("shape", "offset"):
        assert found[name] == pytest.approx({"logistic": 0.5, "mlp": 0.5}, abs=LUCK)


def test_clips_are_trained_on_or_tested_never_both() -> None:
    # Each clip has its own point in both networks, and which network it is can be told within the
    # clip only: whoever has seen a segment of a clip knows the others, whoever has not must guess.
    rng = np.random.default_rng(0)
    points = rng.standard_normal((2, 60, 1, 200)) + 0.01 * rng.standard_normal((2, 60, 10, 200))
    first, second = points.astype(np.float32)
    found = tell_apart(first, second)["padded"]
    # 18 clips of two networks are 36 independent guesses.
    assert found == pytest.approx({"logistic": 0.5, "mlp": 0.5}, abs=3 * (0.25 / 36) ** 0.5)


def test_it_is_deterministic_and_seeded() -> None:
    first, second = drawn(0)[:40], drawn(1, skew=False)[:40]
    assert tell_apart(first, second, seed=4) == tell_apart(first, second, seed=4)
    assert tell_apart(first, second, seed=4) != tell_apart(first, second, seed=5)


def test_features_of_low_rank_and_few_rows() -> None:
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((3, 40))
    flat = [(rng.standard_normal((12, 2, 3)) @ basis).astype(np.float32) for _ in range(2)]
    found = tell_apart(*flat)
    assert all(0 <= value <= 1 for each in found.values() for value in each.values())


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (np.ones((20, 10, 4)), drawn(0)[:20], "do not vary"),
        (drawn(0)[:9], drawn(1)[:9], "9 clips are too few"),
        (drawn(0), drawn(1)[:, :5], "not of the same segments"),
        (drawn(0), np.full((CLIPS, SEGMENTS, 2), np.nan), "feature 0 of row 0 is nan"),
    ],
)
def test_what_cannot_be_told_apart_says_why(
    first: np.ndarray, second: np.ndarray, words: str
) -> None:
    with pytest.raises(FeaturesError, match=words):
        tell_apart(first.astype(np.float32), second.astype(np.float32))
