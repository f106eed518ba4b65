"""Cosine similarities among segments, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_CELLS = 1 << 22  # similarities held at a time: 16 MB, and tables of booleans beside them


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows [n, d] to length 1; a row of zeros stays, and is like nothing."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def slices(rows: int, columns: int) -> Iterator[slice]:
    """Cut a [rows, columns] table into ranges of rows whose cells fit in memory."""
    step = max(_CELLS // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def sample(count: int, limit: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Choose at most `limit` of `count` indices, ascending, each as likely as another."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(count, size=min(count, limit), replace=False))
