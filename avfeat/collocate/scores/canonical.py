"""A space that audio and visual features share, fitted from moments.

Raw features of two networks have no cosine with each other. Canonical correlation analysis
(Hotelling: Relations between two sets of variates, Biometrika 1936) finds the directions in which
they do; to be honest it is fitted on the training split and used on another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular, svd

from avfeat.collocate.scores.block import check_finite
from avfeat.collocate.scores.moments import CrossMoments, Moments
from avfeat.collocate.scores.shrinkage import ledoit_wolf, shrunk
from avfeat.errors import FeaturesError
from avfeat.words import counted

Float64s = NDArray[np.float64]

# A direction counts by its correlation to this power, so that those that correlate by chance hardly
# count. Gong, Ke, Isard, Lazebnik (A multi-view embedding space for modeling internet images, tags,
# and their semantics, IJCV 2014) take the fourth power too, of 1 + correlation.
_POWER = 4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CommonSpace:
    """Maps of both modalities into one space of q dimensions.

    Attributes
    ----------
    correlations
        Canonical correlations of the split it was fitted on, shrunk, descending; float64 [q].
    means
        float64 [d_a] and [d_v].
    directions
        float64 [d_a, q] and [d_v, q]: canonical directions of unit variance.
    """

    correlations: Float64s
    means: tuple[Float64s, Float64s]
    directions: tuple[Float64s, Float64s]

    def audio(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map audio features, float32 [..., d_a] to [..., q]."""
        return self._map(rows, 0)

    def visual(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map visual features, float32 [..., d_v] to [..., q]."""
        return self._map(rows, 1)

    def _map(self, rows: NDArray[np.float32], modality: int) -> NDArray[np.float32]:
        mean, directions = self.means[modality], self.directions[modality]
        if rows.shape[-1] != len(mean):
            raise FeaturesError(f"{rows.shape[-1]} features, of {len(mean)} that were fitted")
        flat = rows.reshape(-1, len(mean))
        check_finite(flat)
        weighted = directions * self.correlations**_POWER
        return ((flat - mean) @ weighted).astype(np.float32).reshape(*rows.shape[:-1], -1)


def whitener(moments: Moments) -> Float64s:
    """Cholesky factor of the covariance, shrunk as Ledoit and Wolf's: float64 [d, d], lower.

    Raises
    ------
    FeaturesError
        If there are fewer than two rows, features are constant, or the covariance is singular.
    """
    if moments.count < 2 or moments.energy(centred=True) <= 0:
        raise FeaturesError("a common space needs two rows or more, and features that vary")
    covariance = shrunk(moments, ledoit_wolf(moments))
    try:
        factor: Float64s = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError as error:
        raise FeaturesError(
            f"{counted(moments.count, 'row')} do not determine a common space: some direction of "
            "the features does not vary"
        ) from error
    return factor


def fit_common_space(
    audio: Moments,
    visual: Moments,
    cross: CrossMoments,
    *,
    whiteners: tuple[Float64s, Float64s] | None = None,
    dims: int = 128,
) -> CommonSpace:
    """Fit canonical correlations with covariances shrunk as Ledoit and Wolf's.

    Parameters
    ----------
    audio, visual, cross
        Moments of the same rows, those of the training split.
    whiteners
        Of audio and visual, where several spaces share them.
    dims
        Dimensions of the space, at most; there are no more than the narrower modality has.

    Raises
    ------
    FeaturesError
        If there are fewer than two rows, a modality is constant, or its covariance is singular.
    """
    lower = (whitener(audio), whitener(visual)) if whiteners is None else whiteners
    half = solve_triangular(lower[0], cross.scatter / cross.count, lower=True)
    white = solve_triangular(lower[1], half.T, lower=True).T
    left, correlations, right = svd(white, full_matrices=False)
    dims = min(dims, len(correlations))
    return CommonSpace(
        correlations=correlations[:dims],
        means=(audio.mean, visual.mean),
        directions=(
            solve_triangular(lower[0], left[:, :dims], lower=True, trans="T"),
            solve_triangular(lower[1], right[:dims].T, lower=True, trans="T"),
        ),
    )
