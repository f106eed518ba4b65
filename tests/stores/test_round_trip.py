"""What a writer writes is what a reader, and plain zarr, gives back."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from storekit import (
    Map,
    commit,
    fill_unit,
    make_clips,
    make_recipe,
    make_store,
    make_writer,
    rows_of,
)
from support import KilledError, die_at_write, tree

from avfeat.errors import IntegrityError, StoreError, WriteError
from avfeat.manifests.clips import Clip, Outcome
from avfeat.manifests.store import Layout
from avfeat.stores import arrays, unitrows
from avfeat.stores.files import Files
from avfeat.stores.reader import open_store
from avfeat.stores.unitrows import UnitRows
from avfeat.stores.verify import verify


@pytest.fixture(params=[None, (2, 4)], ids=["vectors", "maps"])
def map(request: pytest.FixtureRequest) -> Map:
    """Rows that are vectors, and rows that are maps, of another height than width."""
    shape: Map = request.param
    return shape


def assert_holds(url: str | Path, lengths: tuple[int, ...], map: Map = None) -> None:
    """Compare every array with what `storekit` wrote, through avfeat and through plain zarr."""
    report = verify(str(url))
    assert report.ok, report.problems
    store, group = open_store(url), zarr.open_group(str(url) + "/features.zarr", mode="r")
    features, times = group["features"][:], group["time"][:]
    assert features.shape == (len(lengths), max(*lengths, 1), *(map or ()), 3)
    assert list(group["clip_id"][:]) == [f"clip_{index:02d}" for index in range(len(lengths))]
    np.testing.assert_array_equal(group["length"][:], [max(rows, 0) for rows in lengths])
    for index, count in enumerate(lengths):
        clip_id = f"clip_{index:02d}"
        assert np.isnan(features[index, max(count, 0) :]).all()
        assert np.isnan(times[index, max(count, 0) :]).all()
        assert (clip_id in store) == (count > 0)
        if count > 0:
            rows, seconds = rows_of(clip_id, count, map=map)
            assert features[index, :count].tobytes() == rows.tobytes()
            assert times[index, :count].tobytes() == seconds.tobytes()
            assert store[clip_id].tobytes() == rows.tobytes()
            assert store[clip_id].shape == rows.shape == (count, *store.row_shape)
            assert store.times(clip_id).tobytes() == seconds.tobytes()


@pytest.mark.parametrize(
    "lengths",
    [
        (5,),
        (1, 1, 1),
        (4, 0, 7, 3, -1, 5, 6, 2),
        (0, -1, 0),
        (256, 3, 257),
        (600, 0, 10, 1, 255, 512, 513),
    ],
)
def test_ragged_clips_come_back_byte_for_byte(
    tmp_path: Path, lengths: tuple[int, ...], map: Map
) -> None:
    make_store(tmp_path, lengths, map=map)
    assert_holds(tmp_path, lengths, map)


def test_inner_chunks_hold_one_clip_or_256_rows(tmp_path: Path) -> None:
    make_store(tmp_path / "short", (7, 80))
    make_store(tmp_path / "long", (600, 3))
    for name, rows, chunk, shard in (("short", 80, 80, 80), ("long", 600, 256, 768)):
        group = zarr.open_group(tmp_path / name / "features.zarr", mode="r")
        assert group["features"].shape == (2, rows, 3)
        assert group["features"].chunks == (1, chunk, 3)
        assert group["features"].shards == (3, shard, 3)
        assert group["time"].shards == (3, shard)
        assert group["features"].metadata.dimension_names == ("clip", "time", "feature")
        assert group["features"].dtype == np.float32
        assert np.isnan(group["features"].fill_value)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch, map: Map) -> None:
    """Shards of 8 rows of 3 clips, and units that spill to disk at once."""
    monkeypatch.setattr(arrays, "MAX_CHUNK_ROWS", 4)
    monkeypatch.setattr(arrays, "MAX_SHARD_BYTES", 3 * 8 * math.prod((*(map or ()), 3)) * 4)
    monkeypatch.setattr(unitrows, "_IN_MEMORY_BYTES", 100)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("url", ["store", "memory://crowded/store"])
def test_long_clips_span_many_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, map: Map
) -> None:
    monkeypatch.chdir(tmp_path)
    url = url if map is None else f"{url}-maps"
    lengths = (50, 0, 3, 8, 9, -1, 16, 17)
    make_store(url, lengths, map=map)
    assert_holds(url, lengths, map)
    within = "0" if map is None else "0/0/0"
    shards = [name for name in Files(url).list("features.zarr/features/c") if "/c/0/" in name]
    assert shards == [
        f"features.zarr/features/c/0/{block}/{within}" for block in (0, 1, 2, 3, 4, 5, 6)
    ]
    assert Files(url).list("features.zarr/features/c/1") == [
        f"features.zarr/features/c/1/{block}/{within}" for block in (0, 1)
    ]


@pytest.mark.usefixtures("crowded")
def test_a_unit_that_gets_shorter_leaves_no_shard_behind(tmp_path: Path, map: Map) -> None:
    make_store(tmp_path, (50, 4), map=map)
    with make_writer(tmp_path, make_clips((50, 4)), map=map) as writer:
        writer.open()
        with writer.unit(0).rows() as rows:
            rows.discard(0)
            commit(writer, rows, {0: Outcome("missing")})
        writer.finish()
    assert verify(str(tmp_path)).notes == []
    (kept,) = Files(tmp_path).list("features.zarr/features/c")
    assert kept == f"features.zarr/features/c/0/0/{'0' if map is None else '0/0/0'}"
    assert list(open_store(tmp_path)) == ["clip_01"]


def layout(**sizes: int) -> Layout:
    return Layout(
        **{"clips": 6, "rows": 10, "dim": 2, "unit_clips": 3, "chunk_rows": 4, "shard_rows": 8}
        | sizes
    )


@pytest.mark.parametrize("limit", [10, 10**6])
def test_rows_may_come_in_any_order_of_clips(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(unitrows, "_IN_MEMORY_BYTES", limit)
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    with UnitRows(layout(), 0) as rows:
        rows.append(2, values[:5], np.arange(5.0))
        rows.append(0, values[5:7], np.arange(2.0))
        rows.append(2, values[10:15], np.arange(5.0, 10.0))
        rows.append(1, values[:3], np.arange(3.0))
        rows.discard(1)
        rows.append(1, values[19:], np.array([0.25]))
        assert rows.lengths.tolist() == [2, 1, 10]
        (first, features, times), (second, rest, late) = list(rows.blocks())
    assert (first, second) == (0, 1)
    np.testing.assert_array_equal(features[2], np.concatenate([values[:5], values[10:13]]))
    np.testing.assert_array_equal(rest[2, :2], values[13:15])
    np.testing.assert_array_equal(features[0, :2], values[5:7])
    np.testing.assert_array_equal(features[1, 0], values[19])
    assert times[1, 0] == 0.25
    assert late[2, 1] == 9.0
    nans = np.isnan(features).any(axis=2).sum() + np.isnan(rest).any(axis=2).sum()
    assert nans == 2 * 3 * 8 - 13
    assert np.isnan(times).sum() + np.isnan(late).sum() == 2 * 3 * 8 - 13


def test_more_rows_than_the_store_holds_are_refused() -> None:
    with UnitRows(layout(), 1) as rows:
        rows.append(0, np.zeros((10, 2), np.float32), np.zeros(10))
        with pytest.raises(ValueError, match="clip 0 of unit 1 has more than 10 rows"):
            rows.append(0, np.zeros((1, 2), np.float32), np.zeros(1))
        assert rows.lengths.tolist() == [10, 0, 0]


def test_a_large_unit_takes_no_memory_for_clips_that_have_no_rows() -> None:
    """The last clip of the unit is the only one; its place lies 460 MB into the unit."""
    big = layout(rows=28_800, dim=1024, unit_clips=5, chunk_rows=256, shard_rows=256)
    tracemalloc.start()
    with UnitRows(big, 0) as rows:
        rows.append(4, np.ones((10, 1024), np.float32), np.arange(10.0))
        ((_, features, _),) = list(rows.blocks())
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert features[4, :10].sum() == 10 * 1024
    assert peak < 32 * 2**20


@pytest.mark.parametrize("url", ["store", "memory://grown/store"])
def test_a_store_grows_in_clips_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, map: Map
) -> None:
    monkeypatch.chdir(tmp_path)
    url = url if map is None else f"{url}-maps"
    make_store(url, (4, 2, 7, 3, 5), map=map)
    grown = (4, 2, 7, 3, 5, 300, 9)
    with make_writer(url, make_clips(grown), map=map) as writer:
        writer.open()
        assert (writer.layout.rows, writer.layout.chunk_rows) == (300, 7)
        fill_unit(writer, 1, {5: 300})
        fill_unit(writer, 2, {6: 9})
        writer.finish()
    assert_holds(url, grown, map)


@pytest.mark.parametrize("step", range(24))
def test_killed_at_every_write_while_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, map: Map
) -> None:
    """Old rows stay readable, no damage is reported, and the next run ends in the same bytes."""
    old, grown = (4, 2, 7, 3, 5), (4, 2, 7, 3, 5, 12, 9, 1)
    make_store(tmp_path / "store", old, map=map)

    def grow(url: Path) -> None:
        with make_writer(url, make_clips(grown), map=map) as writer:
            writer.open()
            for unit in (1, 2):
                todo = [i for i in writer.layout.unit_range(unit) if writer.outcomes[i].rows == 0]
                if todo:
                    fill_unit(writer, unit, {index: grown[index] for index in todo})
            writer.finish()

    died = False
    with monkeypatch.context() as patch:
        die_at_write(patch, step)
        try:
            grow(tmp_path / "store")
        except KilledError:
            died = True
    assert died or step > 18
    store = open_store(tmp_path / "store")
    for index, count in enumerate(old):
        clip_id = f"clip_{index:02d}"
        assert store[clip_id].tobytes() == rows_of(clip_id, count, map=map)[0].tobytes()
    report = verify(str(tmp_path / "store"))
    if not any("journal" in note for note in report.notes):
        assert report.ok, report.problems
    grow(tmp_path / "store")
    assert_holds(tmp_path / "store", grown, map)
    make_store(tmp_path / "other", old, map=map)
    grow(tmp_path / "other")
    assert tree(tmp_path / "store") == tree(tmp_path / "other")


def test_rewriting_a_unit_keeps_the_rows_of_the_others(tmp_path: Path, map: Map) -> None:
    make_store(tmp_path, (4, 0, 7), units=[0], map=map)
    before = open_store(tmp_path)["clip_02"].tobytes()
    with make_writer(tmp_path, make_clips((4, 0, 7)), map=map) as writer:
        writer.open()
        fill_unit(writer, 0, {1: 1})
        writer.finish()
    assert open_store(tmp_path)["clip_02"].tobytes() == before
    assert_holds(tmp_path, (4, 1, 7), map)


def test_a_damaged_row_is_never_written_anew_as_good(tmp_path: Path) -> None:
    make_store(tmp_path, (4, 0, 7))
    shard = tmp_path / "features.zarr/features/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    with make_writer(tmp_path, make_clips((4, 0, 7))) as writer:
        writer.open()
        with pytest.raises(IntegrityError, match="clip clip_00"):
            writer.unit(0).rows()


def test_metadata_that_was_damaged_is_mended_by_the_next_run(tmp_path: Path) -> None:
    make_store(tmp_path, (4, 2))
    before = tree(tmp_path)
    for name in before:
        if name.endswith("zarr.json") or "clip_id" in name or name == "clips.parquet":
            (tmp_path / name).write_bytes(b"junk")
    with make_writer(tmp_path, make_clips((4, 2))) as writer:
        writer.open()
        writer.finish()
    assert tree(tmp_path) == before


def test_a_clip_table_of_other_clips_cannot_be_rebuilt(tmp_path: Path) -> None:
    make_store(tmp_path, (4, 2))
    (tmp_path / "clips.parquet").unlink()
    with pytest.raises(IntegrityError, match="the data set has other clips"):
        make_writer(tmp_path, make_clips((4, 2, 1))).prepare()
    renamed = [Clip(f"x{clip.id}", clip.start, clip.end) for clip in make_clips((4, 2))]
    with pytest.raises(IntegrityError, match="lists other clips"):
        make_writer(tmp_path, renamed).prepare()


def test_a_clip_that_was_moved_in_time_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path, (4, 2))
    moved = [Clip(clip.id, clip.start + 1, clip.end + 1) for clip in make_clips((4, 2))]
    with pytest.raises(StoreError, match=r"extracted from 0-0\.5 s, and is 1-1\.5 s now"):
        make_writer(tmp_path, moved).prepare()


def test_another_order_of_clips_changes_nothing(tmp_path: Path) -> None:
    make_store(tmp_path, (4, 2, 1))
    before = tree(tmp_path)
    with make_writer(tmp_path, make_clips((4, 2, 1))[::-1]) as writer:
        writer.open()
        writer.finish()
    assert tree(tmp_path) == before


def test_numbers_that_are_equal_but_written_otherwise_are_another_recipe(tmp_path: Path) -> None:
    """8 == 8.0, but their JSON differs, and so does the fingerprint that the ledger holds."""
    make_store(tmp_path, (4, 2))
    now = make_recipe(sampling={"rule": "on-screen", "fps": 8})
    with pytest.raises(StoreError, match=r"sampling\.fps: 8\.0 in the store, 8 now"):
        make_writer(tmp_path, make_clips((4, 2)), recipe=now).prepare()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    files.write("a/b", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("avfeat.stores.files.os.fsync", full)
        with pytest.raises(WriteError, match="the disk is full; free some space"):
            files.write("a/b", b"new")
    assert files.read("a/b") == b"old"
    assert files.list() == ["a/b"]
    files.write("a/b", b"new")
    assert files.read("a/b") == b"new"


def test_a_file_in_the_way_of_a_folder_is_said(tmp_path: Path) -> None:
    Files(tmp_path).write("a", b"file")
    with pytest.raises(WriteError, match="a file stands where a folder is needed"):
        Files(tmp_path).write("a/b", b"x")
    assert Files(tmp_path).list() == ["a"]


@pytest.mark.parametrize("root", ["plain", "a [b]*? #%20 é :: x", "memory://files/root"])
def test_files_of_any_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.chdir(tmp_path)
    files = Files(root if "://" in root else tmp_path / root)
    assert files.list() == []
    files.write("x/y/z", b"1")
    files.write("x/y.txt", b"2")
    files.write("top", b"3")
    assert files.list() == ["top", "x/y.txt", "x/y/z"]
    assert files.list("x") == ["x/y.txt", "x/y/z"]
    assert files.list(depth=2) == ["top", "x/y.txt"]
    files.copy("top", "x/y/z")
    assert files.read("x/y/z") == files.read("top") == b"3"
    files.remove("top")
    with pytest.raises(FileNotFoundError):
        files.copy("top", "x/y/z")
    files.remove("x/y")
    files.remove("never/was")
    assert files.list() == ["x/y.txt"]
    assert (files.exists("x"), files.is_dir("x"), files.is_dir("x/y.txt")) == (True, True, False)
    with pytest.raises(FileNotFoundError):
        files.read("top")


@pytest.mark.parametrize("url", ["nosuch://bucket/store", "s3a-no-such://x"])
def test_a_url_of_no_known_kind_is_wrong_use(url: str) -> None:
    with pytest.raises(StoreError, match=f"cannot open {url}: Protocol not known"):
        Files(url)
