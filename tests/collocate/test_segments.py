"""Features by the second against a literal average, and clips that end early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collocationkit import SEGMENTS, make_clips, make_family

from avfeat.collocate.segments import blocks, by_second, even_spans, segment_count
from avfeat.errors import FeaturesError, IntegrityError
from avfeat.manifests.clips import Clip
from avfeat.stores.reader import open_store


def of_one(rows: np.ndarray, times: np.ndarray, segments: int) -> np.ndarray:
    return by_second(rows[None], times[None], segments)[0]


def slowly(rows: np.ndarray, times: np.ndarray, segments: int) -> np.ndarray:
    """The mean of the rows of each second; of none, the row nearest to the second's middle.

    Times alone tell the second.
    """
    found = []
    for second in range(segments):
        inside = [
            row
            for row, time in zip(rows, times, strict=True)
            if min(max(int(time), 0), segments - 1) == second
        ]
        if inside:
            found.append(np.mean(np.array(inside, np.float64), axis=0))
        else:
            found.append(rows[min(range(len(rows)), key=lambda n: abs(times[n] - second - 0.5))])
    return np.array(found)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 79, 80])
@pytest.mark.parametrize("span", [0.7, 4.2, 9.2, 10.4])
def test_every_second_has_the_mean_of_its_rows(count: int, span: float) -> None:
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(count, 3)).astype(np.float32)
    times = np.sort(rng.uniform(0, span, count))
    found = of_one(rows, times, 10)
    assert found.shape == (10, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slowly(rows, times, 10), atol=1e-6)


def test_rows_that_are_seconds_already_stay_as_they_are() -> None:
    rows = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    # VGGish's windows of 0.96 s drift, and still each second has one.
    times = np.stack([np.arange(4) + 0.5, 0.48 + 0.96 * np.arange(4)])
    assert by_second(rows, times, 4) is rows


def test_what_lies_beside_a_clip_changes_nothing() -> None:
    """One of three has its rows in the first half: the others' times still do not tell."""
    rows = np.random.default_rng(8).normal(size=(3, 8, 3)).astype(np.float32)
    late = np.arange(8) / 2 + 0.25
    late[4:] -= 0.3  # still two to a second by their number
    times = np.stack([late, np.arange(8) / 4, late])
    found = by_second(rows, times, 4)
    for number in range(3):
        np.testing.assert_array_equal(found[number], of_one(rows[number], times[number], 4))
    assert np.array_equal(
        found[0], rows[0].reshape(4, 2, 3).mean(axis=1, dtype=np.float64).astype("f4")
    )
    np.testing.assert_allclose(found[1], slowly(rows[1], times[1], 4), atol=1e-6)


@pytest.mark.parametrize("shift", [-0.06, -1e-9, 0.0, 0.06])
def test_eighty_frames_are_eight_to_each_second_whatever_their_times_round_to(shift: float) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(80, 3)).astype(np.float32)
    found = of_one(rows, np.maximum(np.arange(80) / 8 + shift, 0), 10)
    assert found.dtype == np.float32
    expected = [rows[8 * k : 8 * k + 8].astype(np.float64).mean(axis=0) for k in range(10)]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("fps", [30_000 / 1001, 25.0, 24_000 / 1001, 15.0, 2.3])
def test_one_frame_for_each_second_is_that_second(fps: float) -> None:
    """The frame on screen when a second begins lies before it."""
    shown = np.arange(400) / fps
    times = np.array([shown[shown <= second][-1] for second in range(10)])
    rows = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(of_one(rows, times, 10), rows)


def test_rows_of_a_clip_that_ends_early_are_not_stretched() -> None:
    """Five seconds at two rows each are as many rows as ten at one."""
    rows = np.arange(10, dtype=np.float32)[:, None]
    found = of_one(rows, np.arange(10) / 2, 10)
    np.testing.assert_allclose(found[:, 0], [0.5, 2.5, 4.5, 6.5, 8.5, 9, 9, 9, 9, 9])


@pytest.mark.parametrize("hop", [0.5, 0.9, 1.1])
def test_rows_of_another_pace_are_told_by_their_times(hop: float) -> None:
    rows = np.arange(10, dtype=np.float32)[:, None]
    times = (np.arange(10) + 0.5) * hop
    np.testing.assert_allclose(of_one(rows, times, 10), slowly(rows, times, 10), atol=1e-6)


def test_a_clip_that_ends_early_repeats_its_last_row() -> None:
    rows = np.array([[1.0], [2.0], [3.0]], np.float32)
    found = of_one(rows, np.array([0.1, 0.6, 1.2]), 4)
    np.testing.assert_allclose(found[:, 0], [1.5, 3, 3, 3])


CLIPS = make_clips({"train": 5})


def test_stores_are_read_in_blocks_in_the_order_asked_for(tmp_path: Path) -> None:
    make_family(tmp_path, CLIPS, names=("resnet152",))
    store = open_store(tmp_path / "llp" / "resnet152")
    ids = [clip.id for clip in reversed(CLIPS)]
    found = [block.copy() for block in blocks(store, ids, SEGMENTS, size=2)]
    assert [len(block) for block in found] == [1, 2, 2]
    expected = [store[i].reshape(SEGMENTS, 2, -1).mean(axis=1) for i in ids]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.inf, FeaturesError, r"llp/vggish: clip train_03 has infinite features"),
        (-np.inf, FeaturesError, r"llp/vggish: clip train_03 has infinite features"),
        # Rows never have NaN, which fills what was not written: the reader takes it for damage.
        (np.nan, IntegrityError, r"llp/vggish/features.zarr: clip train_03"),
    ],
)
def test_what_is_no_number_names_store_and_clip(
    tmp_path: Path, value: float, error: type[Exception], words: str
) -> None:
    def rows(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        features = np.ones((2 * SEGMENTS, 5), np.float32)
        if clip.id == "train_03":
            features[4:6, 1] = value, -value  # of one second
        return features, np.arange(2 * SEGMENTS) / 2 + 0.25

    make_family(tmp_path, CLIPS, names=("vggish",), rows={"vggish": rows})
    store = open_store(tmp_path / "llp" / "vggish")
    assert [len(block) for block in blocks(store, ["train_02"], SEGMENTS)] == [1]
    with pytest.raises(error, match=words):
        list(blocks(store, [clip.id for clip in CLIPS], SEGMENTS))


def test_spans_are_even_and_are_all() -> None:
    for count in range(12):
        for number in range(1, 6):
            spans = list(even_spans(count, number))
            assert [place for span in spans for place in range(*span)] == list(range(count))
            lengths = [end - first for first, end in spans]
            assert len(lengths) == number
            assert max(lengths) - min(lengths) <= 1
    assert list(even_spans(0, 0)) == []


def test_clips_of_other_lengths_are_refused(tmp_path: Path) -> None:
    lengths = [4.0, 4.2, 7.0, 9.6, 0.3]
    clips = [replace(clip, end=end) for clip, end in zip(CLIPS, lengths, strict=True)]
    make_family(tmp_path, clips, names=("vggish",))
    store = open_store(tmp_path / "llp" / "vggish")
    ids = [clip.id for clip in clips]
    assert segment_count([store], ids[:2]) == 4
    with pytest.raises(FeaturesError, match=r"train_00 has 4 s and train_03 has 10 s"):
        segment_count([store], ids[:4])
    with pytest.raises(FeaturesError, match=r"train_04 .* shorter than a second"):
        segment_count([store], ids[4:])
