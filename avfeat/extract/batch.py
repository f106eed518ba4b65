"""Batches of one fixed shape, packed across the clips of a unit."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from avfeat.stores.unitrows import UnitRows

Forward = Callable[[torch.Tensor], torch.Tensor]


class Batcher:
    """Collects a unit's items for one backbone and runs them through the network.

    Every forward pass sees `batch_size` items; the last batch of a unit is padded. So a unit's
    rows depend on its clips and the recipe alone.

    Parameters
    ----------
    forward
        Items [batch_size, ...] to float32 rows [batch_size, *row_shape].
    batch_size
        Items per forward pass.
    rows
        Where rows go.
    pool
        Consecutive items of a clip whose rows are averaged to one row; an incomplete group at the
        end of a clip gives none.

    Attributes
    ----------
    seconds, padded
        Time spent in `forward`, and items that were only padding.
    not_finite
        Positions of clips with a NaN or an infinity in their rows.
    """

    def __init__(self, forward: Forward, batch_size: int, rows: UnitRows, *, pool: int = 1) -> None:
        self.seconds = 0.0
        self.padded = 0
        self.not_finite: set[int] = set()
        self._forward = forward
        self._batch_size = batch_size
        self._rows = rows
        self._pool = pool
        # Of each clip with an incomplete group: its rows and their times.
        self._groups: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(self, position: int, items: np.ndarray, times: np.ndarray) -> None:
        """Add items of the clip at `position` in the unit, and run the batches that are full."""
        self._waiting.append((position, items, times))
        self._count += len(items)
        while self._count >= self._batch_size:
            self._run()

    def flush(self) -> None:
        """Run what is left, padded to a whole batch."""
        if self._count:
            self._run()

    def _run(self) -> None:
        taken: list[tuple[int, np.ndarray, np.ndarray]] = []
        room = self._batch_size
        while self._waiting and room:
            position, items, times = self._waiting.pop(0)
            taken.append((position, items[:room], times[:room]))
            if len(items) > room:
                self._waiting.insert(0, (position, items[room:], times[room:]))
            room -= len(taken[-1][1])
        self._count -= self._batch_size - room
        batch = np.concatenate([items for _, items, _ in taken])
        if room:
            self.padded += room
            batch = np.concatenate([batch, np.zeros((room, *batch.shape[1:]), dtype=batch.dtype)])
        started = time.perf_counter()
        rows = self._forward(torch.from_numpy(batch)).numpy()
        self.seconds += time.perf_counter() - started
        first = 0
        for position, items, times in taken:
            part = rows[first : first + len(items)]
            first += len(items)
            if not np.isfinite(part).all():
                self.not_finite.add(position)
            if self._pool > 1:
                part, times = self._pooled(position, part, times)
            self._rows.append(position, part, times)

    def _pooled(
        self, position: int, rows: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Average the groups of the clip at `position` that are complete now."""
        if position in self._groups:
            kept, stamps = self._groups.pop(position)
            rows, times = np.concatenate([kept, rows]), np.concatenate([stamps, times])
        count = len(rows) // self._pool
        used = count * self._pool
        if used < len(rows):
            self._groups[position] = (rows[used:].copy(), times[used:].copy())
        grouped = rows[:used].reshape(count, self._pool, *rows.shape[1:])
        means = grouped.mean(axis=1, dtype=np.float64).astype(np.float32)
        return means, times[:used].reshape(count, self._pool).mean(axis=1)
