"""Shards of local stores, read as what store format 1 makes them: raw chunks and their checksums.

zarr-python reads any Zarr array, through an event loop and a pool of threads, which hand every
chunk on to each other. Beside a hundred microseconds of work that takes a millisecond, and where
all cores are busy several. Here a chunk is one read, one CRC-32C and one copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import DTypeLike

_CHECKSUM = 4
# CRC-32C of any bytes with their own CRC-32C behind them.
_RESIDUE = 0x48674BC7
_ENTRY = 16  # of a shard's index: offset and size of a chunk, uint64 each
_NO_CHUNK = 2**64 - 1

_RAW = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


class Shards:
    """The shards of one array, [clips, rows, ...], that `avfeat.stores.arrays` wrote.

    Parameters
    ----------
    folder
        Of the array.
    array
        The same array as zarr-python opened it.

    Raises
    ------
    ValueError
        If it is not laid out or encoded as in store format 1.
    """

    def __init__(self, folder: Path, array: zarr.Array[Any]) -> None:
        metadata: dict[str, Any] = array.metadata.to_dict()
        sharding = {
            "chunk_shape": array.chunks,
            "codecs": _RAW,
            "index_codecs": _RAW,
            "index_location": "end",
        }
        row = array.shape[2:]
        if (
            array.shards is None
            or _plain(metadata["codecs"])
            != _plain([{"name": "sharding_indexed", "configuration": sharding}])
            or _plain(metadata["chunk_key_encoding"])
            != _plain({"name": "default", "configuration": {"separator": "/"}})
            or array.dtype.kind != "f"
            or not np.isnan(array.fill_value)
            or array.chunks != (1, array.chunks[1], *row)
            or array.shards[2:] != row
        ):
            raise ValueError(f"{folder} is not an array of store format 1")
        self._folder = folder / "c"
        self._dtype = array.dtype.newbyteorder("<")
        self._row: tuple[int, ...] = row
        self._unit, self._block = array.shards[:2]
        self._chunk = array.chunks[1]
        self._bytes = self._chunk * int(np.prod(row, dtype=int)) * self._dtype.itemsize

    def read(
        self, indexes: range, span: tuple[int, int], out: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Read rows ``[span[0], span[1])`` of clips that lie side by side.

        Parameters
        ----------
        out
            Where to, if it is at least as many clips of as many rows; else into fresh memory.

        Returns
        -------
        numpy.ndarray
            [n, rows, ...]; NaN where nothing is stored. None if anything is not as it was written.
        """
        shape = (len(indexes), span[1] - span[0], *self._row)
        if out is not None and len(out) >= shape[0] and out.shape[1:] == shape[1:]:
            found = out[: shape[0]]
        else:
            found = np.empty(shape, self._dtype)
        for unit in range(indexes.start // self._unit, -(-indexes.stop // self._unit)):
            for block in range(span[0] // self._block, -(-span[1] // self._block)):
                try:
                    self._read_shard(found, indexes, span, unit, block)
                except (OSError, ValueError, OverflowError):
                    return None
        return found

    def _read_shard(
        self, found: np.ndarray, indexes: range, span: tuple[int, int], unit: int, block: int
    ) -> None:
        """Fill in what one shard has of the rows."""
        path = self._folder.joinpath(str(unit), str(block), *"0" * len(self._row))
        clips = range(
            max(indexes.start, unit * self._unit), min(indexes.stop, (unit + 1) * self._unit)
        )
        start, stop = max(span[0], block * self._block), min(span[1], (block + 1) * self._block)
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            first = clips.start - indexes.start
            found[first : first + len(clips), start - span[0] : stop - span[0]] = np.nan
            return
        with file:
            places = self._places(file.fileno())
            for clip in clips:
                for chunk in range(start // self._chunk, -(-stop // self._chunk)):
                    head = chunk * self._chunk
                    rows = slice(max(start, head), min(stop, head + self._chunk))
                    place = places[clip % self._unit, chunk % (self._block // self._chunk)]
                    values = self._read_chunk(file.fileno(), *map(int, place))
                    found[clip - indexes.start, rows.start - span[0] : rows.stop - span[0]] = (
                        np.nan if values is None else values[rows.start - head : rows.stop - head]
                    )

    def _places(self, file: int) -> np.ndarray:
        """Read a shard's index, uint64 [clips, chunks, 2]."""
        chunks = self._block // self._chunk
        size = self._unit * chunks * _ENTRY
        at = os.fstat(file).st_size - size - _CHECKSUM
        data = os.pread(file, size + _CHECKSUM, max(at, 0))
        return _checked(data, size, "<u8").reshape(self._unit, chunks, 2)

    def _read_chunk(self, file: int, offset: int, size: int) -> np.ndarray | None:
        if offset == size == _NO_CHUNK:
            return None
        if size != self._bytes + _CHECKSUM:
            raise ValueError(f"a chunk of {size} bytes in place of {self._bytes + _CHECKSUM}")
        values = _checked(os.pread(file, size, offset), self._bytes, self._dtype)
        return values.reshape(self._chunk, *self._row)


def _checked(data: bytes, size: int, dtype: DTypeLike) -> np.ndarray:
    """Take so many bytes as values, if the checksum behind them is theirs."""
    if len(data) != size + _CHECKSUM:
        raise ValueError(f"{len(data)} bytes in place of {size + _CHECKSUM}")
    if google_crc32c.value(data) != _RESIDUE:
        raise ValueError("bytes were changed after writing")
    dtype = np.dtype(dtype)
    return np.frombuffer(data, dtype, count=size // dtype.itemsize)


def _plain(codecs: Any) -> Any:
    """Bring metadata to lists and dicts of plain values."""
    if isinstance(codecs, dict):
        return {key: _plain(value) for key, value in codecs.items() if value != {}}
    if isinstance(codecs, (list, tuple)):
        return [_plain(one) for one in codecs]
    return codecs
