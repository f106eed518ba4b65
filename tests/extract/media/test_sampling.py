from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from avfeat.extract.media import Window, sample_count
from avfeat.extract.media.sampling import (
    Timeline,
    emitted_frames,
    exact,
    select,
    thinned,
)

WHOLE = Window(0, 10, whole=True)


def constant(fps: Fraction, seconds: float = 10, start: int = 0) -> Timeline:
    base = 1 / (fps * 512)
    n = int(seconds * fps)
    return Timeline(
        ticks=start + 512 * np.arange(n, dtype=np.int64),
        durations=np.full(n, 512, dtype=np.int64),
        time_base=base,
        rate=fps,
    )


@pytest.mark.parametrize(
    ("fps", "head", "tail"),
    [
        (Fraction(25), [0, 1, 2, 5, 9, 12, 15, 18, 21, 24], [240, 243, 246, 249]),
        (Fraction(30), [0, 1, 3, 7, 10, 14, 18, 22, 25, 29], [288, 292, 295, 299]),
        (Fraction(30000, 1001), [0, 1, 3, 7, 10, 14, 18, 22, 25, 29], [288, 291, 295, 299]),
        (Fraction(24000, 1001), [0, 1, 2, 5, 8, 11, 14, 17, 20, 23], [230, 233, 236, 239]),
        (Fraction(60), [0, 1, 6, 14, 21, 29, 36, 44, 51, 59], [576, 584, 591, 599]),
    ],
)
def test_avvp_gives_the_published_vectors(fps: Fraction, head: list[int], tail: list[int]) -> None:
    timeline = constant(fps, seconds=10.01 if fps.denominator > 1 else 10)
    emitted = emitted_frames(timeline, window=WHOLE).tolist()
    assert len(emitted) == 82
    assert emitted[: len(head)] == head
    assert emitted[-4:] == tail


@pytest.mark.parametrize(
    ("fps", "seconds", "count"),
    [(8, 10, 80), (5, 10, 80), (10, 10, 82), (25, 9.6, 78), (25, 10.24, 84)],
)
def test_avvp_counts(fps: int, seconds: float, count: int) -> None:
    timeline = constant(Fraction(fps), seconds)
    assert len(emitted_frames(timeline, window=WHOLE)) == count


@pytest.mark.parametrize(("n", "dropped"), [(82, [20, 61]), (81, [40]), (84, [10, 31, 52, 73])])
def test_thinning_drops_the_frames_that_avvp_drops(n: int, dropped: list[int]) -> None:
    assert sorted(set(range(n)) - set(thinned(n, 80).tolist())) == dropped


def test_thinning_repeats_where_frames_lack() -> None:
    values, counts = np.unique(thinned(78, 80), return_counts=True)
    assert values[counts == 2].tolist() == [19, 58]


def test_avvp_of_a_cut_does_not_depend_on_where_it_was_cut() -> None:
    timeline = constant(Fraction(30), seconds=40)
    here = emitted_frames(timeline, window=Window(0, 10))
    there = emitted_frames(timeline, window=Window(17, 27))
    assert len(here) == 82
    assert np.array_equal(here + 17 * 30, there)


def test_avvp_of_a_window_without_frames_shows_the_last_frame_before_it() -> None:
    timeline = constant(Fraction(30), seconds=5)
    picks = select("avvp", timeline, window=Window(20, 30), count=80)
    assert picks.tolist() == [149] * 80


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(30000, 1001), Fraction(24), Fraction(7)])
@pytest.mark.parametrize("start", [0.0, 0.3, 1.1, 2.7])
def test_on_screen_and_center_are_what_their_names_say(fps: Fraction, start: float) -> None:
    timeline = constant(fps, seconds=20)
    times = [Fraction(k) / fps for k in range(len(timeline))]
    window = Window(start, start + 10)
    for rule, shift in (("on-screen", Fraction(0)), ("center", Fraction(1, 2))):
        picks = select(rule, timeline, window=window, count=80).tolist()
        for k, pick in enumerate(picks):
            instant = Fraction(str(start)) + (k + shift) / 8
            assert times[pick] <= instant
            assert pick + 1 == len(times) or times[pick + 1] > instant


def test_a_frame_at_exactly_the_instant_is_on_screen() -> None:
    # 0.3 is less than 3/10 in binary; the frame at 3/10 s is nevertheless the one shown at 0.3 s.
    timeline = constant(Fraction(10))
    assert select("on-screen", timeline, window=Window(0.3, 1.3), count=1).tolist() == [3]
    assert select("on-screen", timeline, window=Window(0.1 + 0.2, 1.3), count=1).tolist() == [3]


