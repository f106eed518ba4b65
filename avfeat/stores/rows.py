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
        self._group: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "_group": None}

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
            if self._group is None:
                self._group = zarr.open_group(self._url, mode="r")
            return np.asarray(self._group[name][index, span[0] : span[1]])
        except MemoryError:
            raise
        except Exception as error:  # zarr has no one class for what damage can do to a store
            # zarr shows both checksums as bytes, which tells nobody anything.
            changed = "checksum" in str(error).lower()
            reason = "bytes were changed after writing" if changed else error
            raise IntegrityError(f"{self._url}: clip {clip_id}: {name}: {reason}") from error
