"""CKA, mutual neighbours, the common space and lag curves, against their definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.linalg import eigh
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA
from sklearn.neighbors import NearestNeighbors

from avfeat.collocate.scores.alignment import linear_cka, mutual_neighbours, nearest
from avfeat.collocate.scores.canonical import fit_common_space
from avfeat.collocate.scores.lags import labels_by_lag, similarity_by_lag
from avfeat.collocate.scores.moments import CrossMoments, Moments
from avfeat.collocate.scores.neighbours import sample
from avfeat.collocate.scores.result import Score
from avfeat.errors import FeaturesError

Parts = tuple[Moments, Moments, CrossMoments]


def paired(
    n: int, *, seed: int = 0, shared: int = 4, noise: float = 0.5, offset: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two views, 7 and 11 wide, of a shared latent (maps the same for all seeds), float32."""
    maps = np.random.default_rng(77)
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, shared))
    views = []
    for width in (7, 11):
        view = latent @ maps.standard_normal((shared, width)) + offset
        views.append((view + noise * rng.standard_normal((n, width))).astype(np.float32))
    return views[0], views[1]


def parts(a: np.ndarray, v: np.ndarray) -> Parts:
    found = Moments(a.shape[1]), Moments(v.shape[1]), CrossMoments(a.shape[1], v.shape[1])
    for rows in np.array_split(np.arange(len(a)), 3):
        found[0].add(a[rows])
        found[1].add(v[rows])
        found[2].add(a[rows], v[rows])
    return found


def test_cka_is_that_of_centred_kernels() -> None:
    a, v = paired(200)
    one, two = a.astype(np.float64), v.astype(np.float64)
    centring = np.eye(200) - 1 / 200
    kernels = [centring @ (x @ x.T) @ centring for x in (one, two)]
    expected = np.vdot(*kernels) / np.prod([np.linalg.norm(kernel) for kernel in kernels])
    assert linear_cka(*parts(a, v)).value == pytest.approx(expected, rel=1e-10)


def test_cka_does_not_see_rotation_or_scale() -> None:
    a, _ = paired(300)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0]
    rotated = (5 * a @ rotation.astype(np.float32) - 20).astype(np.float32)
    assert linear_cka(*parts(a, rotated)).value == pytest.approx(1.0, abs=1e-6)
    unrelated = linear_cka(*parts(a, paired(300, seed=9)[1])).value
    assert unrelated is not None
    assert 0 < unrelated < 0.05


def test_cka_of_constant_features_is_not_applicable() -> None:
    a, v = paired(50)
    assert linear_cka(*parts(a, np.ones_like(v))).reason.endswith("are constant")
    assert linear_cka(*parts(a[:1], v[:1])).reason == "1 row cannot be compared"


def agreement(
    audio: np.ndarray, visual: np.ndarray, *, clips: np.ndarray, k: int = 10
) -> tuple[Score, Score]:
    found = (nearest(one, clips=clips, k=k) for one in (audio, visual))
    return mutual_neighbours(*found, clips=clips)


def test_mutual_neighbours_are_sklearns() -> None:
    a, v = paired(300, noise=0.8)
    found, chance = agreement(a, v, clips=np.arange(300), k=10)
    near = []
    for x in (a, v):
        index = NearestNeighbors(n_neighbors=10, metric="cosine").fit(x)
        near.append(index.kneighbors(return_distance=False))
    expected = np.mean([len({*one} & {*two}) / 10 for one, two in zip(*near, strict=True)])
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert chance.value == pytest.approx(10 / 299)
    assert expected > 4 * 10 / 299


def test_neighbours_of_the_same_clip_do_not_count() -> None:
    rng = np.random.default_rng(0)
    clips = np.repeat(np.arange(60), 10)
    # Within a clip all is alike in both modalities; across clips there is no agreement.
    views = [
        (rng.standard_normal((60, 1, 20)) + 0.05 * rng.standard_normal((60, 10, 20)))
        .reshape(600, 20)
        .astype(np.float32)
        for _ in range(2)
    ]
    bare, _ = agreement(*views, clips=np.arange(600), k=9)
    assert bare.value == pytest.approx(1.0)
    found, chance = agreement(*views, clips=clips, k=9)
    assert chance.value == pytest.approx(9 / 590)
    assert found.value is not None
    assert found.value < 0.05
    # In every order of the segments.
    order = rng.permutation(600)
    again, _ = agreement(*(view[order] for view in views), clips=clips[order], k=9)
    assert again.value == pytest.approx(found.value)


