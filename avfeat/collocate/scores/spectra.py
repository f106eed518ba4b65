"""Leading left singular vectors of a feature matrix, through its Gram matrix.

The d x n matrix F of features as columns and its d x d Gram matrix F F^T have the same left
singular vectors; its singular values are the roots of the Gram matrix's eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.blas import dsymv
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from avfeat.collocate.scores.moments import Moments
from avfeat.collocate.scores.result import Score
from avfeat.words import counted

Float64s = NDArray[np.float64]

# A resample's leading vectors are sought among this many more than are asked for.
_SPARE = 3
_LEAST_SPARE = 16

# Of fewer features the whole decomposition takes no time.
_WIDE = 256
# Of the largest eigenvalue: what rounding may leave above the least one found.
_SLACK = 1e-12


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Resampled:
    """Moments of G disjoint groups of clips, in coordinates of m vectors.

    Attributes
    ----------
    counts
        Rows of each group, float64 [G].
    means
        Mean of each group, less that of all rows where those are centred; float64 [G, m].
    seconds
        Second moments about the same origin, float64 [G, m, m].
    """

    counts: Float64s
    means: Float64s
    seconds: Float64s


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spectrum:
    """Leading singular values and left singular vectors of a feature matrix.

    Attributes
    ----------
    k
        Vectors that were asked for; a few more are kept.
    values
        Squared singular values, descending, float64 [m].
    vectors
        Left singular vectors, float64 [d, m], of arbitrary sign.
    energy
        The sum of all d squared singular values.
    clips
        Independent observations: clips, not segments.
    centred
        Of the features less their mean.
    noise
        Squared singular values up to this may be rounding.
    groups
        What a bootstrap over groups of clips needs; None before `with_groups`.
    reason
        Why there are no k vectors, or empty. No arrays then.
    """

    k: int
    values: Float64s
    vectors: Float64s
    energy: float
    clips: int
    centred: bool
    noise: float
    groups: Resampled | None = None
    reason: str = ""

    @property
    def threshold(self) -> float:
        """Relative gap below which a sample does not determine a vector: sqrt(2 / clips).

        North's rule of thumb: an eigenvalue's relative sampling error is sqrt(2 / N), and where
        neighbours are closer than that, the sample's vectors are mixtures of both (North, Bell,
        Cahalan, Moeng: Sampling errors in the estimation of empirical orthogonal functions, Monthly
        Weather Review 1982).
        """
        return float(np.sqrt(2 / self.clips))

    @property
    def gaps(self) -> Float64s:
        """Distance of each squared singular value to its nearest neighbour, relative to itself.

        float64 [k]; 0 for those that may be rounding.
        """
        values = np.maximum(self.values, 0.0)
        # More than k are kept, unless there are no more.
        steps = np.concatenate([[np.inf], values[:-1] - values[1:], [np.inf]])
        nearest = np.minimum(steps[:-1], steps[1:])[: self.k]
        heads = values[: self.k]
        real = heads > self.noise
        gaps = np.divide(nearest, heads, out=np.zeros_like(heads), where=real)
        # A one-dimensional space has one vector and no neighbours.
        capped: Float64s = np.minimum(gaps, 1.0)
        return capped

    @property
    def last_gap(self) -> float:
        """Distance of the k-th squared singular value to the next, relative to itself.

        What parts the span of the first k vectors from the rest; 0 where the k-th may be rounding.
        """
        values = np.maximum([*self.values[self.k - 1 : self.k + 1], 0.0], 0.0)
        return float(1 - values[1] / values[0]) if values[0] > self.noise else 0.0

    def energy_ratio(self, first: int = 1) -> Score:
        """Share of the spectral energy in the `first` largest singular values, in (0, 1].

        BSP (Chen, Wang, Long, Wang: Transferability vs. discriminability, ICML 2019) finds that
        features whose first singular values dominate transfer well and discriminate badly, and
        penalises the squares of the k largest, k = 1. Over the sum of all squares these compare
        across backbones of any scale and width.
        """
        if self.reason:
            return Score.not_applicable(self.reason)
        if not 1 <= first <= self.k:
            return Score.not_applicable(f"{first} singular values of {self.k} that are known")
        return Score(float(np.clip(self.values[:first], 0, None).sum() / self.energy))

    def with_groups(self, projected: Sequence[Moments]) -> Spectrum:
        """Add what a bootstrap over groups of clips needs.

        Groups of d x d moments would be most of the memory. Those of rows projected on the
        `vectors` are m x m, and need a second pass over the rows.

        Parameters
        ----------
        projected
            Moments of ``rows @ vectors``, m numbers each, of disjoint groups of whole clips that
            together are all rows: 10 to 20 groups, clips dealt out in turn.
        """
        counts = np.array([float(group.count) for group in projected])
        means = np.array([group.mean for group in projected])
        if self.centred:
            means = means - counts @ means / counts.sum()
        about = np.einsum("g,gi,gj->gij", counts, means, means)
        seconds = np.array([group.scatter for group in projected]) + about
        return replace(self, groups=Resampled(counts=counts, means=means, seconds=seconds))


def spectrum(moments: Moments, *, k: int, clips: int, centred: bool) -> Spectrum:
    """Find the leading left singular vectors of the features that moments were taken of.

    Parameters
    ----------
    moments
        Of all rows.
    k
        Vectors that will be compared, at least 1.
    clips
        Clips that the rows come from; their segments are not independent.
    centred
        Take the mean off; without that the first vector of non-negative features is nearly the
        direction of their mean.
    """
    reason = _reason(moments, k, clips, centred)
    if reason:
        none = np.zeros(0)
        return Spectrum(
            k=k,
            values=none,
            vectors=np.zeros((moments.dim, 0)),
            energy=moments.energy(centred=centred),
            clips=clips,
            centred=centred,
            noise=0.0,
            reason=reason,
        )
    kept = min(moments.dim, k + max(_SPARE * k, _LEAST_SPARE))
    values, vectors = _leading(moments.second(centred=centred), kept)
    return Spectrum(
        k=k,
        values=values[::-1],
        vectors=np.ascontiguousarray(vectors[:, ::-1]),
        energy=moments.energy(centred=centred),
        clips=clips,
        centred=centred,
        noise=moments.noise(centred=centred),
    )


def _leading(gram: Float64s, count: int) -> tuple[Float64s, Float64s]:
    """Find the largest eigenvalues, ascending, and their vectors, to machine precision.

    Of wide matrices by Lanczos iterations (ARPACK), which take a fiftieth of the time that bringing
    the whole matrix to tridiagonal form does. They may miss one of several equal eigenvalues, so
    what they leave is looked at; what does not converge is decomposed in full.
    """
    dim = len(gram)
    if dim >= _WIDE:
        start = np.random.default_rng(0).standard_normal((2, dim))

        def times(x: Float64s) -> Float64s:
            product: Float64s = dsymv(1.0, gram.T, x)  # by columns, as BLAS has it: no copy
            return product

        def operator(times: Callable[[Float64s], Float64s]) -> LinearOperator:
            return LinearOperator(gram.shape, matvec=times, dtype=gram.dtype)

        try:
            values, vectors = eigsh(operator(times), k=count, which="LA", v0=start[0])
            rest = operator(lambda x: times(x) - vectors @ (values * (vectors.T @ x)))
            (left,) = eigsh(rest, k=1, which="LA", v0=start[1], return_eigenvectors=False)
        except ArpackError:
            left = np.inf
        if left <= values.min() + _SLACK * values.max():
            order = np.argsort(values)
            return values[order], vectors[:, order]
    found: tuple[Float64s, Float64s] = eigh(
        gram, subset_by_index=[dim - count, dim - 1], check_finite=False
    )
    return found


def _reason(moments: Moments, k: int, clips: int, centred: bool) -> str:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if moments.dim < k:
        return f"{moments.dim} features have no {k} singular vectors"
    if clips <= k or moments.count <= k:
        few = min((clips, "clip"), (moments.count, "segment"))
        return f"{counted(*few)} cannot determine {k} singular vectors"
    if moments.energy(centred=centred) <= 0:
        return "all features are constant" if centred else "all features are zero"
    return ""
