"""Rows of the unit in hand, in memory or spilled to disk, until the unit is committed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avfeat.errors import WriteError
from avfeat.manifests.store import Layout
from avfeat.stores.files import explain

#: Units larger than this are kept in a temporary file, so memory does not grow with clip length.
_IN_MEMORY_BYTES = 128 * 2**20


class UnitRows:
    """Collects the rows of one unit's clips, in any order of clips and in order within a clip.

    Parameters
    ----------
    layout, unit
        The store's layout and the unit's number.
    scratch
        Folder for the temporary file of a large unit; None for the system's.
    """

    def __init__(self, layout: Layout, unit: int, *, scratch: Path | None = None) -> None:
        self.layout = layout
        self.unit = unit
        self.lengths = np.zeros(layout.unit_clips, dtype=np.int32)
        # One record is a row's time and its features.
        self._record = np.dtype([("time", "<f8"), ("features", "<f4", layout.row_shape)])
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            max_size=_IN_MEMORY_BYTES, dir=None if scratch is None else str(scratch)
        )
        if layout.unit_clips * layout.rows * self._record.itemsize > _IN_MEMORY_BYTES:
            # At once: a first clip at the end of the unit would fill memory up to its place.
            self._file.rollover()

    def __enter__(self) -> UnitRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the rows up."""
        with contextlib.suppress(OSError):  # a full disk: it flushes once more what is given up
            self._file.close()

    def append(self, position: int, features: np.ndarray, times: np.ndarray) -> None:
        """Append rows to the clip at `position` in the unit.

        Parameters
        ----------
        position
            0-based position of the clip in the unit.
        features, times
            float32 [n, *row_shape], that is [n, dim] or [n, height, width, dim], and float64 [n]
            (seconds in the clip).

        Raises
        ------
        ValueError
            If they are of another shape, or more rows than the store has room for.
        WriteError
            If the unit is kept on disk and the disk is full.
        """
        if features.shape != (len(times), *self.layout.row_shape):
            # Assigned below, a smaller shape would be repeated to fill the larger one.
            raise ValueError(
                f"rows of clip {position} of unit {self.unit} have shape {features.shape}, not "
                f"{(len(times), *self.layout.row_shape)}"
            )
        first = int(self.lengths[position])
        if first + len(features) > self.layout.rows:
            raise ValueError(
                f"clip {position} of unit {self.unit} has more than {self.layout.rows} rows"
            )
        records = np.empty(len(features), dtype=self._record)
        records["time"] = times
        records["features"] = features
        try:
            self._file.seek((position * self.layout.rows + first) * self._record.itemsize)
            self._file.write(records.tobytes())
        except OSError as error:  # it may lie on a disk by now
            raise WriteError(explain(f"the rows of unit {self.unit}", error)) from error
        self.lengths[position] += len(features)

    def discard(self, position: int) -> None:
        """Forget the rows of the clip at `position`."""
        self.lengths[position] = 0

    def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the unit block by block, as the shards hold it.

        Yields
        ------
        block, features, times
            Block number, float32 [unit_clips, shard_rows, *row_shape], float64 [unit_clips,
            shard_rows]; NaN where there is no row. Blocks without a row are left out.
        """
        layout = self.layout
        for block in range(-(-int(self.lengths.max()) // layout.shard_rows)):
            first = block * layout.shard_rows
            shape = (layout.unit_clips, layout.shard_rows)
            features = np.full((*shape, *layout.row_shape), np.nan, dtype=np.float32)
            times = np.full(shape, np.nan)
            for position, length in enumerate(self.lengths):
                count = min(int(length) - first, layout.shard_rows)
                if count > 0:
                    self._file.seek((position * layout.rows + first) * self._record.itemsize)
                    data = self._file.read(count * self._record.itemsize)
                    records = np.frombuffer(data, dtype=self._record)
                    features[position, :count] = records["features"]
                    times[position, :count] = records["time"]
            yield block, features, times
