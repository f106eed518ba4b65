"""The Zarr arrays of store format 1: their metadata, and shards as bytes.

A shard's bytes depend on its rows alone, so shards are encoded in memory by zarr-python and
written by `Files` like any other file.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from avfeat.manifests.store import Layout

GROUP = "features.zarr"

#: Longest inner chunk in rows, and largest shard in bytes (unless one row of every clip is more).
MAX_CHUNK_ROWS = 256
MAX_SHARD_BYTES = 64 * 2**20


def plan_layout(
    *, clips: int, rows: int, dim: int, unit_clips: int, map: tuple[int, int] | None = None
) -> Layout:
    """Choose chunk and shard sizes.

    An inner chunk is one clip or 256 rows of a longer one. Where a shard of `MAX_SHARD_BYTES` has
    no room for 256 rows of every clip of a unit, as with maps, it is one clip, or one of the fewest
    equal parts of it that fit.

    Parameters
    ----------
    clips, rows, unit_clips
        Clips of the store; rows of the longest one; clips per unit.
    dim, map
        Features of a row; or channels and (height, width) of a row that is a map.
    """
    rows = max(rows, 1)
    row_bytes = math.prod((*(map or ()), dim)) * 4
    fitting = max(1, MAX_SHARD_BYTES // (unit_clips * row_bytes))
    if fitting < MAX_CHUNK_ROWS:
        # Equal parts: a short last chunk takes the space of a whole one.
        chunk_rows = _parts(rows, _parts(rows, fitting))
    else:
        chunk_rows = min(rows, MAX_CHUNK_ROWS)
    return Layout(
        clips=clips,
        rows=rows,
        dim=dim,
        unit_clips=unit_clips,
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * max(1, min(_parts(rows, chunk_rows), fitting // chunk_rows)),
        map=map,
    )


def _parts(number: int, size: int) -> int:
    """Return how many parts of at most `size` make up `number`."""
    return -(-number // size)


def metadata_files(
    layout: Layout, clip_ids: Sequence[str], attributes: dict[str, Any]
) -> dict[str, bytes]:
    """Encode the group's metadata and ``clip_id``: everything that belongs to no unit.

    Returns
    -------
    dict
        File name relative to the store to content.
    """
    store: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(store), zarr_format=3, attributes=attributes)
    _create(group, "features", layout)
    _create(group, "time", layout)
    _create(group, "length", layout)
    ids = group.create_array(
        "clip_id",
        shape=(layout.clips,),
        chunks=(layout.clips,),
        dtype="string",
        fill_value="",
        compressors=[Crc32cCodec()],
        dimension_names=("clip",),
    )
    ids[:] = np.array(clip_ids, dtype=np.dtypes.StringDType())
    with warnings.catch_warnings():
        # xarray warns when consolidated metadata is absent; zarr warns when it is written,
        # because the Zarr v3 text does not cover it yet. Readers without it lose nothing.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(MemoryStore(store))
    files = {f"{GROUP}/{key}": value.to_bytes() for key, value in store.items()}
    # zarr-python orders keys by insertion; one canonical text makes stores comparable by bytes.
    return {
        name: json.dumps(json.loads(data), indent=2, sort_keys=True).encode()
        if name.endswith("zarr.json")
        else data
        for name, data in files.items()
    }


def encode_unit_block(
    layout: Layout, unit: int, block: int, features: np.ndarray, times: np.ndarray
) -> dict[str, bytes]:
    """Encode one block of rows of a unit: its shard of ``features`` and of ``time``.

    Parameters
    ----------
    layout, unit, block
        Where the block lies: rows ``[block * shard_rows, (block + 1) * shard_rows)``.
    features, times
        float32 [unit_clips, shard_rows, *row_shape] and float64 [unit_clips, shard_rows]; NaN
        where there is no row.

    Returns
    -------
    dict
        File name to content; a shard without any row has no file.
    """
    place = f"{unit}/{block}"
    # No shard divides a row.
    within = "/0" * len(layout.row_shape)
    return _encode("features", layout, place + within, features) | _encode(
        "time", layout, place, times
    )


def encode_lengths(layout: Layout, unit: int, lengths: np.ndarray) -> dict[str, bytes]:
    """Encode a unit's chunk of ``length`` (int32 [unit_clips], 0 where there is no row)."""
    return _encode("length", layout, f"{unit}", lengths)


def _create(group: zarr.Group, name: str, layout: Layout, *, one_shard: bool = False) -> Any:
    """Create one of the per-unit arrays, whole or with the shape of a single shard."""
    clips, rows = layout.clips, layout.rows
    if one_shard:
        clips, rows = layout.unit_clips, layout.shard_rows
    unit, chunk, shard = layout.unit_clips, layout.chunk_rows, layout.shard_rows
    shape, chunks, shards, dtype, fill = {
        "features": (
            (clips, rows, *layout.row_shape),
            (1, chunk, *layout.row_shape),
            (unit, shard, *layout.row_shape),
            "float32",
            np.nan,
        ),
        "time": ((clips, rows), (1, chunk), (unit, shard), "float64", np.nan),
        "length": ((clips,), (unit,), None, "int32", 0),
    }[name]
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        compressors=[Crc32cCodec()],
        dimension_names=layout.dimensions[: len(shape)],
        attributes={"units": "s"} if name == "time" else {},
    )


def _encode(name: str, layout: Layout, position: str, values: np.ndarray) -> dict[str, bytes]:
    store: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(store), zarr_format=3)
    _create(group, name, layout, one_shard=True)[:] = values
    shard = store.get(f"{name}/c/" + "/".join("0" for _ in values.shape))
    return {} if shard is None else {f"{GROUP}/{name}/c/{position}": shard.to_bytes()}
