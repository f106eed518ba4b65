"""Rows pooled over the items of a clip, whatever batches they came in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from avfeat.extract.batch import Batch, Packer, RowSink
from avfeat.manifests.store import Layout
from avfeat.stores.unitrows import UnitRows

LAYOUT = Layout(clips=2, rows=9, dim=3, unit_clips=2, chunk_rows=9, shard_rows=9)


class Batcher:
    """Packs, runs and lays down, one after another."""

    def __init__(
        self,
        forward: Callable[[torch.Tensor], torch.Tensor],
        batch_size: int,
        rows: UnitRows,
        *,
        pool: int,
    ) -> None:
        self._forward = forward
        self._packer = Packer("tiny", batch_size)
        self.sink = RowSink(rows, pool=pool)
        self.sizes: set[int] = set()

    def add(self, position: int, items: np.ndarray, times: np.ndarray) -> None:
        self._run(self._packer.add(position, items, times))

    def flush(self) -> None:
        self._run(self._packer.finish())

    def _run(self, batches: list[Batch]) -> None:
        for batch in batches:
            assert batch.used <= len(batch.items)
            assert not batch.items[batch.used :].any()
            self.sizes.add(len(batch.items))
            self.sink.add(self._forward(torch.from_numpy(batch.items)).numpy(), batch.parts)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
@pytest.mark.parametrize("part", [1, 5, 100])
def test_pooled_rows_are_means_within_a_clip(batch_size: int, part: int) -> None:
    rng = np.random.default_rng(3)
    clips = [rng.normal(size=(n, 3)).astype(np.float32) for n in (18, 7)]
    with UnitRows(LAYOUT, 0) as rows:
        batcher = Batcher(lambda items: items * 2, batch_size, rows, pool=4)
        for position, items in enumerate(clips):
            times = np.arange(len(items)) / 4
            for first in range(0, len(items), part):
                piece = slice(first, first + part)
                batcher.add(position, items[piece], times[piece])
        batcher.flush()
        assert batcher.sizes == {batch_size}
        assert rows.lengths.tolist() == [4, 1]  # 18 // 4, 7 // 4: what is left over gives no row
        ((_, features, times),) = rows.blocks()
    for position, items in enumerate(clips):
        n = len(items) // 4
        groups = 2 * items[: 4 * n].reshape(n, 4, 3)
        np.testing.assert_allclose(features[position, :n], groups.mean(axis=1), rtol=1e-6)
        assert times[position, :n].tolist() == [group + 0.375 for group in range(n)]
        assert np.isnan(features[position, n:]).all()


def test_a_nan_in_any_item_of_a_mean_is_seen() -> None:
    items = np.ones((8, 3), dtype=np.float32)
    items[5, 1] = np.nan
    with UnitRows(LAYOUT, 0) as rows:
        batcher = Batcher(torch.clone, 3, rows, pool=8)
        batcher.add(1, items, np.arange(8.0))
        batcher.flush()
        assert batcher.sink.not_finite == {1}
