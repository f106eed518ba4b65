"""Reading rows back from a store's arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from avfeat.errors import IntegrityError
from avfeat.stores.arrays import GROUP
from avfeat.stores.files import Files
from avfeat.stores.shards import Shards


class StoredRows:
    """Random access to the rows of a store, by clip index. Picklable; opens on first use."""

    def __init__(self, files: Files) -> None:
        self._local = files.local
        self._url = files.path(GROUP) if files.local else f"{files}/{GROUP}"
        self._arrays: dict[str, tuple[Any, Shards | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

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

    def neighbours(
        self, indexes: range, rows: int, *, out: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the first `rows` rows of clips that lie side by side, in a fraction of the time.

        Parameters
        ----------
        out
            What an earlier call gave; its memory is used again where it is large enough.

        Returns
        -------
        features, times
            float32 [n, rows, *row_shape] and float64 [n, rows]; NaN where a clip has fewer, or
            where a chunk is gone. None if anything is damaged: read clip by clip to learn where.
        """
        try:
            features, times = (
                self._get(name, indexes, (0, rows), None if out is None else out[number])
                for number, name in enumerate(("features", "time"))
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
            values: np.ndarray = self._get(name, range(index, index + 1), span)[0]
        except MemoryError:
            raise
        except Exception as error:  # zarr has no one class for what damage can do to a store
            # zarr shows both checksums as bytes, which tells nobody anything.
            changed = "checksum" in str(error).lower()
            reason = "bytes were changed after writing" if changed else error
            raise IntegrityError(f"{self._url}: clip {clip_id}: {name}: {reason}") from error
        return values

    def _get(
        self, name: str, indexes: range, span: tuple[int, int], out: np.ndarray | None = None
    ) -> np.ndarray:
        array, shards = self._array(name)
        if shards is not None and (found := shards.read(indexes, span, out)) is not None:
            return found
        # Of damage zarr-python can say what it is.
        return np.asarray(array[indexes.start : indexes.stop, span[0] : span[1]])

    def _array(self, name: str) -> tuple[Any, Shards | None]:
        if name not in self._arrays:  # opening one takes as long as reading a clip
            array: Any = zarr.open_group(self._url, mode="r")[name]
            shards = None
            if self._local:
                with contextlib.suppress(ValueError):  # another layout
                    shards = Shards(self._local / GROUP / name, array)
            self._arrays[name] = array, shards
        return self._arrays[name]
