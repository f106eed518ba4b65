"""No damage passes `verify` unseen, and each is named by file, unit and clip."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from storekit import commit, fill_unit, make_clips, make_recipe, make_store, make_writer
from support import Cli, tree

from avfeat.errors import IntegrityError, StoreNotFoundError
from avfeat.stores.files import Files, sha256
from avfeat.stores.ledger import LedgerEntry
from avfeat.stores.reader import open_store
from avfeat.stores.verify import verify

#: Three units: with a missing clip, with a failed one, and one that is not full.
LENGTHS = (4, 0, 7, 3, -1, 5, 6, 2)
UNIT_CLIPS = {0: ("clip_00", "clip_02"), 1: ("clip_03", "clip_05"), 2: ("clip_06", "clip_07")}
FLIPS = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound store; not to be written to."""
    store = tmp_path_factory.mktemp("whole") / "store"
    make_store(store, LENGTHS)
    return store


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def expected_words(name: str) -> tuple[str, ...]:
    """What a report of damage to the file `name` has to say."""
    if name.startswith("ledger/"):
        unit = int(Path(name).stem)
        return (name, f"unit {unit} ", f"clip_{3 * unit:02d}")
    if "/c/" in name and "clip_id" not in name:
        unit = int(name.split("/c/")[1].split("/")[0])
        return (name, f"unit {unit} ", *UNIT_CLIPS[unit])
    return (name,)


def assert_named(store: Path, name: str) -> None:
    report = verify(str(store))
    assert not report.ok, name
    for word in expected_words(name):
        assert any(word in problem for problem in report.problems), (word, report.problems)


def file_names() -> list[str]:
    """The files of the store, without making it: the list is part of the format."""
    shards = [f"features.zarr/features/c/{unit}/0/0" for unit in range(3)]
    shards += [f"features.zarr/{array}" for unit in range(3) for array in (f"time/c/{unit}/0",)]
    shards += [f"features.zarr/length/c/{unit}" for unit in range(3)]
    arrays = [f"features.zarr/{name}/zarr.json" for name in ("clip_id", "features", "length")]
    metadata = [*arrays, "features.zarr/time/zarr.json", "features.zarr/zarr.json"]
    ledger = [f"ledger/{unit:06d}.json" for unit in range(3)]
    others = ["clips.parquet", "manifest.json", "features.zarr/clip_id/c/0"]
    return sorted(shards + metadata + ledger + others)


def test_a_sound_store_is_whole(whole: Path) -> None:
    assert sorted(tree(whole)) == file_names()
    report = verify(str(whole))
    assert report.ok
    assert report.notes == []
    assert (report.units, report.clips, report.rows, report.files) == (3, 8, 27, 19)


@pytest.mark.parametrize("name", file_names())
def test_a_flipped_bit_is_found_wherever_it_is(store: Path, name: str) -> None:
    content = (store / name).read_bytes()
    bits = 8 * len(content)
    generator = random.Random(name)
    for bit in (0, bits - 1, *(generator.randrange(bits) for _ in range(FLIPS))):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (store / name).write_bytes(damaged)
        assert_named(store, name)
    (store / name).write_bytes(content)
    assert verify(str(store)).ok


@pytest.mark.parametrize("name", file_names())
def test_a_file_that_is_gone_or_cut_short_is_named(store: Path, name: str) -> None:
    content = (store / name).read_bytes()
    (store / name).unlink()
    assert_named(store, name)
    for length in (0, len(content) // 2, len(content) - 1):
        (store / name).write_bytes(content[:length])
        assert_named(store, name)
    (store / name).write_bytes(content + b"\0")
    assert_named(store, name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("features.zarr/features/c/0/0/0", "features.zarr/features/c/1/0/0"),
        ("features.zarr/time/c/1/0", "features.zarr/time/c/2/0"),
        ("features.zarr/length/c/0", "features.zarr/length/c/2"),
        ("ledger/000000.json", "ledger/000001.json"),
    ],
)
def test_two_files_that_changed_places_are_named(store: Path, one: str, other: str) -> None:
    contents = [(store / name).read_bytes() for name in (one, other)]
    assert contents[0] != contents[1]
    (store / one).write_bytes(contents[1])
    (store / other).write_bytes(contents[0])
    assert_named(store, one)
    assert_named(store, other)


