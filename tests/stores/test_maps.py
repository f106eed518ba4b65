"""Rows that are maps: how they are cut into shards, and what readers see of them."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from storekit import Map, commit, fill_unit, make_clips, make_store, make_writer, rows_of
from support import Cli, tree

from avfeat.errors import IntegrityError, StoreError
from avfeat.manifests.clips import Outcome
from avfeat.manifests.store import Layout
from avfeat.stores import arrays, unitrows
from avfeat.stores.arrays import MAX_SHARD_BYTES, plan_layout
from avfeat.stores.reader import open_store
from avfeat.stores.summary import summarise
from avfeat.stores.unitrows import UnitRows
from avfeat.stores.verify import verify

LENGTHS = (4, 0, 7, 3, -1, 5, 6, 2)
MAP = (2, 4)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of maps 2 high, 4 wide, of 3 channels: three units."""
    make_store(tmp_path / "store", LENGTHS, map=MAP)
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("dim", "map", "unit_clips", "rows", "chunk_rows", "shard_rows"),
    [
        # What the backbones of the first version have, as they have had it.
        (128, None, 16, 10, 10, 10),
        (512, None, 16, 10, 10, 10),
        (2048, None, 16, 80, 80, 80),
        (4096, None, 16, 80, 80, 80),
        (4096, None, 16, 300, 256, 256),
        (2048, None, 16, 1000, 256, 512),
        (2048, None, 4, 5000, 256, 2048),
        (512, None, 1, 28_800, 256, 28_928),
        # 7 x 7 x 2048 x 4 bytes are 401,408; 16 of them 6.4 MB; 10 rows fit.
        (2048, (7, 7), 16, 80, 10, 10),
        (2048, (7, 7), 16, 81, 9, 9),
        (2048, (7, 7), 16, 11, 6, 6),
        (2048, (7, 7), 16, 10, 10, 10),
        (2048, (7, 7), 16, 3, 3, 3),
        (2048, (7, 7), 1, 28_800, 167, 167),
        # 28 x 28 x 512 x 4 bytes are 1,605,632; 16 of them 25.7 MB; 2 rows fit.
        (512, (28, 28), 16, 80, 2, 2),
        (512, (28, 28), 4, 80, 10, 10),
        (512, (28, 28), 1, 80, 40, 40),
        (512, (7, 7), 16, 80, 40, 40),
        # Narrow maps are cut like vectors.
        (32, (7, 7), 16, 80, 80, 80),
        (32, (7, 7), 16, 1000, 256, 512),
        # One row of every clip is more than a shard should be: no less than a row can be written.
        (2048, (28, 28), 16, 80, 1, 1),
    ],
)
def test_chunks_and_shards_of_any_width(
    dim: int, map: Map, unit_clips: int, rows: int, chunk_rows: int, shard_rows: int
) -> None:
    layout = plan_layout(clips=100, rows=rows, dim=dim, unit_clips=unit_clips, map=map)
    assert (layout.chunk_rows, layout.shard_rows) == (chunk_rows, shard_rows)
    assert (layout.rows, layout.row_size) == (rows, int(np.prod(layout.row_shape)))
    if shard_rows > 1:
        assert shard_rows * unit_clips * layout.row_size * 4 <= MAX_SHARD_BYTES