def test_before_the_first_frame_the_first_frame_is_taken() -> None:
    timeline = constant(Fraction(10), start=512 * 15)  # starts at 1.5 s
    picks = select("on-screen", timeline, window=Window(0, 10), count=80).tolist()
    assert picks[:14] == [0] * 13 + [1]


def test_unknown_rules_and_empty_timelines_are_refused() -> None:
    timeline = constant(Fraction(10))
    with pytest.raises(ValueError, match="avvp, ave, on-screen, center"):
        select("nearest", timeline, window=WHOLE, count=80)
    for count, fps in ((0, 8), (80, 0), (80, -1)):
        with pytest.raises(ValueError, match="must be positive"):
            select("center", timeline, window=WHOLE, fps=fps, count=count)
    with pytest.raises(ValueError, match="no frames"):
        select("center", constant(Fraction(10), seconds=0), window=WHOLE, count=80)


@pytest.mark.parametrize(
    ("length", "fps", "count"),
    [(10, 8, 80), (9.6, 8, 77), (10.004, 8, 80), (9.99, 8, 80), (1, 16, 16), (2.5, 1, 3)],
)
def test_sample_count(length: float, fps: float, count: int) -> None:
    assert sample_count(Window(0, length), fps) == count


def test_exact_undoes_the_float() -> None:
    assert exact(0.3) == Fraction(3, 10)
    assert exact(1001 / 30000) == Fraction(1001, 30000)
    assert exact(12.345678) == Fraction("12.345678")


@pytest.mark.parametrize(
    ("start", "end"), [(1, 1), (2, 1), (-1, 2), (0, float("inf")), (float("nan"), 1)]
)
def test_windows_hold_time(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(start, end)


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(30000, 1001), Fraction(25), Fraction(24)])
@pytest.mark.parametrize("whole", [True, False])
def test_ave_counts_frames_as_the_published_scripts_do(fps: Fraction, whole: bool) -> None:
    timeline = constant(fps, seconds=10)
    n = len(timeline)
    interval = int(n / 10)
    expected = [int(s * interval + (j / 16) * interval) for s in range(10) for j in range(16)]
    window = Window(0, 10, whole=whole)
    assert select("ave", timeline, window=window, fps=16, count=160).tolist() == expected
    assert max(expected) < n


def test_ave_of_a_part_of_a_video_counts_from_its_start() -> None:
    timeline = constant(Fraction(30), seconds=40)
    here = select("ave", timeline, window=Window(0, 10), fps=16, count=160)
    there = select("ave", timeline, window=Window(17, 27), fps=16, count=160)
    assert np.array_equal(here + 17 * 30, there)


def test_ave_with_fewer_frames_than_seconds_shows_what_was_on_screen() -> None:
    timeline = constant(Fraction(1, 2), seconds=10)
    window = Window(0, 10, whole=True)
    found = select("ave", timeline, window=window, fps=16, count=160)
    assert (
        found.tolist() == select("on-screen", timeline, window=window, fps=16, count=160).tolist()
    )
    with pytest.raises(ValueError, match="whole number"):
        select("ave", timeline, window=window, fps=12.5, count=125)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25)])
def test_ave_does_not_drift_in_long_videos(fps: Fraction, whole: bool) -> None:
    timeline = constant(fps, seconds=600)
    window = Window(0, 600.4, whole=whole)
    found = select("ave", timeline, window=window, fps=16, count=16 * 600 + 6)
    seconds = timeline.ticks[found[: 16 * 600]] * float(timeline.time_base)
    means = seconds.reshape(600, 16).mean(axis=1)
    # Ten seconds lose less than one frame each second, as AVE's own do.
    assert np.abs(means - (np.arange(600) + 0.5)).max() < 0.5
    assert (np.diff(found) >= 0).all()
    assert (
        found[:160].tolist()
        == select("ave", timeline, window=Window(0, 10), fps=16, count=160).tolist()
    )


def test_ave_of_a_long_video_that_ends_early_holds_its_last_frame() -> None:
    timeline = constant(Fraction(25), seconds=20)
    found = select("ave", timeline, window=Window(0, 35, whole=True), fps=16, count=16 * 35)
    assert set(found[320:].tolist()) == {len(timeline) - 1}