def test_chance_is_what_unrelated_spaces_reach() -> None:
    rng = np.random.default_rng(1)
    a, v = (rng.standard_normal((2_000, 16)).astype(np.float32) for _ in range(2))
    found, chance = agreement(a, v, clips=np.arange(2_000) // 10, k=10)
    assert found.value == pytest.approx(chance.value, rel=0.15)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("dim", [16, 131])
def test_segments_that_are_alike_are_no_agreement(share: float, dim: int) -> None:
    """Silence and black frames, here of clips drawn for each modality by itself."""
    rng = np.random.default_rng(3)
    views = []
    for loud in (0.0, 1.0):
        view = rng.standard_normal((200, 5, dim)).astype(np.float32)
        view[rng.random(200) < share] = loud * view[0, 0]
        views.append(view.reshape(1_000, dim))
    found, chance = agreement(*views, clips=np.repeat(np.arange(200), 5))
    assert found.value == pytest.approx(chance.value, rel=0.15)


def test_ties_are_counted_as_if_broken_by_lot() -> None:
    rng = np.random.default_rng(4)
    # Few values of each feature, so that many are level; and the same in both, so that they agree.
    one = rng.integers(0, 2, (120, 5)).astype(np.float32)
    other = np.where(rng.random((120, 5)) < 0.1, 1 - one, one).astype(np.float32)
    found, _ = agreement(one, other, clips=np.arange(120), k=7)

    def drawn(view: np.ndarray) -> list[set[int]]:
        length = np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-30)
        likeness = np.round((view / length) @ (view / length).T, 5)
        np.fill_diagonal(likeness, -np.inf)
        lots = rng.random(likeness.shape)
        return [{*np.lexsort((lot, row))[-7:]} for lot, row in zip(lots, likeness, strict=True)]

    shares = []
    for _ in range(200):
        near = zip(drawn(one), drawn(other), strict=True)
        shares.append(np.mean([len(a & b) / 7 for a, b in near]))
    assert found.value == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / 200**0.5)


def test_constant_features_have_no_neighbours() -> None:
    a, v = paired(60)
    for flat in (np.zeros_like(v), np.ones_like(v)):
        found, chance = agreement(a, flat, clips=np.arange(60))
        assert (
            found.reason == chance.reason == ("all segments are alike: none is nearer than another")
        )


def test_too_few_segments_or_bad_ones() -> None:
    a, v = paired(30)
    for score in agreement(a, v, clips=np.arange(30) // 15, k=15):
        assert score.reason == "15 segments of other clips are too few for 15 neighbours"
    for score in agreement(a[:0], v[:0], clips=np.zeros(0, np.int64)):
        assert score.reason.startswith("0 segments")
    with pytest.raises(FeaturesError, match="do not fit"):
        agreement(a, v[1:], clips=np.arange(30))
    ten, five = (nearest(a, clips=np.arange(30), k=k) for k in (10, 5))
    for one, other, count in ((ten, ten, 29), (ten, five, 30)):
        with pytest.raises(FeaturesError, match="do not fit"):
            mutual_neighbours(one, other, clips=np.arange(count))
    assert mutual_neighbours(five, five, clips=np.arange(30))[0].value == 1
    a[3, 2] = np.nan
    with pytest.raises(FeaturesError, match="feature 2 of row 3 is nan"):
        agreement(a, v, clips=np.arange(30))


def test_samples_are_ascending_bounded_and_repeatable() -> None:
    found = sample(1_000, 100, seed=3)
    assert len(np.unique(found)) == 100
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, sample(1_000, 100, seed=3))
    np.testing.assert_array_equal(sample(5, 100), np.arange(5))


def test_canonical_directions_solve_the_generalised_eigenproblem() -> None:
    a, v = paired(400)
    space = fit_common_space(*parts(a, v), dims=5)
    wide = [x.astype(np.float64) for x in (a, v)]
    fitted = [LedoitWolf().fit(x).covariance_ for x in wide]
    cross = (wide[0] - wide[0].mean(axis=0)).T @ (wide[1] - wide[1].mean(axis=0)) / 400
    squares = eigh(cross @ np.linalg.solve(fitted[1], cross.T), fitted[0], eigvals_only=True)
    np.testing.assert_allclose(space.correlations**2, squares[::-1][:5], atol=1e-9)
    for directions, covariance in zip(space.directions, fitted, strict=True):
        np.testing.assert_allclose(directions.T @ covariance @ directions, np.eye(5), atol=1e-9)
    between = space.directions[0].T @ cross @ space.directions[1]
    np.testing.assert_allclose(between, np.diag(space.correlations), atol=1e-9)


