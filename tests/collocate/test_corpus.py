"""What trainings read: once per process, bounded, and never of another store."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from collocationkit import SEGMENTS, drawn_rows, make_clips, make_family

from avfeat.collocate import corpus as module
from avfeat.collocate.candidates import Candidates, gather
from avfeat.collocate.corpus import Corpus, Source
from avfeat.errors import FeaturesError
from avfeat.manifests.clips import Clip
from avfeat.stores.reader import FeatureStore, open_store

CLIPS = make_clips({"train": 5, "val": 4})


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    out = make_family(tmp_path_factory.mktemp("features"), CLIPS)
    return gather(out, dataset=None, audio=["all"], visual=["all"])


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[module._Cache]:
    """An empty cache, and the names of stores that are opened."""
    cache = module._Cache()
    monkeypatch.setattr(module, "_cache", cache)
    return cache


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    class Watched(FeatureStore):
        def __init__(self, url: str | Path, *, allow_random: bool = False) -> None:
            names.append(Path(url).name)
            super().__init__(url, allow_random=allow_random)

    monkeypatch.setattr(module, "FeatureStore", Watched)
    return names


def make(candidates: Candidates) -> Corpus:
    return Corpus.of(candidates, {"train", "val"}, allow_random=False)


def test_arrays_of_a_split(candidates: Candidates, cache: object) -> None:
    corpus = make(candidates)
    assert (corpus.segments, corpus.classes) == (SEGMENTS, ("Dog", "Cat", "Car"))
    audio, visual, motion = (
        Source.of(one)
        for one in (candidates.audio[0], candidates.visual[0], candidates.motion)  # type: ignore[arg-type]
    )
    arrays = corpus.arrays(audio, visual, motion, "val")
    store = open_store(candidates.visual[0].store.url)
    expected = [
        store[clip.id].reshape(SEGMENTS, 2, -1).mean(axis=1)
        for clip in CLIPS
        if clip.split == "val"
    ]
    np.testing.assert_allclose(arrays.visual, expected, rtol=1e-6)
    assert arrays.audio.shape == (4, SEGMENTS, 7)
    assert arrays.motion is not None
    assert arrays.motion.shape == (4, SEGMENTS, 4)
    assert arrays.dense is not None
    for clip, weak, dense in zip(CLIPS[5:], arrays.weak, arrays.dense, strict=True):
        named = {corpus.classes[c] for c in np.flatnonzero(weak)}
        assert named == set(clip.labels) == {corpus.classes[c] for c in np.argwhere(dense)[:, 2]}
    train = corpus.arrays(audio, visual, None, "train")
    assert (train.dense, train.motion) == (None, None)


def test_a_store_is_read_once_and_the_longest_unused_goes_first(
    candidates: Candidates,
    cache: module._Cache,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = make(candidates)
    sources = {one.name: Source.of(one) for one in candidates.all}
    size = {name: 4 * 4 * SEGMENTS * d for name, d in (("vggish", 5), ("openl3", 7))}
    monkeypatch.setattr(module, "_KEPT_BYTES", size["vggish"] + size["openl3"])
    first = corpus.features(sources["vggish"], "val")
    assert not first.flags.writeable
    corpus.features(sources["openl3"], "val")
    assert corpus.features(sources["vggish"], "val") is first
    assert opened == ["vggish", "openl3"]
    corpus.features(sources["r2plus1d_18"], "val")  # openl3's were unused for longest
    assert corpus.features(sources["vggish"], "val") is first
    corpus.features(sources["openl3"], "val")
    assert opened == ["vggish", "openl3", "r2plus1d_18", "openl3"]
    assert cache._bytes() <= module._KEPT_BYTES
    monkeypatch.setattr(module, "_KEPT_BYTES", 1)
    kept = corpus.features(sources["polynet"], "val")
    assert cache._bytes() == kept.nbytes  # one is always kept, or nothing could be used twice


def test_rows_tell_stores_of_one_recipe_apart(tmp_path: Path) -> None:
    """As of media that was fetched again: their trainings are not each other's."""
    usual = drawn_rows("vggish", "audio", 5, 1)

    def louder(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        rows, times = usual(clip)
        return (2 * rows if clip.id == "val_03" else rows), times

    names = ("vggish", "polynet")
    found = []
    for folder, rows in (("a", usual), ("b", usual), ("c", louder)):
        out = make_family(tmp_path / folder, CLIPS, names=names, rows={"vggish": rows})
        found.append(gather(out, dataset=None, audio=["all"], visual=["all"]))
    assert len({Source.of(each.audio[0]).fingerprint for each in found}) == 1
    first, same, other = (make(each).contents for each in found)
    assert first == same
    assert first["val"]["polynet"] == other["val"]["polynet"]
    assert first["val"]["vggish"] != other["val"]["vggish"]


def test_a_store_that_was_replaced_is_refused(candidates: Candidates, cache: object) -> None:
    corpus = make(candidates)
    one = Source.of(candidates.audio[0])
    with pytest.raises(FeaturesError, match="openl3 was changed while it was being used"):
        corpus.features(dataclasses.replace(one, fingerprint="other"), "val")
    corpus.features(one, "val")  # what a long-lived worker keeps is of these rows alone
    contents = {split: dict.fromkeys(rows, "other") for split, rows in corpus.contents.items()}
    with pytest.raises(FeaturesError, match="openl3 was changed while it was being used"):
        dataclasses.replace(corpus, contents=contents).features(one, "val")


def test_sources_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_family(Path("features"), CLIPS[:1], names=("vggish", "resnet152"))
    found = gather("features", dataset=None, audio=["all"], visual=["all"])
    assert found.audio[0].store.url == "features/llp/vggish"
    assert Source.of(found.audio[0]).url == str(tmp_path / "features/llp/vggish")


def test_it_travels_to_workers_without_features(candidates: Candidates) -> None:
    corpus = make(candidates)
    again = pickle.loads(pickle.dumps(corpus))
    assert again == corpus
    assert len(pickle.dumps(corpus)) < 10_000


def test_without_classes_nothing_can_be_trained(tmp_path: Path) -> None:
    clips = [type(clip)(clip.id, 0.0, SEGMENTS, clip.split) for clip in CLIPS]
    out = make_family(tmp_path, clips, names=("vggish", "resnet152"), classes=())
    found = gather(out, dataset=None, audio=["all"], visual=["all"])
    with pytest.raises(FeaturesError, match="llp has no classes"):
        Corpus.of(found, {"train"}, allow_random=False)
