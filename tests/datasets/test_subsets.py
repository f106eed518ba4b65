"""Training sets of fewer classes: the counts of the real LLP files, and what is stripped."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from avfeat import datasets
from avfeat.datasets.subsets import class_subset
from avfeat.errors import UsageError
from avfeat.manifests.clips import Clip, Event

CLASSES = ("Speech", "Car", "Dog")
BOTH = Clip("both", 0, 10, "train", ("Speech", "Dog"))
CLIPS = (
    Clip("speech", 0, 10, "train", ("Speech",)),
    BOTH,
    Clip("dog", 0, 10, "train", ("Dog",)),
    Clip("background", 0, 10, "train"),
    # Of the weak labels one lacks, as in some LLP clips.
    Clip(
        "seen", 0, 10, "val", ("Car",), (Event("visual", "Dog", 2, 5), Event("audio", "Car", 0, 9))
    ),
)


@pytest.fixture(scope="module")
def train(
    llp_official: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Clip], tuple[str, ...]]:
    media = tmp_path_factory.mktemp("media")
    manifest = datasets.get("llp").load(annotations=llp_official, data=media)
    return [clip for clip in manifest.clips if clip.split == "train"], manifest.classes


# The reference counts, taken from the files with nothing of this package.
def test_llp_in_canonical_order(train: tuple[list[Clip], tuple[str, ...]]) -> None:
    clips, classes = train
    found = [len(class_subset(clips, classes, keep=keep)) for keep in (25, 20, 15, 10)]
    assert found == [10_000, 8_513, 6_707, 3_360]


def test_llp_by_frequency(train: tuple[list[Clip], tuple[str, ...]]) -> None:
    clips, classes = train
    counted = Counter(label for clip in clips for label in clip.labels)
    ordered = sorted(classes, key=lambda name: -counted[name])
    found = [len(class_subset(clips, ordered, keep=keep)) for keep in (20, 15, 10)]
    assert found == [9_213, 7_841, 5_680]


def test_only_lets_no_other_class_in(train: tuple[list[Clip], tuple[str, ...]]) -> None:
    clips, classes = train
    kept = class_subset(clips, classes, keep=10)
    assert {label for clip in kept for label in clip.labels} == set(classes[:10])
    # Nothing of a clip changes, nor does the order, and a smaller set is in a larger one.
    places = {clip: place for place, clip in enumerate(clips)}
    assert sorted(kept, key=places.__getitem__) == list(kept)
    assert set(kept) < set(class_subset(clips, classes, keep=15))


def test_only_goes_by_events_too_and_keeps_background() -> None:
    assert [clip.id for clip in class_subset(CLIPS, CLASSES, keep=2)] == ["speech", "background"]
    assert class_subset(CLIPS, CLASSES, keep=3) == CLIPS


@pytest.mark.parametrize("keep", [0, -1, 4])
def test_a_number_that_there_is_not_is_refused(keep: int) -> None:
    with pytest.raises(UsageError, match=f"{keep} of 3 classes"):
        class_subset(CLIPS, CLASSES, keep=keep)