def test_a_unit_of_another_recipe_is_refused(store: Path, tmp_path: Path) -> None:
    """All files of the unit fit each other: only the fingerprint tells."""
    make_store(tmp_path / "other", LENGTHS, recipe=make_recipe(seed=1))
    for name in file_names():
        if name in ("ledger/000001.json",) or "/c/1" in name:
            shutil.copy(tmp_path / "other" / name, store / name)
    (problem,) = verify(str(store)).problems
    assert "unit 1 (clips clip_03 to clip_05): ledger/000001.json is of another recipe" in problem
    with pytest.raises(IntegrityError, match=r"000001\.json is of another recipe"):
        open_store(store)


def test_a_unit_of_another_run_of_the_same_recipe_is_noticed(store: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "other", (4, 0, 7, 3, 4, 5, 6, 2))
    for name in file_names():
        if name in ("ledger/000001.json",) or "/c/1" in name:
            shutil.copy(tmp_path / "other" / name, store / name)
    (problem,) = verify(str(store)).problems
    assert problem.startswith("unit 1 (clips clip_03 to clip_05): ledger/000001.json is not the")


@pytest.mark.parametrize("lengths", [(3, 3), (3,) * 20])
def test_the_clip_table_of_another_store_is_noticed(
    store: Path, tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    make_store(tmp_path / "other", lengths)
    shutil.copy(tmp_path / "other/clips.parquet", store)
    assert_named(store, "clips.parquet")
    with pytest.raises(IntegrityError, match=r"clips\.parquet was changed"):
        open_store(store)


def test_a_clip_table_of_any_damage_ends_in_a_report(store: Path) -> None:
    """Parquet's readers raise many things; none may come through."""
    content = (store / "clips.parquet").read_bytes()
    generator = random.Random(5)
    for _ in range(40):
        damaged = bytearray(content)
        start = generator.randrange(len(content))
        damaged[start : start + 8] = generator.randbytes(len(damaged[start : start + 8]))
        (store / "clips.parquet").write_bytes(damaged)
        assert_named(store, "clips.parquet")


def test_a_ledger_entry_of_no_unit_is_noticed(store: Path) -> None:
    entry = LedgerEntry.from_bytes((store / "ledger/000002.json").read_bytes(), "entry")
    beyond = LedgerEntry(3, entry.fingerprint, entry.clips, entry.files)
    (store / "ledger/000003.json").write_bytes(beyond.to_bytes())
    assert verify(str(store)).problems == [
        "ledger/000003.json is the entry of no unit of the store"
    ]


@pytest.mark.parametrize("values", ["nan", "times"])
def test_rows_that_cannot_be_are_named_though_every_digest_fits(
    tmp_path: Path, values: str
) -> None:
    """What a writer with a bug would leave: the digests are right, the rows are not."""
    clips = make_clips((4, 4))
    with make_writer(tmp_path / "store", clips) as writer:
        writer.open()
        fill_unit(writer, 0, {0: 4, 1: 4})
        with writer.unit(0).rows() as rows:
            rows.discard(1)
            features, times = np.ones((4, 3), np.float32), np.arange(4.0)
            if values == "nan":
                features[2, 1] = np.inf
            else:
                times[3] = 0.5
            rows.append(1, features, times)
            commit(writer, rows, {})
        writer.finish()
    (problem,) = verify(str(tmp_path / "store")).problems
    assert "unit 0, clip clip_01: rows are not finite, or not in order of time" in problem


def test_foreign_files_are_notes_and_change_nothing(store: Path) -> None:
    for name in ("thesis.tex", "ledger/.DS_Store", "features.zarr/.zattrs.swp"):
        (store / name).write_text("mine")
    (store / "features.zarr/features/c/9/0").mkdir(parents=True)
    (store / "features.zarr/features/c/9/0/0").write_bytes(b"mine")
    (store / "runs/x.json").write_text("{}")
    report = verify(str(store))
    assert report.ok
    assert report.notes == [
        "features.zarr/.zattrs.swp is not part of the store",
        "features.zarr/features/c/9/0/0 belongs to no committed unit",
        "ledger/.DS_Store is not part of the store",
        "thesis.tex is not part of the store",
    ]
    assert len(open_store(store)) == 6


def test_an_unfinished_store_is_sound_with_a_note(tmp_path: Path) -> None:
    make_store(tmp_path / "store", LENGTHS, units=[1])
    report = verify(str(tmp_path / "store"))
    assert report.ok
    assert report.notes == ["5 of 8 clips are not extracted yet"]
    assert (report.units, report.clips, report.rows) == (1, 8, 8)


def test_a_store_in_the_middle_of_a_run_is_sound_with_notes(tmp_path: Path) -> None:
    with make_writer(tmp_path / "store", make_clips(LENGTHS)) as writer:
        writer.open()
        fill_unit(writer, 0, {0: 4, 1: 0, 2: 7})
        report = verify(str(tmp_path / "store"))
    assert report.ok
    assert report.rows == 11
    assert report.notes == [
        "5 of 8 clips are not extracted yet",
        "a run is writing, or was killed; the same command again finishes it",
    ]


def test_damage_is_found_in_the_middle_of_a_run_too(tmp_path: Path) -> None:
    with make_writer(tmp_path / "store", make_clips(LENGTHS)) as writer:
        writer.open()
        fill_unit(writer, 0, {0: 4, 1: 0, 2: 7})
    for name in file_names():
        path = tmp_path / "store" / name
        if not path.exists() or name == "clips.parquet":
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-3] + b"\0\0\0")
        assert_named(tmp_path / "store", name)
        path.write_bytes(content)


