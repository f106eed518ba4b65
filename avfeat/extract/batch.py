"""Batches of one fixed shape, packed across the clips of a unit, and what becomes of their rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from avfeat.stores.unitrows import UnitRows

Forward = Callable[[torch.Tensor], Callable[[], torch.Tensor]]
"""Starts on a batch of items and returns what waits for its rows; see `Extractor.start`."""


class Part(NamedTuple):
    """Items that follow one another in a batch: position of their clip in the unit, and times."""

    position: int
    times: np.ndarray


class Batch(NamedTuple):
    """What one forward pass takes.

    Attributes
    ----------
    backbone
        Name of the backbone.
    items
        [batch_size, *item_shape]; zeros after the last part.
    parts
        Whose items these are, in order.
    """

    backbone: str
    items: np.ndarray
    parts: tuple[Part, ...]

    @property
    def used(self) -> int:
        """Items that are not padding."""
        return sum(len(part.times) for part in self.parts)


class Packer:
    """Packs a unit's items for one backbone into batches.

    Every batch has `batch_size` items; the last one of a unit is padded. So a unit's rows depend on
    its clips and the recipe alone.
    """

    def __init__(self, backbone: str, batch_size: int) -> None:
        self._backbone = backbone
        self._size = batch_size
        self._waiting: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._count = 0

    def add(self, position: int, items: np.ndarray, times: np.ndarray) -> list[Batch]:
        """Add items of the clip at `position` in the unit; return the batches that are full."""
        self._waiting.append((position, items, times))
        self._count += len(items)
        return [self._pack() for _ in range(self._count // self._size)]

    def finish(self) -> list[Batch]:
        """Return what is left, padded to a whole batch."""
        return [self._pack()] if self._count else []

    def _pack(self) -> Batch:
        parts: list[Part] = []
        batch = np.empty((self._size, *self._waiting[0][1].shape[1:]), self._waiting[0][1].dtype)
        filled = 0
        while self._waiting and filled < self._size:
            position, items, times = self._waiting.popleft()
            room = self._size - filled
            if len(items) > room:
                self._waiting.appendleft((position, items[room:], times[room:]))
                items, times = items[:room], times[:room]
            batch[filled : filled + len(items)] = items
            filled += len(items)
            parts.append(Part(position, times))
        batch[filled:] = 0
        self._count -= filled
        return Batch(self._backbone, batch, tuple(parts))


class RowSink:
    """Takes the rows of a unit's batches, in order, and lays them down by clip.

    Parameters
    ----------
    rows
        Where they go.
    pool
        Consecutive items of a clip whose rows are averaged to one row; an incomplete group at the
        end of a clip gives none.

    Attributes
    ----------
    not_finite
        Positions of clips with a NaN or an infinity in their rows.
    """

    def __init__(self, rows: UnitRows, *, pool: int = 1) -> None:
        self.rows = rows
        self.not_finite: set[int] = set()
        self._pool = pool
        # Of each clip with an incomplete group: its rows and their times.
        self._groups: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, rows: np.ndarray, parts: tuple[Part, ...]) -> None:
        """Add the float32 rows of a batch; those after its last part are padding."""
        first = 0
        for position, times in parts:
            part = rows[first : first + len(times)]
            first += len(times)
            if not np.isfinite(part).all():
                self.not_finite.add(position)
            if self._pool > 1:
                part, times = self._pooled(position, part, times)
            self.rows.append(position, part, times)

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
