"""LogME by direct maximisation of the evidence, the H-score by its formula with sklearn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from avfeat.collocate.scores.moments import ClassSums, Moments
from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.transferability import logme, regularised_h_score
from avfeat.errors import FeaturesError


def problem(
    n: int, d: int, *, classes: int = 3, seed: int = 0, signal: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative features and overlapping labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((n, d)) * rng.uniform(0.3, 2, d) + 0.5, 0)
    drive = signal * (x - x.mean(axis=0)) @ rng.standard_normal((d, classes)) / np.sqrt(d)
    return x, drive + rng.standard_normal((n, classes)) > 0.4


def streamed(x: np.ndarray, labels: np.ndarray) -> tuple[Moments, ClassSums]:
    moments, sums = Moments(x.shape[1]), ClassSums(x.shape[1], labels.shape[1])
    for part in np.array_split(np.arange(len(x)), 3):
        moments.add(x[part])
        sums.add(x[part], labels[part])
    return moments, sums


def evidence_maximum(x: np.ndarray, y: np.ndarray) -> float:
    """Log density of y ~ N(0, I / beta + F F^T / alpha), maximised over both, per row."""

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(y)) / beta + x @ x.T / alpha
        return -float(multivariate_normal(cov=covariance).logpdf(y))

    found = [
        minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
        for start in ([0.0, 0.0], [4.0, 2.0])
    ]
    return -min(result.fun for result in found) / len(y)


@pytest.mark.parametrize(("n", "d", "signal"), [(60, 4, 1.0), (50, 20, 2.0), (25, 40, 1.0)])
def test_logme_is_the_maximum_of_the_evidence(n: int, d: int, signal: float) -> None:
    x, labels = problem(n, d, signal=signal)
    expected = [evidence_maximum(x, y) for y in labels.T.astype(float)]
    assert logme(*streamed(x, labels)).value == pytest.approx(np.mean(expected), abs=1e-7)


def test_logme_of_dependent_and_dead_features() -> None:
    x, labels = problem(80, 5)
    # A copied feature changes the prior; the oracle says by how much. A dead one does nothing.
    copied = np.concatenate([x, x[:, :2], np.zeros((80, 3))], axis=1)
    expected = np.mean([evidence_maximum(copied, y) for y in labels.T.astype(float)])
    assert logme(*streamed(copied, labels)).value == pytest.approx(expected, abs=1e-7)
    without = logme(*streamed(copied[:, :7], labels)).value
    assert logme(*streamed(copied, labels)).value == pytest.approx(without, abs=1e-9)


@pytest.mark.parametrize("flipped", [0, 1])
def test_logme_of_features_that_know_nothing_is_that_of_noise_alone(flipped: int) -> None:
    """Labels at right angles to all features, or nearly so: no weight is worth its prior."""
    rng = np.random.default_rng(0)
    half = rng.integers(-9, 10, (30, 4)).astype(float)
    x = np.concatenate([half, -half])
    labels = np.tile(rng.random((30, 1)) < 0.4, (2, 1))
    labels[:flipped] = ~labels[:flipped]
    (y,) = labels.T.astype(float)
    found = logme(*streamed(x, labels))
    alone = multivariate_normal(cov=np.eye(60) * (y @ y / 60)).logpdf(y) / 60
    assert found.value == pytest.approx(alone, abs=1e-9)
    assert found.value == pytest.approx(evidence_maximum(x, y), abs=1e-6)


def test_logme_ranks_by_signal() -> None:
    x, labels = problem(2_000, 20, signal=2.0)
    rng = np.random.default_rng(5)
    scores = [
        logme(*streamed(x + noise * rng.standard_normal(x.shape), labels)).value
        for noise in (0.0, 0.5, 2.0, 10.0)
    ]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize(("n", "d"), [(300, 8), (30, 60)])
def test_regularised_h_score_by_its_formula(n: int, d: int) -> None:
    x, labels = problem(n, d)
    fitted = LedoitWolf().fit(x)
    expected = []
    for y in labels.T:
        means = np.where(y[:, None], x[y].mean(axis=0), x[~y].mean(axis=0))
        between = (1 - fitted.shrinkage_) * np.cov(means.T, bias=True)
        expected.append(np.trace(np.linalg.inv(fitted.covariance_) @ between))
    found = regularised_h_score(*streamed(x, labels)).value
    assert found == pytest.approx(np.mean(expected), rel=1e-8)


def test_constant_classes_are_left_out() -> None:
    x, labels = problem(200, 6)
    padded = np.concatenate([labels, np.ones((200, 1), bool), np.zeros((200, 2), bool)], axis=1)
    for score in (logme, regularised_h_score):
        assert score(*streamed(x, padded)) == score(*streamed(x, labels))


@pytest.mark.parametrize("score", [logme, regularised_h_score])
def test_what_does_not_apply_is_no_number(score: object) -> None:
    assert callable(score)
    x, labels = problem(100, 6)
    for constant in (np.ones_like(labels), np.zeros_like(labels), labels[:, :0]):
        assert score(*streamed(x, constant)) == Score.not_applicable(
            "every class is constant: all rows have it or none has"
        )
    single = score(*streamed(x[:1], labels[:1]))
    assert single == Score.not_applicable("1 row cannot be scored")
    empty = streamed(np.zeros((100, 6)), labels)
    assert score(*empty).value is None
    assert score(*empty).reason
    with pytest.raises(FeaturesError, match="are not of the same rows"):
        score(streamed(x, labels)[0], streamed(x[1:], labels[1:])[1])


def test_too_few_rows() -> None:
    _, labels = problem(20, 30)
    exact = np.concatenate([labels, np.random.default_rng(0).random((20, 3))], axis=1)
    found = logme(*streamed(exact.astype(float), labels))
    assert found.value is None
    assert found.reason.startswith("features fit the labels of class 0 exactly")


def test_scores_never_hold_nan() -> None:
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(ValueError, match="a number or has a reason"):
            Score(float(value))
    with pytest.raises(ValueError, match="a number or has a reason"):
        Score(None)
    with pytest.raises(ValueError, match="a number or has a reason"):
        Score(1.0, "but")


def test_h_score_of_features_that_shrinkage_leaves_nothing_of() -> None:
    """Whitened ones: their covariance is the identity already."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, 6))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T
    labels = (white[:, :2] > 0.5).astype(np.float64)
    moments, sums = Moments(6), ClassSums(6, 2)
    moments.add(white)
    sums.add(white, labels)
    assert "shrinkage leaves nothing" in regularised_h_score(moments, sums).reason


@pytest.mark.parametrize("dim", [8, 64])
def test_logme_of_any_features_that_know_nothing_is_that_of_noise(dim: int) -> None:
    """Where the best weights are 0, the precisions' ratio grows for ever."""
    rng = np.random.default_rng(6)
    for _ in range(10):
        x = rng.standard_normal((3_000, dim))
        labels = (rng.random((3_000, 1)) < 0.1).astype(np.float64)
        moments, sums = Moments(dim), ClassSums(dim, 1)
        moments.add(x)
        sums.add(x, labels)
        found = logme(moments, sums).value
        assert found is not None
        noise = -0.5 * (np.log(2 * np.pi * labels.mean()) + 1)
        assert noise - 1e-9 <= found < noise + 0.01
