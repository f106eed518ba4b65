"""The reader: a mapping of clips that have rows, in this process and in a data loader's."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from storekit import fill_unit, make_clips, make_recipe, make_store, make_writer, rows_of
from torch.utils.data import DataLoader, Dataset

from avfeat.errors import (
    IntegrityError,
    RandomWeightsError,
    StoreError,
    StoreNotFoundError,
    UnknownClipError,
    UnknownNameError,
)
from avfeat.stores.reader import FeatureStore, open_store
from avfeat.stores.summary import find_stores, summarise

LENGTHS = (4, 0, 7, 3, -1, 5, 6, 2)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three train, three val and two test clips, two of all without rows."""
    path = tmp_path_factory.mktemp("reader") / "handmade" / "hand"
    clips = [
        dataclasses.replace(clip, split=("train", "val", "test")[index // 3])
        for index, clip in enumerate(make_clips(LENGTHS))
    ]
    make_store(path, LENGTHS, clips=clips)
    return path


def test_it_is_a_mapping_of_the_clips_that_have_rows(path: Path) -> None:
    store = open_store(path)
    expected = [f"clip_{index:02d}" for index in (0, 2, 3, 5, 6, 7)]
    assert list(store) == list(store.keys()) == store.ids() == expected
    assert len(store) == 6
    assert {clip_id: len(rows) for clip_id, rows in store.items()} == dict(
        zip(expected, (4, 7, 3, 5, 6, 2), strict=True)
    )
    assert "clip_01" not in store
    assert "nothing" not in store
    assert 7 not in store
    assert store.get("clip_01") is None
    assert store.get("nothing", 5) == 5
    assert store["clip_02"].dtype == np.float32
    assert store.times("clip_02").dtype == np.float64
    assert (store.dim, store.classes, store.complete) == (3, ("Dog", "Cat"), True)
    assert store.fingerprint == make_recipe().fingerprint
    assert store.recipe == make_recipe()
    assert "6 clips with rows of 3 features" in repr(store)
    assert store.row_shape == (3,)


def test_a_store_is_equal_to_itself_and_can_be_a_key(path: Path) -> None:
    store = open_store(path)
    assert store == store  # a mapping would compare arrays here
    assert store != open_store(path)
    assert {store: 1}[store] == 1


def test_ids_by_split(path: Path) -> None:
    store = open_store(path)
    assert store.splits == ("train", "val", "test")
    assert store.ids(split="train") == ["clip_00", "clip_02"]
    assert store.ids(split="val") == ["clip_03", "clip_05"]
    assert store.ids(split="test") == ["clip_06", "clip_07"]
    with pytest.raises(StoreError, match="has no split 'tset'; it has train, val, test"):
        store.ids(split="tset")


@pytest.mark.parametrize(
    ("clip_id", "words"),
    [
        ("clip_01", "clip clip_01 has no rows: missing no media found"),
        ("clip_04", r"clip clip_04 has no rows: failed\(not_media\) not a video"),
        ("clip_0", "unknown clip 'clip_0'. Did you mean 'clip_0"),
        ("zzzzzzzz", "unknown clip 'zzzzzzzz'. Known: clip_00, clip_01"),
    ],
)
def test_why_a_clip_has_no_rows(path: Path, clip_id: str, words: str) -> None:
    store = open_store(path)
    with pytest.raises(KeyError, match=words):
        store[clip_id]
    with pytest.raises(KeyError, match=words):
        store.times(clip_id)


def test_unknown_clips_are_an_error_of_the_public_module(path: Path) -> None:
    with pytest.raises(UnknownClipError) as raised:
        open_store(path).clip("clip_0")
    assert isinstance(raised.value, KeyError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_what_is_known_of_clips_without_rows(path: Path) -> None:
    store = open_store(path)
    assert store.clip("clip_04").labels == ("Dog",)
    assert (store.outcome("clip_04").status, store.outcome("clip_04").kind) == (
        "failed",
        "not_media",
    )
    for ask in (store.clip, store.outcome):
        with pytest.raises(KeyError, match="unknown clip 'x'"):
            ask("x")
        with pytest.raises(UnknownNameError):
            ask("x")


def test_random_rows_need_a_word(tmp_path: Path) -> None:
    recipe = make_recipe(weights={"source": "random", "tag": "", "seed": 0, "method": "x"})
    make_store(tmp_path, (3,), recipe=recipe)
    with pytest.raises(RandomWeightsError, match="its numbers mean nothing"):
        open_store(tmp_path)
    assert len(open_store(tmp_path, allow_random=True)) == 1


def test_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no store at"):
        open_store(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file, not a store"):
        open_store(tmp_path / "file")


@pytest.mark.parametrize("name", ["manifest.json", "clips.parquet", "ledger/000001.json"])
def test_damage_that_could_mislead_is_refused_on_opening(tmp_path: Path, name: str) -> None:
    make_store(tmp_path, LENGTHS)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        open_store(tmp_path)
    with pytest.raises(IntegrityError, match=name):
        summarise(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("features.zarr/features/c/0/0/0", None),
        ("features.zarr/features/c/0/0/0", b""),
        ("features.zarr/time/c/0/0", None),
        ("features.zarr/zarr.json", None),
        ("features.zarr/zarr.json", b"\xff"),
        ("features.zarr/zarr.json", b"[]"),
    ],
)
def test_rows_that_are_gone_are_never_fill_values(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    make_store(tmp_path, LENGTHS)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    store = open_store(tmp_path)
    with pytest.raises(IntegrityError, match="clip clip_00"):
        (store["clip_00"], store.times("clip_00"))


def test_after_a_killed_run_the_ledger_is_believed(tmp_path: Path) -> None:
    """clips.parquet and manifest.json lag behind: they are written when a run ends."""
    with make_writer(tmp_path, make_clips(LENGTHS)) as writer:
        writer.open()
        fill_unit(writer, 1, {3: 3, 4: -1, 5: 5})
    store = open_store(tmp_path)
    assert list(store) == ["clip_03", "clip_05"]
    assert store["clip_05"].tobytes() == rows_of("clip_05", 5)[0].tobytes()
    assert not store.complete
    summary = summarise(str(tmp_path))
    assert (summary["complete"], summary["at_rest"]) == (False, False)
    assert summary["counts"] == {"ok": 2, "failed": 1, "pending": 5}
    assert summary["units"] == {"committed": 1, "all": 3}
    assert [clip["id"] for clip in summary["failed"]] == ["clip_04"]


def test_it_can_be_pickled_before_and_after_use(path: Path) -> None:
    store = open_store(path)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(store))
        assert copy["clip_02"].tobytes() == store["clip_02"].tobytes()
        assert copy.ids(split="val") == store.ids(split="val")
        assert copy.fingerprint == store.fingerprint


class Rows(Dataset[torch.Tensor]):
    """What a trainer writes."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._ids = store.ids()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._store[self._ids[index]])


def test_it_serves_the_spawned_workers_of_a_data_loader(path: Path) -> None:
    store = open_store(path)
    store["clip_00"]  # opened here before it is sent there
    loader = DataLoader(
        Rows(store), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )
    received = [rows.numpy().tobytes() for rows in loader]
    assert received == [store[clip_id].tobytes() for clip_id in store]


def test_stores_are_found_below_a_folder_but_no_deeper(tmp_path: Path) -> None:
    top = tmp_path / "somewhere" / "features"
    path = top / "handmade" / "hand"
    make_store(path, (1,))
    for start in (path, path.parent, top):
        assert find_stores(str(start)) == [str(path)]
    assert find_stores(f"{top}/") == [str(path)]
    for start in (top.parent, path / "runs", tmp_path / "nothing"):
        with pytest.raises(StoreNotFoundError, match="there is no feature store at"):
            find_stores(str(start))
    with pytest.raises(StoreNotFoundError, match=f"is a file of a store; name the store, {path}$"):
        find_stores(f"{path}/manifest.json")


def test_a_store_in_another_file_system(tmp_path: Path) -> None:
    make_store("memory://reader/llp/hand", LENGTHS)
    assert find_stores("memory://reader") == ["memory://reader/llp/hand"]
    store = open_store("memory://reader/llp/hand")
    assert store["clip_02"].tobytes() == rows_of("clip_02", 7)[0].tobytes()
    assert summarise("memory://reader/llp/hand")["rows"] == 27
    make_store(tmp_path / "x", LENGTHS)
    by_url = open_store(f"file://{tmp_path}/x")
    assert by_url["clip_02"].tobytes() == store["clip_02"].tobytes()


@pytest.mark.parametrize(
    ("lengths", "dim", "map_"),
    [
        (LENGTHS, 3, None),
        ((300, 5, 280, 300, 2), 3, None),  # clips of more than one chunk
        ((4, 6, 0, 6, 1), 2, (2, 3)),
    ],
)
def test_clips_read_together_are_those_read_one_by_one(
    tmp_path: Path, lengths: tuple[int, ...], dim: int, map_: tuple[int, int] | None
) -> None:
    make_store(tmp_path / "s", lengths, dim=dim, map=map_)
    store = open_store(tmp_path / "s")
    ids = store.ids()
    for asked in (ids, ids[::-1], [*ids[1:], *ids[:3]], ids[:1] * 2, []):
        found = list(store.each(asked))
        assert len(found) == len(asked)
        for clip_id, (rows, times) in zip(asked, found, strict=True):
            np.testing.assert_array_equal(rows, store[clip_id], strict=True)
            np.testing.assert_array_equal(times, store.times(clip_id), strict=True)


def test_clips_read_together_name_the_damaged_one(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    shard = copy / "features.zarr/features/c/0/0/0"
    where = shard.read_bytes().find(rows_of("clip_02", 7)[0].tobytes())
    assert where >= 0
    data = bytearray(shard.read_bytes())
    data[where + 5] ^= 1
    shard.write_bytes(bytes(data))
    store = open_store(copy)
    each = store.each(store.ids())
    assert np.array_equal(next(each)[0], store["clip_00"])
    with pytest.raises(IntegrityError, match=r"clip clip_02: features: bytes were changed"):
        next(each)
    with pytest.raises(KeyError, match="clip clip_01 has no rows: missing"):
        list(store.each(["clip_00", "clip_01"]))