def test_canonical_correlations_of_many_rows_are_sklearns() -> None:
    a, v = paired(20_000)
    space = fit_common_space(*parts(a, v), dims=4)
    one, two = CCA(n_components=4, max_iter=5_000, tol=1e-10).fit_transform(a, v)
    expected = [np.corrcoef(one[:, i], two[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(space.correlations, expected, atol=2e-3)


def test_the_common_space_finds_partners_it_was_not_fitted_on() -> None:
    space = fit_common_space(*parts(*paired(5_000)))
    assert len(space.correlations) == 7  # the narrower modality's width
    a, v = paired(200, seed=5)
    one, two = space.audio(a), space.visual(v)
    assert one.dtype == np.float32
    assert one.shape == two.shape == (200, 7)
    likeness = one @ two.T / np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1))
    assert (likeness.argmax(axis=1) == np.arange(200)).mean() > 0.3
    np.testing.assert_array_equal(space.audio(a.reshape(20, 10, 7)).reshape(200, 7), one)


def test_a_space_that_cannot_be_fitted_or_used() -> None:
    a, v = paired(50)
    with pytest.raises(FeaturesError, match="two rows or more, and features that vary"):
        fit_common_space(*parts(np.ones_like(a), v))
    with pytest.raises(FeaturesError, match="two rows or more"):
        fit_common_space(*parts(a[:1], v[:1]))
    space = fit_common_space(*parts(a, v))
    with pytest.raises(FeaturesError, match="11 features, of 7 that were fitted"):
        space.audio(v)
    a[0, 4] = np.inf
    with pytest.raises(FeaturesError, match="feature 4 of row 0 is inf"):
        space.audio(a)


def test_similarity_by_lag_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((5, 6, 3)).astype(np.float32) for _ in range(2))
    second[2, 3] = 0  # like nothing
    found = similarity_by_lag(first, second)
    for lag in range(6):
        cosines = []
        for clip in range(5):
            for t, u in product(range(6), range(6)):
                if abs(t - u) != lag:
                    continue
                x, y = first[clip, t], second[clip, u]
                length = np.linalg.norm(x) * np.linalg.norm(y)
                cosines.append(x @ y / length if length else 0.0)
        assert found[lag] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert similarity_by_lag(first, first)[0] == pytest.approx(1.0)
    with pytest.raises(FeaturesError, match="not segments of the same clips"):
        similarity_by_lag(first, second[:, :5])
    first[4, 0, 1] = np.nan
    with pytest.raises(FeaturesError, match="feature 1 of row 24 is nan"):
        similarity_by_lag(first, second)


#: Of three digits, once rounded from four.
ROUNDING = 5.6e-4
#: Of LLP's test split: Fig. 8 (b) by lag 0 to 9.
AV_EQUAL = [0.539, 0.510, 0.492, 0.481, 0.471, 0.462, 0.454, 0.444, 0.440, 0.425]
AA_EQUAL = [1, 0.800, 0.709, 0.666, 0.633, 0.604, 0.584, 0.552, 0.534, 0.522]
VV_EQUAL = [1, 0.920, 0.871, 0.841, 0.816, 0.792, 0.772, 0.754, 0.746, 0.742]
AV_CLASS = [0.976, 0.974, 0.973, 0.972, 0.971, 0.971, 0.970, 0.969, 0.969, 0.969]
AV_GIVEN = [0.765, 0.744, 0.730, 0.720, 0.711, 0.705, 0.699, 0.693, 0.682, 0.673]


def test_labels_by_lag_on_the_real_labels(llp_dense: np.ndarray) -> None:
    audio, visual = llp_dense[:, :, 0], llp_dense[:, :, 1]
    across = labels_by_lag(audio, visual)
    np.testing.assert_allclose(across.equal, AV_EQUAL, atol=ROUNDING)
    np.testing.assert_allclose(across.per_class, AV_CLASS, atol=ROUNDING)
    np.testing.assert_allclose(across.conditional, AV_GIVEN, atol=ROUNDING)
    np.testing.assert_allclose(labels_by_lag(audio, audio).equal, AA_EQUAL, atol=ROUNDING)
    np.testing.assert_allclose(labels_by_lag(visual, visual).equal, VV_EQUAL, atol=ROUNDING)


def test_rows_that_do_not_determine_a_space_are_refused() -> None:
    a, v = paired(2)
    with pytest.raises(FeaturesError, match="2 rows do not determine a common space"):
        fit_common_space(*parts(a, v))