def test_layouts_of_vectors_are_as_they_were() -> None:
    """The rule of the first version, for every width and unit that it was made for."""
    for dim in (1, 128, 512, 2048, 4096):
        for unit_clips in range(1, 17):
            for rows in (*range(1, 90), 255, 256, 257, 511, 1000, 28_800):
                chunk = min(rows, 256)
                fitting = MAX_SHARD_BYTES // (unit_clips * chunk * dim * 4)
                shard = chunk * max(1, min(-(-rows // chunk), fitting))
                layout = plan_layout(clips=20, rows=rows, dim=dim, unit_clips=unit_clips)
                assert (layout.chunk_rows, layout.shard_rows) == (chunk, shard)


def test_a_layout_names_its_map_only_where_it_has_one() -> None:
    vectors = plan_layout(clips=5, rows=7, dim=3, unit_clips=2)
    maps = plan_layout(clips=5, rows=7, dim=3, unit_clips=2, map=MAP)
    assert "map" not in vectors.model_dump(mode="json")
    assert maps.model_dump(mode="json") == {**vectors.model_dump(mode="json"), "map": [2, 4]}
    assert (vectors.row_shape, maps.row_shape) == ((3,), (2, 4, 3))
    for layout in (vectors, maps):
        assert Layout.model_validate_json(layout.model_dump_json()) == layout
    assert maps != vectors
    with pytest.raises(ValueError, match="greater than 0"):
        Layout.model_validate({**maps.model_dump(), "map": (7, 0)})


def test_a_long_clip_of_wide_rows_takes_the_memory_of_few_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, rewritten and verified: 44 MB of maps in shards of up to 2 MiB."""
    monkeypatch.setattr(arrays, "MAX_SHARD_BYTES", 2 * 2**20)
    monkeypatch.setattr(unitrows, "_IN_MEMORY_BYTES", 2**20)
    with make_writer(tmp_path, make_clips((600, 600, 1)), dim=512, map=(6, 6)) as writer:
        writer.open()
        assert (writer.layout.chunk_rows, writer.layout.shard_rows) == (9, 9)
        tracemalloc.start()
        with writer.unit(0).rows() as rows:
            for first in range(0, 600, 20):
                times = np.arange(first, first + 20.0)
                rows.append(1, np.full((20, 6, 6, 512), first, np.float32), times)
            commit(writer, rows, {1: Outcome("ok", rows=600)})
        fill_unit(writer, 0, {2: 1})
        report = verify(str(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.finish()
    assert report.ok, report.problems
    # The rows of a shard, and zarr's two copies: its chunks with their checksums, then joined.
    assert peak < 5 * 2 * 2**20
    assert open_store(tmp_path)["clip_01"][599].tolist() == np.full((6, 6, 512), 580).tolist()


def test_rows_of_another_shape_are_refused_and_never_repeated() -> None:
    """Numpy would repeat [n, 1, 1, dim], or [2, dim] where two maps are wanted, to fill a map."""
    layout = plan_layout(clips=2, rows=7, dim=3, unit_clips=2, map=(2, 2))
    with UnitRows(layout, 0) as rows:
        for shape in ((2, 3), (2, 1, 1, 3), (2, 2, 3), (2, 2, 2, 1), (1, 2, 2, 3), (2, 3, 2, 2)):
            with pytest.raises(ValueError, match=r"clip 1 of unit 0 have shape .*\(2, 2, 2, 3\)"):
                rows.append(1, np.zeros(shape, np.float32), np.zeros(2))
        assert rows.lengths.tolist() == [0, 0]
        rows.append(1, np.ones((2, 2, 2, 3), np.float32), np.zeros(2))
        ((_, features, _),) = list(rows.blocks())
    assert features.shape == (2, 7, 2, 2, 3)
    assert np.isnan(features).sum() == (14 - 2) * 12


def test_the_reader_gives_maps(store: Path) -> None:
    maps = open_store(store)
    assert (maps.dim, maps.row_shape) == (3, (2, 4, 3))
    assert "6 clips with rows of 2 x 4 x 3 features" in repr(maps)
    for copy in (maps, pickle.loads(pickle.dumps(maps))):
        rows = copy["clip_02"]
        assert (rows.shape, rows.dtype) == ((7, 2, 4, 3), np.float32)
        assert rows.tobytes() == rows_of("clip_02", 7, map=MAP)[0].tobytes()


def test_xarray_opens_maps_without_a_warning(store: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(store / "features.zarr")
        assert dict(data.sizes) == {"clip": 8, "time": 7, "y": 2, "x": 4, "channel": 3}
        assert data.features.dims == ("clip", "time", "y", "x", "channel")
        assert data.time.dims == ("clip", "time")
        assert data.length.values.tolist() == [4, 0, 7, 3, 0, 5, 6, 2]
        cell = data.features.isel(clip=2, time=6, y=1, x=3).values
    np.testing.assert_array_equal(cell, rows_of("clip_02", 7, map=MAP)[0][6, 1, 3])


def test_plain_zarr_sees_the_dimensions_and_chunks(store: Path) -> None:
    features = zarr.open_group(store / "features.zarr", mode="r")["features"]
    assert features.shape == (8, 7, 2, 4, 3)
    assert features.chunks == (1, 7, 2, 4, 3)
    assert features.shards == (3, 7, 2, 4, 3)
    assert features.metadata.dimension_names == ("clip", "time", "y", "x", "channel")


def test_inspect_says_height_width_and_channels(avfeat: Cli, store: Path, tmp_path: Path) -> None:
    text = avfeat("inspect", store).stdout
    assert "features[clip=8, time=7, y=2, x=4, channel=3]" in text
    assert "27 of 2 x 4 x 3 x float32" in text
    summary = json.loads(avfeat("inspect", store, "--json").stdout)
    assert summary == summarise(str(store))
    assert summary["shape"] == [8, 7, 2, 4, 3]
    assert summary["dimensions"] == ["clip", "time", "y", "x", "channel"]
    make_store(tmp_path / "vectors", LENGTHS)
    text = avfeat("inspect", tmp_path / "vectors").stdout
    assert "features[clip=8, time=7, feature=3]" in text
    assert "27 of 3 x float32" in text


@pytest.mark.parametrize(("index", "unit"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (7, 2)])
def test_a_flipped_bit_in_a_map_is_named_by_unit_and_clip(
    store: Path, index: int, unit: int
) -> None:
    name, clip_id = f"features.zarr/features/c/{unit}/0/0/0/0", f"clip_{index:02d}"
    content = (store / name).read_bytes()
    rows = rows_of(clip_id, LENGTHS[index], map=MAP)[0].tobytes()
    start = content.index(rows)
    for offset in (start, start + len(rows) // 2, start + len(rows) - 1):
        damaged = bytearray(content)
        damaged[offset] ^= 16
        (store / name).write_bytes(damaged)
        report = verify(str(store))
        shard, clip = report.problems
        assert shard.startswith(f"unit {unit} (rows of ")
        assert shard.endswith(f"{name} was changed after writing")
        assert clip.startswith(f"unit {unit}, clip {clip_id}: ")
        with pytest.raises(IntegrityError, match=f"clip {clip_id}"):
            open_store(store)[clip_id]
    (store / name).unlink()
    assert f"{name} is gone" in verify(str(store)).problems[0]
    with pytest.raises(IntegrityError, match=f"clip {clip_id}: a chunk of features is gone"):
        open_store(store)[clip_id]


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_one_value_of_a_map_that_cannot_be_is_found_in_any_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    monkeypatch.setattr(arrays, "MAX_SHARD_BYTES", 3 * 2 * 24 * 4)
    for row in (0, 1, 4, 6):
        with make_writer(tmp_path / str(row), make_clips((7, 7)), map=MAP) as writer:
            writer.open()
            assert writer.layout.shard_rows == 2
            fill_unit(writer, 0, {0: 7, 1: 7})
            with writer.unit(0).rows() as rows:
                features, times = rows_of("clip_01", 7, map=MAP)
                features[row, 1, 2, 0] = bad
                rows.discard(1)
                rows.append(1, features, times)
                commit(writer, rows, {})
            writer.finish()
        (problem,) = verify(str(tmp_path / str(row))).problems
        assert problem.startswith("unit 0, clip clip_01: rows are not finite")


def test_times_that_go_back_from_one_shard_to_the_next_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_SHARD_BYTES", 3 * 2 * 24 * 4)
    with make_writer(tmp_path, make_clips((4, 4)), map=MAP) as writer:
        writer.open()
        fill_unit(writer, 0, {0: 4, 1: 4})
        with writer.unit(0).rows() as rows:
            rows.discard(0)
            rows.append(0, rows_of("clip_00", 4, map=MAP)[0], np.array([0.0, 2.0, 1.0, 3.0]))
            commit(writer, rows, {})
        writer.finish()
    (problem,) = verify(str(tmp_path)).problems
    assert "unit 0, clip clip_00: rows are not finite, or not in order of time" in problem


@pytest.mark.parametrize("other", [None, (4, 2), (2, 5)])
def test_a_store_goes_on_with_rows_of_its_shape_only(store: Path, other: Map) -> None:
    """Recipes tell them apart as a rule; the store does so whatever a recipe says."""
    before = tree(store)
    for lengths in (LENGTHS, (*LENGTHS, 4)):
        writer = make_writer(store, make_clips(lengths), map=other)
        with pytest.raises(StoreError, match=r"holds rows of shape \(2, 4, 3\), not"):
            writer.prepare()
        with pytest.raises(StoreError, match=r"holds rows of shape \(2, 4, 3\), not"):
            writer.open()
    assert tree(store) == before
    with make_writer(store, make_clips(LENGTHS), map=MAP) as writer:
        writer.open()
        writer.finish()
    assert tree(store) == before
