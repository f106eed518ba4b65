"""How well a linear model on features could tell labels, without fitting one.

Labels here are sets, of which these scores know nothing: each class is one problem of its own, and
the score is the mean over the classes that some rows have and some have not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from avfeat.collocate.scores.moments import ClassSums, Moments
from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.shrinkage import ledoit_wolf, shrunk
from avfeat.errors import FeaturesError
from avfeat.words import counted

Float64s = NDArray[np.float64]

# Of LogME's fixed point. Tens suffice where features explain a label; where they do not, the ratio
# may grow for ever, and the evidence is that of its limit long before.
_ITERATIONS = 1000
_CONVERGED = 1e-10  # relative change of the ratio of its two precisions
_ALL = 1 - 1e-9  # share of the identity that leaves nothing of a covariance
_EXACT = 1e-12  # residual, of the label's energy, that leaves the evidence unbounded


def logme(moments: Moments, sums: ClassSums) -> Score:
    """Logarithm of maximum evidence per row, mean over classes; greater is better.

    You, Liu, Wang, Long: LogME: practical assessment of pre-trained models for transfer learning,
    ICML 2021: the evidence of a label under a linear model with Gaussian prior and noise, at the
    precisions alpha and beta that maximise it. As there, features are taken as they are and there
    is no intercept.

    Parameters
    ----------
    moments, sums
        Of the same rows: segments with dense labels, or clips' mean features with weak ones.
    """
    chosen, reason = _classes(moments, sums)
    if reason:
        return Score.not_applicable(reason)
    if moments.energy(centred=False) <= 0:
        return Score.not_applicable("all features are zero")
    # numpy's, which takes a third of the time of scipy's here.
    values, vectors = np.linalg.eigh(moments.second(centred=False))
    real = values > moments.noise(centred=False)
    # Of each label, its energy along each left singular vector of the n x d feature matrix.
    along = np.square(sums.sums[chosen] @ vectors[:, real]) / values[real]
    evidences = []
    for index, class_ in enumerate(chosen):
        evidence = _evidence(
            values[real], along[index], float(sums.positives[class_]), moments.count, moments.dim
        )
        if math.isinf(evidence):
            return Score.not_applicable(
                f"features fit the labels of class {class_} exactly: the evidence has no maximum "
                f"({counted(moments.count, 'row')}, {counted(moments.dim, 'feature')})"
            )
        evidences.append(evidence)
    return Score(float(np.mean(evidences)))


def _evidence(values: Float64s, along: Float64s, energy: float, count: int, dim: int) -> float:
    """Maximum log evidence per row of one label; infinite if there is no maximum.

    Parameters
    ----------
    values
        Positive eigenvalues of the d x d Gram matrix, float64 [r].
    along
        Energy of the label along the singular vectors, float64 [r].
    energy, count, dim
        |y|^2; rows; features.
    """
    outside = max(energy - float(along.sum()), 0.0)
    alpha = beta = 1.0
    ratio = 0.0
    for _ in range(_ITERATIONS):
        if abs(alpha / beta - ratio) <= _CONVERGED * ratio:
            break
        ratio = alpha / beta
        kept = values / (values + ratio)
        weight = float((along * kept**2 / values).sum())
        residual = float((along * (1 - kept) ** 2).sum()) + outside
        if residual <= _EXACT * energy:
            return math.inf
        effective = float(kept.sum())
        beta = (count - effective) / residual
        if beta <= 0:
            return math.inf
        if weight <= 0:
            # The label lies across all features: the evidence grows with alpha, towards that of
            # noise alone, which it has without features.
            return 0.5 * (math.log(count / (2 * math.pi * energy)) - 1)
        alpha = effective / weight
    determinant = float(np.log(alpha + beta * values).sum()) + (dim - len(values)) * np.log(alpha)
    total = (
        count * np.log(beta / (2 * np.pi))
        + dim * np.log(alpha)
        - beta * residual
        - alpha * weight
        - determinant
    )
    return float(total / (2 * count))


def regularised_h_score(moments: Moments, sums: ClassSums) -> Score:
    """H-score with a shrunk covariance, mean over classes; also for fewer rows than features.

    Bao et al. (An information-theoretic approach to transferability in task transfer learning, ICIP
    2019) have tr(cov(f)^-1 cov(E[f|y])), here for the two values of each class. Ibrahim,
    Ponomareva, Mazumder (Newer is not always better: rethinking transferability metrics, their
    peculiarities, stability and performance, 2021) shrink: tr(cov_a(f)^-1 (1 - a) cov(E[f|y])),
    with Ledoit and Wolf's share a of the identity.
    """
    chosen, reason = _classes(moments, sums)
    if reason:
        return Score.not_applicable(reason)
    share = ledoit_wolf(moments)
    if share >= _ALL:
        return Score.not_applicable(
            "features vary alike in all directions, as far as their number tells: shrinkage leaves "
            "nothing of them"
        )
    gaps = _class_gaps(moments, sums, chosen)
    try:
        factor = cho_factor(shrunk(moments, share), overwrite_a=True, check_finite=False)
    except LinAlgError:
        return Score.not_applicable("features hardly vary: their covariance cannot be inverted")
    solved = cho_solve(factor, gaps.T, check_finite=False)
    explained = np.einsum("cd,dc->c", gaps, solved)
    return Score(float(((1 - share) * _between(sums, chosen) * explained).mean()))


def _classes(moments: Moments, sums: ClassSums) -> tuple[NDArray[np.int64], str]:
    """Find the classes that have both values, or say why there are none."""
    if moments.count != sums.count or moments.dim != sums.sums.shape[1]:
        raise FeaturesError(
            f"moments of {moments.count} rows of {moments.dim} features and class sums of "
            f"{sums.count} rows of {sums.sums.shape[1]} are not of the same rows"
        )
    if moments.count < 2:
        return np.zeros(0, np.int64), f"{counted(moments.count, 'row')} cannot be scored"
    chosen = np.flatnonzero((sums.positives > 0) & (sums.positives < sums.count))
    if not len(chosen):
        return chosen, "every class is constant: all rows have it or none has"
    return chosen, ""


def _class_gaps(moments: Moments, sums: ClassSums, chosen: NDArray[np.int64]) -> Float64s:
    """Mean of the rows with each class less that of the rows without it, float64 [classes, d]."""
    positives = sums.positives[chosen, None]
    gaps: Float64s = (sums.sums[chosen] / positives - moments.mean) * (
        sums.count / (sums.count - positives)
    )
    return gaps


def _between(sums: ClassSums, chosen: NDArray[np.int64]) -> Float64s:
    """Variance of each label, p (1 - p): what turns a squared gap into between-class variance."""
    share = sums.positives[chosen] / sums.count
    variance: Float64s = share * (1 - share)
    return variance
