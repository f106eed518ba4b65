"""Streamed moments against numpy's over all rows at once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from avfeat.collocate.scores.block import Block
from avfeat.collocate.scores.joint import equal_energy, joint, joint_sums
from avfeat.collocate.scores.moments import ClassSums, CrossMoments, Moments
from avfeat.collocate.scores.shrinkage import ledoit_wolf, shrunk
from avfeat.errors import FeaturesError


def rows(n: int, d: int, *, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    """Correlated rows of unequal scales and non-zero third moments, float64."""
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, size=(n, d)) @ rng.standard_normal((d, d)) / np.sqrt(d) + offset


def moments_of(x: np.ndarray, *cuts: int) -> Moments:
    found = Moments(x.shape[1])
    for part in np.split(x, cuts):
        found.add(part)
    return found


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize(
    ("dtype", "d", "tolerance"),
    [(np.float64, 40, 1e-10), (np.float32, 40, 1e-10), (np.float32, 520, 2e-6)],
)
def test_covariance_is_numpys_whatever_the_mean(
    offset: float, dtype: type, d: int, tolerance: float
) -> None:
    # The expectation takes the rows as rounded to the blocks' type, but computes in float64.
    x = rows(9_000, d, offset=offset).astype(dtype)
    found = moments_of(x, 1, 700, 701, 5_000)
    wide = x.astype(np.float64)
    assert found.count == 9_000
    np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-14)
    assert relative(found.covariance, np.cov(wide.T, bias=True)) < tolerance
    second = wide.T @ wide
    assert relative(found.second(centred=False), second) < tolerance
    assert found.energy(centred=False) == pytest.approx(np.trace(second), rel=tolerance)
    assert found.energy(centred=True) == pytest.approx(np.trace(found.scatter), rel=tolerance)


def test_merging_is_adding_in_any_grouping() -> None:
    x = rows(1_000, 12, offset=50.0)
    whole = moments_of(x)
    parts = [moments_of(part) for part in np.split(x, [3, 400, 401])]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found = Moments(12)
        for index in order:
            found.merge(parts[index])
        assert relative(found.scatter, whole.scatter) < 1e-13
        assert relative(found.own.thirds[0], whole.own.thirds[0]) < 1e-10
        assert found.own.fourth == pytest.approx(whole.own.fourth, rel=1e-11)
    assert parts[0].count == 3  # the parts are left alone
    empty = Moments(12)
    empty.merge(Moments(12))
    assert empty.count == 0
    empty.merge(pickle.loads(pickle.dumps(whole)))
    np.testing.assert_array_equal(empty.scatter, whole.scatter)


def test_third_and_fourth_moments_are_literal_sums() -> None:
    a, v = rows(500, 5, offset=9.0), rows(500, 7, seed=1, offset=-4.0)
    cross = CrossMoments(5, 7)
    for one, two in zip(np.split(a, [100, 110]), np.split(v, [100, 110]), strict=True):
        cross.add(one, two)
    a, v = a - a.mean(axis=0), v - v.mean(axis=0)
    norm_a, norm_v = (a**2).sum(axis=1), (v**2).sum(axis=1)
    assert relative(cross.scatter, a.T @ v) < 1e-12
    assert relative(cross.thirds[0], norm_v @ a) < 1e-11
    assert relative(cross.thirds[1], norm_a @ v) < 1e-11
    assert cross.fourth == pytest.approx(norm_a @ norm_v, rel=1e-12)
    assert cross.energies == pytest.approx((norm_a.sum(), norm_v.sum()), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(20, 50), (500, 30), (3, 8), (5_000, 4)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_shrinkage_is_sklearns(n: int, d: int, offset: float) -> None:
    x = rows(n, d, offset=offset)
    found = ledoit_wolf(moments_of(x, n // 3))
    assert found == pytest.approx(ledoit_wolf_shrinkage(x), abs=1e-9)
    covariance = shrunk(moments_of(x), 0.3)
    expected = 0.7 * np.cov(x.T, bias=True) + 0.3 * np.cov(x.T, bias=True).trace() / d * np.eye(d)
    np.testing.assert_allclose(covariance, expected, atol=1e-10 * np.abs(expected).max())


def test_clips_of_segments_are_rows() -> None:
    x = rows(60, 4).astype(np.float32)
    found, cut = Moments(4), Moments(4)
    found.add(x)
    cut.add(x.reshape(6, 10, 4))
    np.testing.assert_array_equal(found.scatter, cut.scatter)


@pytest.mark.parametrize("centred", [True, False])
def test_joint_moments_are_those_of_the_joint_rows(centred: bool) -> None:
    a, v = rows(800, 6, offset=3.0), 40 * rows(800, 9, seed=1, offset=-2.0)
    labels = np.random.default_rng(0).random((800, 3)) < 0.3
    cross = CrossMoments(6, 9)
    sums = [ClassSums(6, 3), ClassSums(9, 3)]
    for part in np.split(np.arange(800), [10, 400]):
        cross.add(a[part], v[part])
        sums[0].add(a[part], labels[part])
        sums[1].add(v[part], labels[part])
    audio, visual = moments_of(a, 10, 400), moments_of(v, 10, 400)
    scale = equal_energy(audio, visual, centred=centred)
    for factor, x in zip(scale, (a, v), strict=True):
        x = factor * (x - x.mean(axis=0) if centred else x)
        assert (x**2).sum() / 800 == pytest.approx(1.0, rel=1e-12)
    both = np.concatenate([scale[0] * a, scale[1] * v], axis=1)
    found, expected = joint(audio, visual, cross, scale=scale), moments_of(both)
    assert found.dim == 15
    assert relative(found.scatter, expected.scatter) < 1e-12
    assert relative(found.mean, expected.mean) < 1e-13
    assert relative(found.own.thirds[0], expected.own.thirds[0]) < 1e-10
    assert found.own.fourth == pytest.approx(expected.own.fourth, rel=1e-11)
    assert found.energy(centred=centred) == pytest.approx(2 * 800, rel=1e-12)
    assert ledoit_wolf(found) == pytest.approx(ledoit_wolf_shrinkage(both), abs=1e-9)
    together = joint_sums(*sums, scale=scale)
    np.testing.assert_allclose(together.sums, labels.T @ both, rtol=1e-10)


def test_parts_of_other_segments_are_no_pair() -> None:
    a, v = rows(100, 4), rows(100, 3, seed=1)
    cross = CrossMoments(4, 3)
    cross.add(a, v)
    with pytest.raises(FeaturesError, match=r"are of 99, 100, 100 rows: not of a pair"):
        joint(moments_of(a[1:]), moments_of(v), cross, scale=(1.0, 1.0))
    with pytest.raises(FeaturesError, match="not of the same segments: means differ"):
        joint(moments_of(a), moments_of(rows(100, 3, seed=2)), cross, scale=(1.0, 1.0))
    with pytest.raises(FeaturesError, match="not of a pair"):
        joint(moments_of(v), moments_of(a), cross, scale=(1.0, 1.0))


def test_class_sums() -> None:
    x = rows(300, 5, offset=1e4).astype(np.float32)
    labels = np.random.default_rng(0).random((300, 4)) < 0.4
    found, other = ClassSums(5, 4), ClassSums(5, 4)
    found.add(x[:200].reshape(20, 10, 5), labels[:200].reshape(20, 10, 4).astype(np.float32))
    other.add(x[200:], labels[200:])
    found.merge(other)
    np.testing.assert_allclose(found.sums, labels.T @ x.astype(np.float64), rtol=1e-14)
    assert found.positives.tolist() == labels.sum(axis=0).tolist()
    assert (found.count, other.count) == (300, 100)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    x = np.zeros((5_000, 7), np.float32)
    x[4_321, 5] = value
    with pytest.raises(FeaturesError, match=rf"feature 5 of row 4321 is {value}"):
        Moments(7).add(x)
    with pytest.raises(FeaturesError, match="feature 5 of row 4321"):
        CrossMoments(2, 7).add(np.zeros((5_000, 2), np.float32), x)
    with pytest.raises(FeaturesError, match="feature 5 of row 4321"):
        ClassSums(7, 1).add(x.reshape(500, 10, 7), np.zeros((500, 10, 1)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(FeaturesError, match=r"\[4, 3\] are not rows of 5 features"):
        Moments(5).add(x)
    with pytest.raises(FeaturesError, match="not rows of 4 features"):
        Moments(4).add(np.zeros(4, np.float32))
    with pytest.raises(FeaturesError, match="float16"):
        Moments(3).add(x.astype(np.float16))  # type: ignore[arg-type]
    with pytest.raises(FeaturesError, match="not of the same segments"):
        CrossMoments(3, 3).add(x, x[:3])
    with pytest.raises(FeaturesError, match="cannot be merged"):
        Moments(3).merge(Moments(4))
    with pytest.raises(FeaturesError, match="cannot be merged"):
        ClassSums(3, 2).merge(ClassSums(3, 1))
    with pytest.raises(FeaturesError, match="labels must be 0 or 1"):
        ClassSums(3, 1).add(x, np.full((4, 1), 0.5))
    with pytest.raises(FeaturesError, match="labels must be 0 or 1"):
        ClassSums(3, 1).add(x, np.full((4, 1), np.nan))
    with pytest.raises(FeaturesError, match="do not fit"):
        ClassSums(3, 2).add(x, np.zeros((4, 1)))


def test_a_block_holds_one_after_another_for_several_products() -> None:
    """Lengths and widths differ, so that arrays are used again in part."""
    widths = {"seen": 600, "heard": 520, "other": 450}
    x = {name: rows(850, d, seed=d, offset=3.0).astype(np.float32) for name, d in widths.items()}
    held = {name: Block(d) for name, d in widths.items()}
    own = Moments(600)
    crosses = {name: CrossMoments(widths[name], 600) for name in ("heard", "other")}
    for first, last in ((0, 300), (300, 500), (500, 500), (500, 850)):
        for name, block in held.items():
            block.hold(x[name][first:last])
        own.add_block(held["seen"])
        for name, cross in crosses.items():
            cross.add_block(held[name], held["seen"])
    wide = {name: each.astype(np.float64) for name, each in x.items()}
    less = {name: each - each.mean(axis=0) for name, each in wide.items()}
    assert own.count == 850
    assert relative(own.scatter, less["seen"].T @ less["seen"]) < 2e-6
    for name, cross in crosses.items():
        assert relative(cross.scatter, less[name].T @ less["seen"]) < 2e-6
        norms = (less["seen"] ** 2).sum(axis=1)
        assert relative(cross.thirds[0], norms @ less[name]) < 1e-4
    held["heard"].hold(x["heard"][:3])
    with pytest.raises(FeaturesError, match="3 and 350 rows are not of the same segments"):
        crosses["heard"].add_block(held["heard"], held["seen"])
