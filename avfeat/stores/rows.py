"""Reading rows back from a store's arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from avfeat.errors import IntegrityError
from avfeat.stores.arrays import GROUP
from avfeat.stores.files import Files


class StoredRows:
    """Random access to the rows of a store, by clip index. Picklable; opens on first use."""

    def __init__(self, files: Files) -> None:
        self._url = files.path(GROUP) if files.local else f"{files}/{GROUP}"
        self._arrays: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "_arrays": {}}

    def features(self, index: int, span: tuple[int, int], *, clip_id: str) -> np.ndarray:
        """Read rows ``[span[0], span[1])`` of clip number `index`.

        Returns
        -------
        numpy.ndarray
            float32 [rows, dim], or [rows, height, width, dim] of maps.

        Raises
        ------
        IntegrityError
            If a chunk is gone or fails its checksum; the message names `clip_id`.
        """
        values = self._read("features", index, span, clip_id)
        if np.isnan(values).any():
            raise IntegrityError(f"{self._url}: clip {clip_id}: a chunk of features is gone")
        return values

    def times(self, index: int, span: tuple[int, int], *, clip_id: str) -> np.ndarray:
        """Read the times of rows ``[span[0], span[1])``: float64 [rows], seconds in the clip."""
        values = self._read("time", index, span, clip_id)
        if np.isnan(values).any():
            raise IntegrityError(f"{self._url}: clip {clip_id}: a chunk of times is gone")
        return values

    def neighbours(self, indexes: range, rows: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the first `rows` rows of clips that lie side by side, in a fraction of the time.

        Returns
        -------
        features, times
            float32 [n, rows, *row_shape] and float64 [n, rows]; NaN where a clip has fewer, or
            where a chunk is gone. None if anything is damaged: read clip by clip to learn where.
        """
        try:
            features, times = (
                np.asarray(self._array(name)[indexes.start : indexes.stop, :rows])
                for name in ("features", "time")
            )
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - as in `_read`, which says what it was
            return None
        return features, times

    def pieces(
        self, index: int, rows: int, *, size: int, clip_id: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the first `rows` rows of a clip piece by piece, so that its length costs no memory.

        Yields
        ------
        features, times
            As from `features` and `times`, at most `size` rows of each.
        """
        for first in range(0, rows, size):
            span = (first, min(first + size, rows))
            yield (
                self.features(index, span, clip_id=clip_id),
                self.times(index, span, clip_id=clip_id),
            )

    def _read(self, name: str, index: int, span: tuple[int, int], clip_id: str) -> np.ndarray:
        try:
            return np.asarray(self._array(name)[index, span[0] : span[1]])
        except MemoryError:
            raise
        except Exception as error:  # zarr has no one class for what damage can do to a store
            # zarr shows both checksums as bytes, which tells nobody anything.
            changed = "checksum" in str(error).lower()
            reason = "bytes were changed after writing" if changed else error
            raise IntegrityError(f"{self._url}: clip {clip_id}: {name}: {reason}") from error

    def _array(self, name: str) -> Any:
        if name not in self._arrays:  # opening one takes as long as reading a clip
            self._arrays[name] = zarr.open_group(self._url, mode="r")[name]
        return self._arrays[name]
