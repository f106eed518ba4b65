"""Shards read natively against zarr-python, whole and damaged."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from storekit import make_store
from zarr.codecs import Crc32cCodec, GzipCodec

from avfeat.errors import IntegrityError
from avfeat.stores import arrays
from avfeat.stores.reader import open_store
from avfeat.stores.shards import Shards

GROUP = "features.zarr"
LENGTHS = (4, 6, 0, 9, 1, -1, 5)

#: Rows as vectors and maps; chunks of several rows, and shards of several chunks.
KINDS: dict[str, dict[str, Any]] = {
    "vectors": {"dim": 3},
    "maps": {"dim": 2, "map": (2, 3)},
}


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many chunks":
        monkeypatch.setattr(arrays, "MAX_CHUNK_ROWS", 2)
        monkeypatch.setattr(arrays, "MAX_SHARD_BYTES", 3 * 4 * 4 * 3)
    return str(request.param)


def opened(store: Path, name: str) -> tuple[Shards, zarr.Array]:
    array = zarr.open_group(store / GROUP, mode="r")[name]
    return Shards(store / GROUP / name, array), array


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["features", "time"])
def test_every_part_is_what_zarr_reads(tmp_path: Path, chunks: str, kind: str, name: str) -> None:
    make_store(tmp_path / "s", LENGTHS, **KINDS[kind])
    shards, array = opened(tmp_path / "s", name)
    clips, rows = array.shape[:2]
    assert (array.shards[1] < rows) == (chunks == "many chunks")
    whole = array[:]
    for first in range(clips):
        for last in range(first + 1, clips + 1):
            for start in range(rows):
                for stop in range(start + 1, rows + 1):
                    found = shards.read(range(first, last), (start, stop))
                    expected = whole[first:last, start:stop]
                    np.testing.assert_array_equal(found, expected, strict=True)


def test_memory_is_used_again_where_it_is_enough(tmp_path: Path) -> None:
    make_store(tmp_path / "s", LENGTHS)
    shards, array = opened(tmp_path / "s", "features")
    out = np.full((4, 9, 3), 7, np.float32)
    found = shards.read(range(3, 6), (0, 9), out)
    assert found is not None
    assert np.shares_memory(found, out)
    np.testing.assert_array_equal(found, array[3:6])
    for indexes, span in ((range(5), (0, 9)), (range(3), (0, 8))):
        found = shards.read(indexes, span, out)
        assert found is not None
        assert not np.shares_memory(found, out)
        np.testing.assert_array_equal(found, array[: len(indexes), : span[1]])


def test_no_changed_byte_is_read(tmp_path: Path, chunks: str) -> None:
    """Every byte of a shard is under a checksum: of a chunk or of the index."""
    make_store(tmp_path / "s", (4, 6, 1), unit_clips=3)
    shards, array = opened(tmp_path / "s", "features")
    path = tmp_path / "s" / GROUP / "features/c/0/0/0"
    data = path.read_bytes()
    span = (0, array.shards[1])
    assert shards.read(range(3), span) is not None
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert shards.read(range(3), span) is None, place
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert shards.read(range(3), span) is None, size
    path.unlink()
    found = shards.read(range(3), span)
    assert found is not None
    assert np.isnan(found).all()


def test_an_index_that_points_anywhere_is_refused(tmp_path: Path) -> None:
    """With a checksum that fits: as of a shard that another program wrote."""
    make_store(tmp_path / "s", (4, 6, 1), unit_clips=3)
    shards, _ = opened(tmp_path / "s", "features")
    path = tmp_path / "s" / GROUP / "features/c/0/0/0"
    data = path.read_bytes()
    entries = 3 * 16
    index = np.frombuffer(data[-entries - 4 : -4], "<u8")
    for value in (1, 2**40, 2**63, 2**64 - 1):
        for number in range(len(index)):
            wrong = index.copy()
            wrong[number] = value
            path.write_bytes(data[: -entries - 4] + with_checksum(wrong.tobytes()))
            assert shards.read(range(3), (0, 6)) is None, (number, value)


def with_checksum(data: bytes) -> bytes:
    """CRC-32C by its definition: the reflected polynomial 0x82F63B78, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return data + (value ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize(
    "other",
    [
        {"compressors": [GzipCodec(), Crc32cCodec()]},
        {"compressors": None},
        {"dtype": "int32", "fill_value": 0},
        {"fill_value": 0.0},
        {"chunks": (2, 4, 3)},
        {"shards": None},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
)
def test_arrays_of_another_layout_are_left_to_zarr(
    tmp_path: Path, other: dict[str, object]
) -> None:
    layout = {
        "shape": (6, 8, 3),
        "shards": (6, 8, 3),
        "chunks": (1, 4, 3),
        "dtype": "float32",
        "fill_value": np.nan,
        "compressors": [Crc32cCodec()],
    }
    group = zarr.create_group(tmp_path / "g")
    Shards(tmp_path / "g/own", group.create_array("own", **layout))
    array = group.create_array("other", **(layout | other))
    with pytest.raises(ValueError, match="not an array of store format 1"):
        Shards(tmp_path / "g/other", array)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_reads_what_its_parent_has_open(tmp_path: Path) -> None:
    """Of threads that the parent had, a fork has none. Damage goes through zarr-python's."""
    make_store(tmp_path / "s", LENGTHS)
    store = open_store(tmp_path / "s")
    expected = [rows.copy() for rows, _ in store.each(store.ids())]
    shard = tmp_path / "s" / GROUP / "features/c/2/0/0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError):
        store[store.ids()[-1]]
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def child() -> None:
        found = [store[clip_id] for clip_id in store.ids()[:-1]]
        try:
            store[store.ids()[-1]]
        except IntegrityError as error:
            theirs.send((found, str(error)))

    process = context.Process(target=child)
    process.start()
    assert mine.poll(60), "the forked process hangs"
    found, error = mine.recv()
    process.join(60)
    assert "bytes were changed" in error
    assert len(found) == len(expected) - 1
    for one, other in zip(found, expected, strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("lengths", [(4, 4, 4, 4, 4, 4, 0, 6, 3), (2, 2, 2, *[9] * 6)])
def test_clips_read_into_the_same_memory_are_the_same(
    tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    make_store(tmp_path / "s", lengths, unit_clips=3)
    store = open_store(tmp_path / "s")
    seen = []
    memory = []
    for rows, times in store.together(store.ids(), reuse=True):
        memory.append(rows.ctypes.data)
        seen += [(one.copy(), two.copy()) for one, two in zip(rows, times, strict=True)]
    for (rows, times), (own_rows, own_times) in zip(seen, store.each(store.ids()), strict=True):
        np.testing.assert_array_equal(rows, own_rows)
        np.testing.assert_array_equal(times, own_times)
    assert len(set(memory)) < len(memory)
