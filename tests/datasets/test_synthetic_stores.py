"""The synthetic family in stores: the same bytes always, and never taken for real features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from storekit import make_store
from support import KilledError, die_at_write, tree

import avfeat
from avfeat.datasets.synthetic import BACKBONES, CLASSES, Family
from avfeat.datasets.synthetic_stores import size_bytes, write
from avfeat.errors import StoreBusyError, StoreError
from avfeat.stores.verify import verify

FAMILY = Family(seed=1, clips=(40, 10, 20))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small family; tests leave it as it is."""
    out = tmp_path_factory.mktemp("synthetic")
    write(FAMILY, str(out))
    return out / "synthetic"


def test_stores_hold_the_family(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted(
        [*(backbone.name for backbone in BACKBONES), "truth.json"]
    )
    for backbone in BACKBONES:
        store = avfeat.open_store(written / backbone.name)  # allow_random is not needed
        assert store.complete
        assert store.classes == CLASSES
        assert store.splits == ("train", "val", "test")
        assert [len(store.ids(split=split)) for split in store.splits] == [40, 10, 20]
        assert store.recipe.backbone["modality"] == backbone.modality
        for clip_id in ("train_000000", "train_000039", "val_000009", "test_000019"):
            split, _, number = clip_id.partition("_")
            features, times = FAMILY.features(backbone, split, int(number))
            assert np.array_equal(store[clip_id], features)
            assert np.array_equal(store.times(clip_id), times)
        clip = store.clip("test_000003")
        assert clip.labels == FAMILY.scene("test", 3).labels
        assert clip.events == FAMILY.scene("test", 3).events
        report = verify(str(written / backbone.name))
        assert (report.ok, report.finished, report.rows) == (True, True, 700 * backbone.rows)


def test_they_never_pass_for_real_features(written: Path) -> None:
    for backbone in BACKBONES:
        recipe = avfeat.open_store(written / backbone.name).recipe
        assert recipe.weights["source"] == "synthetic"
        assert recipe.weights["seed"] == 1
        assert recipe.weights["method"] == "avfeat-synthetic-v1"
        assert recipe.weights["parameters"] == FAMILY.parameters
        assert recipe.backbone["input"]["quality"] == list(backbone.quality)
        manifest = json.loads((written / backbone.name / "manifest.json").read_text())
        assert manifest["dataset"]["name"] == "synthetic"


def test_the_truth_lies_beside_them(written: Path) -> None:
    truth = json.loads((written / "truth.json").read_text())
    assert truth["best_pair"] == {"audio": "vggish", "visual": "vgg19_bn"}
    assert truth == json.loads(json.dumps(FAMILY.truth()))


def test_one_seed_gives_the_same_bytes_elsewhere(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = []
    results = write(FAMILY, "other", clip_done=lambda clip: drawn.append(clip.id))
    assert tree(Path("other/synthetic")) == tree(written)
    assert drawn == [clip.id for clip in FAMILY.manifest_clips]
    assert [result["store"] for result in results] == [
        f"other/synthetic/{backbone.name}" for backbone in BACKBONES
    ]
    rows = sum(result["rows"] * result["dim"] * 4 for result in results)
    assert size_bytes(FAMILY) == rows


def test_what_is_there_is_left_alone(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*") if path.is_file()}
    drawn = []
    write(FAMILY, str(written.parent), clip_done=lambda clip: drawn.append(clip.id))
    after = {path: path.stat().st_mtime_ns for path in written.rglob("*") if path.is_file()}
    assert drawn == []
    for path in before.keys() | after.keys():
        assert "runs" in path.parts or before.get(path) == after.get(path)


@pytest.mark.parametrize("step", [0, 1, 9, 60, 120, 200])
def test_killed_and_repeated_it_ends_in_the_same_bytes(
    written: Path, tmp_path: Path, step: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_at_write(patch, step)
        with pytest.raises(KilledError):
            write(FAMILY, str(tmp_path))
    write(FAMILY, str(tmp_path))
    assert tree(tmp_path / "synthetic") == tree(written)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Family(seed=2, clips=(40, 10, 20)), "seed: 1 there, 2 now"),
        (Family(seed=1, clips=(41, 10, 20)), "'train': 41"),
        (Family(seed=1, clips=(40, 10, 20), width="real"), "width: 'small' there, 'real' now"),
    ],
)
def test_another_family_is_refused(written: Path, other: Family, words: str) -> None:
    before = tree(written)
    with pytest.raises(StoreError, match=words):
        write(other, str(written.parent))
    assert tree(written) == before


@pytest.mark.parametrize("truth", [b"", b"[]", b"\xff", b"{}", None])
@pytest.mark.parametrize("clips", [(40, 10, 20), (40, 10, 50), (40, 10, 19)])
def test_stores_whose_truth_was_damaged(
    written: Path, tmp_path: Path, truth: bytes | None, clips: tuple[int, int, int]
) -> None:
    """A damaged file is refused; without one, the stores must be those of the family."""
    folder = tmp_path / "synthetic"
    shutil.copytree(written, folder)
    if truth is None:
        (folder / "truth.json").unlink()
    else:
        (folder / "truth.json").write_bytes(truth)
    before = {name: data for name, data in tree(folder).items() if name != "truth.json"}
    family = Family(seed=1, clips=clips)
    if truth is None and clips[2] >= 20:
        write(family, str(tmp_path))  # goes on: clips of a larger family begin with the same ones
        write(family, str(tmp_path / "fresh"))
        assert tree(folder) == tree(tmp_path / "fresh" / "synthetic")
        return
    with pytest.raises(StoreError, match="delete"):
        write(family, str(tmp_path))
    after = {name: data for name, data in tree(folder).items() if name != "truth.json"}
    assert after == before


def test_real_features_are_not_touched(tmp_path: Path) -> None:
    make_store(tmp_path / "synthetic" / "polynet", [3, 4, 5])
    before = tree(tmp_path / "synthetic" / "polynet")
    with pytest.raises(StoreError):
        write(FAMILY, str(tmp_path))
    assert tree(tmp_path / "synthetic" / "polynet") == before
    assert [path.name for path in (tmp_path / "synthetic").iterdir()] == ["polynet"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    def again(_: object) -> None:
        write(FAMILY, str(tmp_path))

    with pytest.raises(StoreBusyError):
        write(FAMILY, str(tmp_path), clip_done=again)


def test_stores_may_lie_elsewhere_than_on_a_disk(written: Path) -> None:
    write(FAMILY, "memory://bucket/features")
    store = avfeat.open_store("memory://bucket/features/synthetic/openl3")
    assert np.array_equal(store["val_000002"], avfeat.open_store(written / "openl3")["val_000002"])
