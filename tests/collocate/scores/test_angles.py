"""Corresponding and principal angles against numpy's full SVD of the feature matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from avfeat.collocate.scores.angles import Angles, corresponding_angles
from avfeat.collocate.scores.joint import equal_energy, joint
from avfeat.collocate.scores.moments import CrossMoments, Moments
from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.spectra import Spectrum, spectrum
from avfeat.errors import FeaturesError


def features(
    n: int, d: int, *, seed: int, rank: int | None = None, noise: float = 0.1
) -> np.ndarray:
    """Post-ReLU-like features of one network (all seeds share its directions), float64 [n, d]."""
    rank = rank or min(d, 20)
    basis = np.random.default_rng(99).standard_normal((rank, d))
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, rank)) * 0.8 ** np.arange(rank) + 0.7
    return latent @ (basis + noise * rng.standard_normal(basis.shape))


def spectrum_of(x: np.ndarray, k: int, *, centred: bool, clips: int | None = None) -> Spectrum:
    moments = Moments(x.shape[1])
    moments.add(x)
    return spectrum(moments, k=k, clips=clips or len(x), centred=centred)


def by_svd(source: np.ndarray, target: np.ndarray, k: int, centred: bool) -> tuple[np.ndarray, ...]:
    """As the papers print it: left singular vectors of features as columns."""
    vectors = []
    for x in (source, target):
        x = x - x.mean(axis=0) if centred else x
        vectors.append(np.linalg.svd(x.T)[0][:, :k])
    return np.abs((vectors[0] * vectors[1]).sum(axis=0)), *vectors


SHAPES = [
    # n of source, n of target, d, rank
    (400, 300, 30, None),
    (40, 60, 100, None),  # n < d
    (500, 50, 64, 5),  # rank-deficient
    (12, 12, 12, None),
    (2_000, 3_000, 257, None),
    (1_000, 300, 600, None),  # float32 products
]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("n_s", "n_t", "d", "rank"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_angles_are_those_of_the_full_svd(
    n_s: int, n_t: int, d: int, rank: int | None, centred: bool, dtype: type
) -> None:
    k = 8
    source = features(n_s, d, seed=1, rank=rank).astype(dtype)
    target = features(n_t, d, seed=2, rank=rank).astype(dtype)
    found = corresponding_angles(
        *(spectrum_of(x, k, centred=centred, clips=10**6) for x in (source, target))
    )
    expected, left, right = by_svd(source.astype(np.float64), target.astype(np.float64), k, centred)
    # A threshold of 0.0014 lets through all but vectors that are rounding.
    assert found.determined.sum() == min(k, rank or k)
    np.testing.assert_allclose(
        found.cosines[found.determined], expected[found.determined], atol=1e-6
    )
    if rank is None:
        angles = subspace_angles(left, right)
        np.testing.assert_allclose(np.sort(found.principal), np.sort(np.cos(angles)), atol=1e-6)
        chance = k / d
        expected_overlap = ((np.cos(angles) ** 2).mean() - chance) / (1 - chance)
        assert found.overlap().value == pytest.approx(expected_overlap, abs=1e-6)
    assert found.first().value == pytest.approx(expected[0], abs=1e-6)
    assert found.mean().value == pytest.approx(expected[found.determined].mean(), abs=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_singular_values_and_their_energy(centred: bool) -> None:
    x = features(300, 40, seed=1)
    found = spectrum_of(x, 5, centred=centred)
    shifted = x - x.mean(axis=0) if centred else x
    singular = np.linalg.svd(shifted.T, compute_uv=False)
    np.testing.assert_allclose(np.sqrt(found.values[:20]), singular[:20], rtol=1e-9)
    for first in (1, 5):
        expected = (singular[:first] ** 2).sum() / (singular**2).sum()
        assert found.energy_ratio(first).value == pytest.approx(expected, rel=1e-10)
    assert found.energy_ratio(6).reason == "6 singular values of 5 that are known"


def test_uncentred_first_angle_tells_little() -> None:
    """Two unrelated networks of non-negative features have cos psi_1 near 1 all the same."""
    x, y = (np.random.default_rng(seed).gamma(4, size=(3_000, 64)) for seed in (1, 2))
    rotation = np.random.default_rng(3).permutation(64)
    mixing = 1 + np.arange(64)[:, None] % 3 * np.eye(64)
    raw = corresponding_angles(*(spectrum_of(f @ mixing, 3, centred=False) for f in (x, y)))
    assert raw.first().value is not None
    assert raw.first().value > 0.99
    unlike = corresponding_angles(
        spectrum_of(x @ mixing, 3, centred=False),
        spectrum_of((y @ mixing)[:, rotation], 3, centred=False),
    )
    assert unlike.first().value is not None
    assert unlike.first().value > 0.99


def test_signs_and_scale_do_not_matter() -> None:
    source, target = features(200, 20, seed=1), features(150, 20, seed=2)
    one = corresponding_angles(*(spectrum_of(x, 4, centred=True) for x in (source, target)))
    two = corresponding_angles(
        *(spectrum_of(x, 4, centred=True) for x in (-1e-3 * source, 1e4 * target))
    )
    np.testing.assert_allclose(one.cosines, two.cosines, atol=1e-9)
    same = corresponding_angles(*[spectrum_of(source, 4, centred=True)] * 2)
    np.testing.assert_allclose(same.cosines, 1.0, atol=1e-12)
    np.testing.assert_allclose(same.principal, 1.0, atol=1e-12)


def test_a_closed_gap_is_flagged_and_no_other() -> None:
    """Two directions of one population variance: samples mix them, as the flag says."""
    d, n = 12, 4_000
    scales = np.array([9.0, 4.0, 4.0, 1.5, 0.6, 0.3, *[0.05] * 6])
    drawn = [np.random.default_rng(seed).standard_normal((n, d)) * scales for seed in (1, 2)]
    found = corresponding_angles(*(spectrum_of(x, 5, centred=True) for x in drawn))
    assert found.thresholds == pytest.approx((np.sqrt(2 / n),) * 2)
    # Which of the two the sample's gap shows closed depends on chance; use the known truth.
    wide = corresponding_angles(*(spectrum_of(x, 5, centred=True, clips=400) for x in drawn))
    assert wide.determined.tolist() == [True, False, False, True, True]
    assert (wide.cosines[wide.determined] > 0.99).all()
    assert wide.mean().value == pytest.approx(wide.cosines[[0, 3, 4]].mean())
    among = np.array([False, True, True, True, False])
    assert wide.mean(among).value == pytest.approx(wide.cosines[3])
    none = wide.mean(np.array([False, True, True, False, False]))
    assert none.reason == "no singular vector is determined in all that have a determined one"
    # Within a subspace that holds the pair there is nothing to be mixed.
    assert (wide.principal > 0.99).all()


def test_where_nothing_is_determined_there_is_no_number() -> None:
    white = [np.random.default_rng(seed).standard_normal((300, 30)) for seed in (1, 2)]
    found = corresponding_angles(*(spectrum_of(x, 3, centred=True, clips=30) for x in white))
    assert not found.determined.any()
    assert found.mean().value is None
    assert found.mean().reason.startswith("none of 3 singular vectors is determined: relative gaps")
    assert found.first().reason.startswith("the first singular vector is not determined")


@pytest.mark.parametrize("closed", ["source", "target"])
def test_a_span_behind_a_closed_gap_has_no_overlap(closed: str) -> None:
    scales = {True: [9.0, 4.0, 4.0, 1.0, 0.5], False: [9.0, 4.0, 2.0, 1.0, 0.5]}
    spectra = {}
    for seed, who in enumerate(("source", "target")):
        x = np.random.default_rng(seed).standard_normal((4_000, 5)) * scales[who == closed]
        values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
        spectra[who] = {k: spectrum_of(x, k, centred=True, clips=400) for k in (1, 2, 3, 5)}
        for k in (1, 2, 3):
            assert spectra[who][k].last_gap == pytest.approx(1 - values[k] / values[k - 1])
    found = {
        k: corresponding_angles(spectra["source"][k], spectra["target"][k]).overlap()
        for k in (1, 2, 3, 5)
    }
    gap = spectra[closed][2].last_gap
    assert found[2].value is None
    assert found[2].reason == (
        f"{closed}: the span of 2 singular vectors is not determined: relative gap {gap:.2g} "
        "behind them"
    )
    for k in (1, 3):  # within these nothing is mixed with what is not
        assert found[k].value == pytest.approx(1, abs=0.01)
    assert found[5] == Score.not_applicable("5 directions are all of 5 features")


def test_overlap_of_unrelated_spans_is_that_of_chance() -> None:
    """Spans of random directions in few dimensions share much, and know nothing of each other."""
    d, k, found = 12, 4, []
    scales = np.array([5.0] * k + [0.5] * (d - k))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        turns = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2)]
        drawn = [rng.standard_normal((200, d)) * scales @ turn for turn in turns]
        overlap = corresponding_angles(*(spectrum_of(x, k, centred=True) for x in drawn)).overlap()
        assert overlap.value is not None
        found.append(overlap.value)
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.std(found) < 0.2


@pytest.mark.parametrize(
    ("x", "clips", "centred", "reason"),
    [
        (np.ones((50, 3)), 50, False, "3 features have no 4 singular vectors"),
        (np.ones((50, 8)), 50, True, "all features are constant"),
        (np.zeros((50, 8)), 50, False, "all features are zero"),
        (features(50, 8, seed=1), 4, True, "4 clips cannot determine 4 singular vectors"),
        (features(4, 8, seed=1), 9, True, "4 segments cannot determine 4 singular vectors"),
        (np.zeros((0, 8)), 9, True, "0 segments cannot determine 4 singular vectors"),
    ],
)
def test_too_little_for_k_is_not_applicable(
    x: np.ndarray, clips: int, centred: bool, reason: str
) -> None:
    poor = spectrum_of(x, 4, centred=centred, clips=clips)
    assert poor.reason == reason
    assert poor.energy_ratio().reason == reason
    good = spectrum_of(features(100, x.shape[1], seed=2, rank=3), 4, centred=centred)
    for found, who in (
        (corresponding_angles(poor, good), "source"),
        (corresponding_angles(good, poor), "target"),
    ):
        for score in (found.first(), found.mean(), found.overlap()):
            assert score.value is None
            assert f"{who}: {reason}" in score.reason
        assert len(found.cosines) == 0


def test_a_joint_matrix_is_that_of_both_modalities_at_equal_energy() -> None:
    matrices, spectra = [], []
    for seed, n in ((1, 500), (2, 300)):
        a, v = features(n, 10, seed=seed), 30 * features(n, 25, seed=seed + 10)
        matrices.append(np.concatenate([x / np.linalg.norm(x) for x in (a, v)], axis=1))
        audio, visual, cross = Moments(10), Moments(25), CrossMoments(10, 25)
        audio.add(a)
        visual.add(v)
        cross.add(a, v)
        scale = equal_energy(audio, visual, centred=False)
        both = joint(audio, visual, cross, scale=scale)
        spectra.append(spectrum(both, k=6, clips=10**5, centred=False))
    found = corresponding_angles(*spectra)
    expected, *_ = by_svd(*matrices, 6, False)
    assert found.determined.all()
    np.testing.assert_allclose(found.cosines, expected, atol=1e-6)


def grouped(spectrum: Spectrum, x: np.ndarray, number: int) -> Spectrum:
    """Add groups of one-segment clips, dealt out in turn."""
    groups = [Moments(spectrum.vectors.shape[1]) for _ in range(number)]
    for index, group in enumerate(groups):
        group.add(x[index::number] @ spectrum.vectors)
    return spectrum.with_groups(groups)


@pytest.mark.parametrize("centred", [False, True])
def test_resamples_are_those_of_repeated_rows(centred: bool) -> None:
    """The bootstrap from group moments equals the one that gathers rows and runs a full SVD."""
    number, k, resamples = 8, 3, 40
    data = [features(240, 16, seed=seed) for seed in (1, 2)]
    spectra = [grouped(spectrum_of(x, k, centred=centred), x, number) for x in data]
    found = corresponding_angles(*spectra, resamples=resamples, seed=5).interval
    rng = np.random.default_rng(5)
    draws = [rng.multinomial(number, [1 / number] * number, size=resamples) for _ in data]
    cosines = []
    for weights in zip(*draws, strict=True):
        drawn = [
            np.concatenate([x[index::number] for index in np.repeat(np.arange(number), weight)])
            for x, weight in zip(data, weights, strict=True)
        ]
        cosines.append(by_svd(*drawn, k, centred)[0])
    assert found is not None
    own = by_svd(*data, k, centred)[0]
    expected = np.clip(2 * own - np.percentile(cosines, [97.5, 2.5], axis=0), 0, 1).T
    np.testing.assert_allclose(found, expected, atol=1e-8)


def interval_of(seeds: tuple[int, int], n: int, *, centred: bool = True) -> Angles:
    data = [features(n, 200, seed=seed, noise=0.0) for seed in seeds]
    spectra = [grouped(spectrum_of(x, 4, centred=centred), x, 16) for x in data]
    return corresponding_angles(*spectra, resamples=200)


def test_intervals_narrow_with_more_clips() -> None:
    few, many = (interval_of((1, 2), n) for n in (160, 4_000))
    for found in (few, many):
        assert found.interval is not None
        assert ((found.interval >= 0) & (found.interval <= 1)).all()
        assert (found.interval[:, 0] <= found.interval[:, 1]).all()
    widths = [np.diff(found.interval, axis=1)[:3].max() for found in (few, many)]  # type: ignore[arg-type]
    assert widths[1] < widths[0] / 4
    again = interval_of((1, 2), 160)
    np.testing.assert_array_equal(few.interval, again.interval)


@pytest.mark.parametrize("degrees", [0, 20])
def test_intervals_cover_a_known_angle(degrees: float) -> None:
    """Of 40 pairs of samples 38 on average if they were exact; they are on the safe side."""
    dim, number, turn = 32, 20, np.deg2rad(degrees)
    scales = np.concatenate([[4.0, 2.5, 1.6], np.full(dim - 3, 0.5)])
    rotation = np.eye(dim)
    rotation[np.ix_([0, 3], [0, 3])] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        spectra = []
        for n, basis in ((600, np.eye(dim)), (300, rotation)):
            x = (rng.standard_normal((n, dim)) * scales) @ basis.T
            spectra.append(grouped(spectrum_of(x, 3, centred=True), x, number))
        low, high = corresponding_angles(*spectra, resamples=200).interval[0]  # type: ignore[index]
        covered += low <= np.cos(turn) <= high
    assert covered >= 36


def test_spectra_that_cannot_be_compared_are_refused() -> None:
    x = features(100, 10, seed=1)
    good = spectrum_of(x, 3, centred=True)
    with pytest.raises(FeaturesError, match="differ in centred"):
        corresponding_angles(good, spectrum_of(x, 3, centred=False))
    with pytest.raises(FeaturesError, match="differ in k"):
        corresponding_angles(good, spectrum_of(x, 4, centred=True))
    with pytest.raises(FeaturesError, match="10 features and target 9"):
        corresponding_angles(good, spectrum_of(x[:, 1:], 3, centred=True))
    with pytest.raises(FeaturesError, match="needs 5 groups of clips or more, not 0"):
        corresponding_angles(good, good, resamples=10)
    with pytest.raises(ValueError, match="k must be at least 1"):
        spectrum_of(x, 0, centred=True)