def test_no_store_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no store at"):
        verify(str(tmp_path / "nothing"))


def test_damaged_metadata_does_not_blame_every_clip(store: Path) -> None:
    name = "features.zarr/features/zarr.json"
    text = (store / name).read_text()
    (store / name).write_text(text.replace('"float32"', '"float16"'))
    assert verify(str(store)).problems == [f"{name} was changed after writing"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda shard: shard.unlink(), ("is gone",)),
        (lambda shard: shard.write_bytes(shard.read_bytes()[::-1]), ("changed after writing",)),
    ],
)
def test_the_command_line_says_unit_and_clip_and_ends_with_4(
    avfeat: Cli, store: Path, damage: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    shutil.copytree(store, store.parent / "features/llp/sound")
    shutil.move(store, store.parent / "features/llp/hand")
    avfeat("verify", "features/llp/sound")
    damage(Path("features/llp/hand/features.zarr/features/c/1/0/0"))
    result = avfeat("verify", "features", code=4)
    text = " ".join(result.stdout.split())
    for word in ("unit 1 (rows of clip_03, clip_05)", "features/c/1/0/0", *words):
        assert word in text
    assert "features/llp/hand: 3 problems" in text
    assert "features/llp/sound: whole (3 units, 8 clips, 27 rows, 19 files checked)" in text
    hand, sound = json.loads(avfeat("verify", "features", "--json", code=4).stdout)
    assert (hand["ok"], sound["ok"]) == (False, True)
    assert any(problem.startswith("unit 1, clip clip_05: ") for problem in hand["problems"])


def test_a_store_whose_manifest_is_gone_is_not_passed_over(avfeat: Cli, store: Path) -> None:
    (store / "manifest.json").unlink()
    for path in (store, store.parent):
        assert "manifest.json is gone" in avfeat("verify", path, code=4).stdout
    assert "manifest.json is gone" in avfeat("inspect", store, code=4).stderr
    with pytest.raises(IntegrityError, match=r"manifest\.json is gone"):
        open_store(store)


def test_the_digests_are_sha256_of_the_files(whole: Path) -> None:
    """As docs/store-format.md has it, so that other programs can check them."""
    manifest = json.loads((whole / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert sha256((whole / name).read_bytes()) == digest
    for unit, digest in manifest["ledger"].items():
        data = (whole / f"ledger/{unit}.json").read_bytes()
        assert sha256(data) == digest
        for name, shard in json.loads(data)["files"].items():
            assert sha256((whole / name).read_bytes()) == shard


def test_the_arrays_have_checksums_of_their_own(store: Path) -> None:
    """Plain zarr readers, who know no ledger, are warned as well."""
    shard = store / "features.zarr/features/c/2/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    group = zarr.open_group(store / "features.zarr", mode="r")
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)checksum|crc"):
        group["features"][6]
    with pytest.raises(IntegrityError, match="clip clip_06"):
        open_store(store)["clip_06"]
    assert open_store(store)["clip_07"].shape == (2, 3)
    assert Files(store).exists("manifest.json")
