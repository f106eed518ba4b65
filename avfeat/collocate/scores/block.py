"""Rows of features as they are multiplied: checked, centred once, in memory that is used again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from avfeat.errors import FeaturesError

Floats = NDArray[np.float32] | NDArray[np.float64]
Float64s = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Centred:
    """Rows less their mean.

    Attributes
    ----------
    mean
        float64 [d].
    rows
        float32 or float64 [n, d].
    norms
        Squared length of each, [n].
    """

    mean: Float64s
    rows: Floats
    norms: Floats


class Block:
    """Some thousand rows at a time, centred once for all products that they are in.

    Its arrays are used again for the next rows: fresh ones of tens of megabytes take as long to
    come by as to fill. What it gave for the rows before is then gone.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._rows: Floats = np.empty((0, dim), np.float32)
        self._centred: dict[np.dtype[Any], Centred] = {}
        self._arrays: dict[tuple[str, np.dtype[Any]], Floats] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows held."""
        return self._rows.dtype

    def hold(self, rows: Floats) -> None:
        """Take finite rows, float32 or float64 [n, d] or [k, T, d], in place of those held."""
        self._rows = flat(rows, self.dim)
        self._centred.clear()

    def centred(self, dtype: DTypeLike) -> Centred:
        """Split rows into their mean and the rest, in float64 or their own precision."""
        dtype = np.dtype(dtype)
        if dtype not in self._centred:
            mean = self._rows.mean(axis=0, dtype=np.float64)
            high = mean.astype(dtype)
            rest = np.subtract(self._rows, high, out=self._array("rest", dtype, self._rows.shape))
            # What the mean lost by rounding, so that large means cost no digits.
            rest -= (mean - high).astype(dtype)
            self._centred[dtype] = Centred(mean, rest, np.einsum("nd,nd->n", rest, rest))
        return self._centred[dtype]

    def product(self, first: Floats, second: Floats) -> Floats:
        """Multiply: first^T second, [p, q]; in an array of this block."""
        dtype = np.result_type(first, second)
        out = self._array("product", dtype, (first.shape[1], second.shape[1]))
        found: Floats = np.matmul(first.T, second, out=out)
        return found

    def _array(self, name: str, dtype: np.dtype[Any], shape: tuple[int, int]) -> Floats:
        size = shape[0] * shape[1]
        held = self._arrays.get((name, dtype))
        if held is None or held.size < size:
            held = self._arrays[name, dtype] = np.empty(size, dtype)
        return held[:size].reshape(shape)


def check_finite(rows: Floats) -> None:
    """Refuse features that are not finite.

    Raises
    ------
    FeaturesError
        Naming the first such row and feature of rows [n, d], both counted from 0.
    """
    finite = np.isfinite(rows)
    if not finite.all():
        row, feature = np.argwhere(~finite)[0]
        raise FeaturesError(f"feature {feature} of row {row} is {rows[row, feature]}")


def flat(block: Floats, dim: int) -> Floats:
    """Take rows one below the other, [n, d], of blocks [n, d] or [k, T, d].

    Raises
    ------
    FeaturesError
        If they are not rows of `dim` features, or neither float32 nor float64.
    """
    if block.ndim < 2 or block.shape[-1] != dim:
        raise FeaturesError(f"features {list(block.shape)} are not rows of {dim} features")
    if block.dtype not in (np.float32, np.float64):
        raise FeaturesError(f"features are {block.dtype}, not float32 or float64")
    return block.reshape(-1, dim)
