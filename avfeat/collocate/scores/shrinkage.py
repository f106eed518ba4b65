"""Shrinkage of a covariance that few rows determine badly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.scores.moments import Moments


def ledoit_wolf(moments: Moments) -> float:
    """Find the share of the identity in the best estimate of the covariance, in [0, 1].

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal
    of Multivariate Analysis 2004; as ``sklearn.covariance.ledoit_wolf_shrinkage``, from moments.
    It takes rows as independent; segments of one clip are not, so that it shrinks too little rather
    than too much.
    """
    if moments.count == 0:
        return 1.0
    size = float(np.vdot(moments.scatter, moments.scatter)) / moments.count**2
    variance = moments.energy(centred=True) / moments.count / moments.dim
    spread = max(moments.own.fourth / moments.count - size, 0.0) / moments.count
    distance = size - moments.dim * variance**2
    return min(spread / distance, 1.0) if distance > 0 else 1.0


def shrunk(moments: Moments, share: float) -> NDArray[np.float64]:
    """Covariance with a share of it replaced by the identity of the same trace, float64 [d, d]."""
    count = max(moments.count, 1)
    covariance = (1 - share) / count * moments.scatter
    variance = moments.energy(centred=True) / count / moments.dim
    covariance[np.diag_indices(moments.dim)] += share * variance
    return covariance
