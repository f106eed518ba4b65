"""Moments of features, streamed: all that most scores need, in memory that rows do not enlarge.

Rows come in blocks. Each block is centred on its own mean and its product is added in float64 by
the pairwise update of Chan, Golub and LeVeque (Algorithms for computing the sample variance, The
American Statistician 1983). Products of wide float32 blocks are taken in float32, which is twice as
fast. What rounding remains is relative to the features' spread, not to their mean: about 1e-7 in
float32, 1e-14 in float64; the cosines of angles of ReLU-like features, 12,000 x 1024, differ by
1e-7 between the two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dger

from avfeat.collocate.scores.block import Block, Float64s, Floats, check_finite, flat
from avfeat.errors import FeaturesError

# Rows multiplied at a time: enough that adding the [d, d] product costs little beside making it,
# and few enough that a block as long as a data set needs no second copy of it.
_ROWS = 8192
# Products of fewer cells than 512 x 512 cost little in float64.
_WIDE = 1 << 18


class CrossMoments:
    """Sums over rows x [p] and y [q] that belong together, such as those of the same segments.

    Attributes
    ----------
    count
        Rows, n.
    means
        float64 [p] and [q].
    scatter
        float64 [p, q]: the sum of (x - mean) (y - mean)^T.
    energies
        The sums of |x - mean|^2 and of |y - mean|^2.
    thirds
        float64 [p] and [q]: the sums of |y - mean|^2 (x - mean) and of |x - mean|^2 (y - mean).
    fourth
        The sum of |x - mean|^2 |y - mean|^2, which Ledoit and Wolf's shrinkage needs.
    precision
        Machine epsilon of the coarsest blocks that came.
    own
        Rows are paired with themselves: x is y.
    """

    def __init__(self, first: int, second: int, *, own: bool = False) -> None:
        self.own = own
        self.count = 0
        self.means: tuple[Float64s, Float64s] = (np.zeros(first), np.zeros(second))
        self.scatter: Floats = np.zeros((first, second))
        self.energies = (0.0, 0.0)
        self.thirds: tuple[Float64s, Float64s] = (np.zeros(first), np.zeros(second))
        self.fourth = 0.0
        self.precision = float(np.finfo(np.float64).eps)

    def add(self, first: Floats, second: Floats) -> None:
        """Add rows.

        Its cost per call is O(n p q + p q): blocks of thousands of rows are fast.

        Parameters
        ----------
        first, second
            float32 or float64 [n, p] and [n, q], or [k, T, p] and [k, T, q]; the same array where
            `own`.

        Raises
        ------
        FeaturesError
            If shapes do not fit, or a value is not finite; the message names row and feature.
        """
        width, height = self.scatter.shape
        if self.own:
            one = Block(width)
            for part in _parts(first, width):
                one.hold(part)
                self.add_block(one, one)
            return
        if first.shape[:-1] != second.shape[:-1]:
            raise FeaturesError(
                f"features {list(first.shape)} and {list(second.shape)} are not of the same "
                "segments"
            )
        one, other = Block(width), Block(height)
        for part, beside in zip(_parts(first, width), _parts(second, height), strict=True):
            one.hold(part)
            other.hold(beside)
            self.add_block(one, other)

    def add_block(self, first: Block, second: Block) -> None:
        """Add rows that are held, as `add` does; the same block twice where `own`."""
        if len(first) != len(second):
            raise FeaturesError(f"{len(first)} and {len(second)} rows are not of the same segments")
        if not len(first):
            return
        found = CrossMoments(0, 0, own=self.own)
        found.count = len(first)
        # Narrow products cost little in float64.
        wide = first.dim * second.dim >= _WIDE
        x, y = (one.centred(one.dtype if wide else np.float64) for one in (first, second))
        found.means = (x.mean, y.mean)
        # Cast where it is added.
        found.scatter = second.product(x.rows, y.rows)
        sums = [one.norms.sum(dtype=np.float64) for one in (x, y)]
        found.energies = (float(sums[0]), float(sums[1]))
        third = (x.norms @ y.rows).astype(np.float64)
        found.thirds = (third if self.own else (y.norms @ x.rows).astype(np.float64), third)
        found.fourth = float(x.norms.astype(np.float64) @ y.norms.astype(np.float64))
        found.precision = float(max(np.finfo(one.rows.dtype).eps for one in (x, y)))
        self.merge(found)

    def merge(self, other: CrossMoments) -> None:
        """Add the rows that another one has seen, as if they had come here."""
        if self.scatter.shape != other.scatter.shape:
            raise FeaturesError(
                f"moments of {list(self.scatter.shape)} and of {list(other.scatter.shape)} "
                "features cannot be merged"
            )
        count = self.count + other.count
        if other.count == 0:
            return
        if self.count == 0:
            # A block's scatter is in memory that is used again: this is a copy, in float64.
            self.scatter = other.scatter.astype(np.float64)
            self.count, self.means, self.energies = count, other.means, other.energies
            self.thirds, self.fourth = other.thirds, other.fourth
            self.precision = max(self.precision, other.precision)
            return
        share = other.count / count
        gaps = [theirs - ours for ours, theirs in zip(self.means, other.means, strict=True)]
        means = (self.means[0] + share * gaps[0], self.means[1] + share * gaps[1])
        mine, theirs = self._about(means), other._about(means)
        self.energies = (mine[0][0] + theirs[0][0], mine[0][1] + theirs[0][1])
        self.thirds = (mine[1][0] + theirs[1][0], mine[1][1] + theirs[1][1])
        self.fourth = mine[2] + theirs[2]
        self.scatter += other.scatter
        # One outer product for both moves, in place; BLAS counts the matrix by columns.
        columns = dger(self.count * share, gaps[1], gaps[0], a=self.scatter.T, overwrite_a=True)
        self.scatter = columns.T
        self.means = means
        self.count = count
        self.precision = max(self.precision, other.precision)

    def _about(
        self, means: tuple[Float64s, Float64s]
    ) -> tuple[tuple[float, float], tuple[Float64s, Float64s], float]:
        """Give energies, thirds and fourth about other means than the own ones.

        With x' = x + a and |x'|^2 = |x|^2 + 2 a.x + |a|^2, and so for y; sums of x and of y are 0.
        """
        n, (energy_x, energy_y), (third_x, third_y) = self.count, self.energies, self.thirds
        a, b = self.means[0] - means[0], self.means[1] - means[1]
        aa, bb = float(a @ a), float(b @ b)
        # In the scatter's precision: a block's is not copied for these small corrections.
        precision = np.result_type(self.scatter)
        moved_b = self.scatter @ b.astype(precision)
        moved_a = moved_b if self.own else a.astype(precision) @ self.scatter
        fourth = (
            self.fourth
            + 2 * float(b @ third_y + a @ third_x)
            + 4 * float(a @ moved_b)
            + bb * energy_x
            + aa * energy_y
            + n * aa * bb
        )
        thirds = (
            third_x + a * (energy_y + n * bb) + 2 * moved_b,
            third_y + b * (energy_x + n * aa) + 2 * moved_a,
        )
        return (energy_x + n * aa, energy_y + n * bb), thirds, fourth


class Moments:
    """Mean and second moments of rows of features; mergeable, O(d^2) memory.

    Example::

        moments = Moments(2048)
        for block in blocks:
            moments.add(block)
    """

    def __init__(self, dim: int) -> None:
        self.own = CrossMoments(dim, dim, own=True)

    def add(self, block: Floats) -> None:
        """Add rows, float32 or float64 [n, d] or [k, T, d]; see `CrossMoments.add`."""
        self.own.add(block, block)

    def add_block(self, block: Block) -> None:
        """Add rows that are held."""
        self.own.add_block(block, block)

    def merge(self, other: Moments) -> None:
        """Add the rows that another one has seen, as if they had come here."""
        self.own.merge(other.own)

    @property
    def count(self) -> int:
        """Rows seen."""
        return self.own.count

    @property
    def dim(self) -> int:
        """Features per row, d."""
        return len(self.mean)

    @property
    def mean(self) -> Float64s:
        """Mean of the rows, float64 [d]."""
        return self.own.means[0]

    @property
    def scatter(self) -> Float64s:
        """Sum of (x - mean) (x - mean)^T, float64 [d, d]."""
        return self.own.scatter.astype(np.float64, copy=False)

    @property
    def covariance(self) -> Float64s:
        """Scatter over the number of rows, float64 [d, d]."""
        return self.scatter / max(self.count, 1)

    def second(self, *, centred: bool) -> Float64s:
        """Gram matrix F F^T of the features as columns, float64 [d, d]; or that of F - mean."""
        if centred:
            return self.scatter
        found = np.outer(self.count * self.mean, self.mean)
        found += self.scatter
        return found

    def energy(self, *, centred: bool) -> float:
        """Sum of squares of all values: the squared Frobenius norm, the trace of `second`."""
        energy = self.own.energies[0]
        return energy if centred else energy + self.count * float(self.mean @ self.mean)

    def noise(self, *, centred: bool) -> float:
        """How large an eigenvalue of `second` rounding alone may make."""
        noise = self.own.precision * float(np.linalg.norm(self.scatter))
        # Rounding of the eigensolver, and of the mean, which is float64's.
        rounding = self.dim * float(np.finfo(np.float64).eps) * self.energy(centred=centred)
        return max(noise, rounding)


class ClassSums:
    """Sums of rows by class; classes may overlap. O(C d) memory, mergeable.

    Attributes
    ----------
    count
        Rows, n.
    positives
        Rows that have the class, int64 [C].
    sums
        Sum of those rows, float64 [C, d].
    """

    def __init__(self, dim: int, classes: int) -> None:
        self.count = 0
        self.positives: NDArray[np.int64] = np.zeros(classes, np.int64)
        self.sums: Float64s = np.zeros((classes, dim))

    def add(self, block: Floats, labels: NDArray[np.bool_] | Floats) -> None:
        """Add rows [n, d] with their labels [n, C], or [k, T, d] with [k, T, C]; 0 or 1, or bool.

        Raises
        ------
        FeaturesError
            If shapes do not fit, a value is not finite, or a label is neither 0 nor 1.
        """
        classes, dim = self.sums.shape
        if block.shape[:-1] != labels.shape[:-1] or labels.shape[-1] != classes:
            raise FeaturesError(
                f"labels {list(labels.shape)} do not fit features {list(block.shape)} and "
                f"{classes} classes"
            )
        flat = labels.reshape(int(np.prod(labels.shape[:-1])), classes)
        has = flat == 1
        if not np.array_equal(has, flat):
            raise FeaturesError("labels must be 0 or 1")
        start = 0
        for part in _parts(block, dim):
            chosen = has[start : start + len(part)]
            # float64: the difference of class means is small beside the means.
            self.sums += chosen.T.astype(np.float64) @ part.astype(np.float64)
            start += len(part)
        self.count += len(has)
        self.positives += has.sum(axis=0)

    def merge(self, other: ClassSums) -> None:
        """Add the rows that another one has seen, as if they had come here."""
        if self.sums.shape != other.sums.shape:
            raise FeaturesError(
                f"class sums {list(self.sums.shape)} and {list(other.sums.shape)} cannot be merged"
            )
        self.count += other.count
        self.positives = self.positives + other.positives
        self.sums = self.sums + other.sums


def _parts(block: Floats, dim: int) -> Iterator[Floats]:
    """Cut rows into parts that are multiplied at once, after checking them."""
    rows = flat(block, dim)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        if not np.isfinite(part).all():
            check_finite(rows)
        yield part
