"""Sampling rules: which source frames are the samples of a window.

Pure functions on timestamps; nothing here opens a file. A `Timeline` lists the frames of a video in
the order in which they are shown; every rule returns positions in it.

``on-screen`` and ``center`` are exact (integers and fractions). ``avvp`` repeats the double
precision arithmetic of ffmpeg 5.1, because that is what decided which frames were published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from avfeat.extract.media.types import Window

SAMPLING_RULES = ("avvp", "ave", "on-screen", "center")

#: Length of AVE's clips.
_AVE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Timeline:
    """Frames of one video in the order shown.

    Attributes
    ----------
    ticks
        int64 [n], ascending; timestamp of each frame, 0 at the container's start.
    durations
        int64 [n]; nominal duration of each frame as ffmpeg 5.1 knows it, 0 if it does not.
    time_base
        Seconds per tick.
    rate
        Frames per second as FFmpeg guesses them for the stream (``av_guess_frame_rate``), or None.
    lone
        Whether the video is the container's only stream (ffmpeg then syncs slightly differently).
    ffmpeg_zero
        Tick that is 0 for ``ffmpeg -i VIDEO`` with pictures as the only output. Not the container's
        start in formats whose timestamps may jump (MPEG-TS, Ogg) and in Matroska with sound.
    """

    ticks: NDArray[np.int64]
    durations: NDArray[np.int64]
    time_base: Fraction
    rate: Fraction | None = None
    lone: bool = False
    ffmpeg_zero: int = 0

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.ticks)


def exact(seconds: float) -> Fraction:
    """Turn decimal or frame-rate numbers that went through a float into what they stood for.

    Denominators go up to 10**6: ``0.3`` becomes 3/10 and 1001/30000 survives, so that a frame at
    exactly the asked time is on screen at that time.
    """
    return Fraction(seconds).limit_denominator(1_000_000)


def sample_count(window: Window, fps: float = 8) -> int:
    """Number of samples in a window: its length times ``fps``, rounded (halves up).

    >>> sample_count(Window(0, 10))
    80
    """
    return int(exact(window.length) * exact(fps) + Fraction(1, 2))


def select(
    rule: str, timeline: Timeline, *, window: Window, fps: float = 8, count: int
) -> NDArray[np.int64]:
    """Choose the frame of each sample.

    Parameters
    ----------
    rule
        One of `SAMPLING_RULES`.
    count
        Number of samples.

    Returns
    -------
    int64 [count]
        Positions in the timeline, ascending, with repetitions.

    Raises
    ------
    ValueError
        If the rule is unknown, ``count`` or ``fps`` is not positive, or the timeline is empty.
    """
    if count < 1 or not fps > 0:
        raise ValueError(f"count {count} and fps {fps} must be positive")
    if len(timeline) == 0:
        raise ValueError("no frames to choose from")
    if rule == "avvp":
        emitted = emitted_frames(timeline, window=window, fps=fps)
        if len(emitted) > 0:
            return emitted[thinned(len(emitted), count)]
        rule = "on-screen"  # the window lies between two frames: the earlier one is what shows
    if rule == "ave":
        return per_second(timeline, window=window, fps=fps, count=count)
    if rule == "on-screen":
        shift = Fraction(0)
    elif rule == "center":
        shift = Fraction(1, 2)
    else:
        raise ValueError(f"unknown sampling rule {rule!r}; known: {', '.join(SAMPLING_RULES)}")
    start, rate = exact(window.start), exact(fps)
    instants = [start + (k + shift) / rate for k in range(count)]
    return shown_at(timeline, instants)


def shown_at(timeline: Timeline, instants: Sequence[Fraction]) -> NDArray[np.int64]:
    """Find the last frame whose timestamp is not after each instant (seconds), else the first."""
    limits = np.array([int(t // timeline.time_base) for t in instants], dtype=np.int64)
    # For equal timestamps the later frame wins, as it does on a screen.
    positions = np.searchsorted(timeline.ticks, limits, side="right") - 1
    return np.maximum(positions, 0).astype(np.int64)


def per_second(timeline: Timeline, *, window: Window, fps: float, count: int) -> NDArray[np.int64]:
    """Take ``fps`` frames of each second as the AVE scripts do: by counting, not by time.

    With n frames in S whole seconds, second s starts at frame ``s * (n // S)`` and its sample j is
    frame ``int(s * (n // S) + j / fps * (n // S))``. The last ``n % S`` frames are never taken.

    AVE's clips have S = 10. Longer windows are counted in blocks of ten seconds of their own, lest
    the frames never taken add up: at 24000/1001 frames per second that were 25 s in ten minutes.

    Raises
    ------
    ValueError
        ``fps`` is not a whole number.
    """
    each = round(fps)
    if each != fps:
        raise ValueError(f"the ave rule takes a whole number of frames per second, not {fps}")
    start = exact(window.start)
    starts = range(0, count, _AVE_SECONDS * each)
    edges = [start + Fraction(sample, each) for sample in starts] + [exact(window.end)]
    ticks = [int(-(-edge // timeline.time_base)) for edge in edges]
    bounds = np.searchsorted(timeline.ticks, ticks, side="left")
    if window.whole:
        bounds[0], bounds[-1] = 0, len(timeline)
    picks = []
    for sample, first, last in zip(starts, bounds, bounds[1:], strict=False):
        wanted = min(_AVE_SECONDS * each, count - sample)
        interval = (last - first) // max(1, wanted // each)
        if interval == 0:  # fewer frames than seconds: what was on screen
            instants = [start + Fraction(sample + k, each) for k in range(wanted)]
            picks.append(shown_at(timeline, instants))
            continue
        positions = [
            int(k // each * interval + (k % each) / each * interval) for k in range(wanted)
        ]
        picks.append(np.minimum(first + np.array(positions, dtype=np.int64), last - 1))
    return np.concatenate(picks)


def thinned(n: int, count: int) -> NDArray[np.int64]:
    """Take ``count`` of ``n`` frames as AVVP does: ``round(linspace(0, n - 1, count))``.

    >>> sorted(set(range(82)) - set(thinned(82, 80).tolist()))
    [20, 61]
    """
    return np.round(np.linspace(0, n - 1, count)).astype(np.int64)


def emitted_frames(timeline: Timeline, *, window: Window, fps: float = 8) -> NDArray[np.int64]:
    """List the frames that ``ffmpeg -i VIDEO -r FPS`` writes (ffmpeg 5.1, constant rate output).

    For a window that is a whole file these are all frames that ffmpeg writes for the file; else
    the frames in ``[start, end)`` are taken for a file of their own that starts at ``start``.

    Returns
    -------
    int64 [n]
        Positions in the timeline. 10 s give n = 82 at 8 fps from most sources.
    """
    first, last = 0, len(timeline)
    origin = timeline.ffmpeg_zero * timeline.time_base
    if not window.whole:
        origin = exact(window.start)
        bounds = [-(-exact(t) // timeline.time_base) for t in (window.start, window.end)]
        first, last = (int(i) for i in np.searchsorted(timeline.ticks, bounds, side="left"))
    rate = exact(fps)
    times = output_times(timeline, slice(first, last), origin=origin, rate=rate)
    return first + constant_rate(times, _durations(timeline, slice(first, last), rate), timeline)


def output_times(
    timeline: Timeline, part: slice, *, origin: Fraction, rate: Fraction
) -> list[float]:
    """Timestamps in units of output frames, as ffmpeg's sync code sees them.

    ffmpeg rescales to a fraction (2**-16 for 8 fps) of an output frame, to nearest with halves away
    from zero, then moves the result by 2**-17 away from zero to avoid exact midpoints.
    """
    bits = min(max(29 - (rate.numerator.bit_length() - 1), 0), 16)
    scale = timeline.time_base * rate * 2**bits
    shift = origin * rate * 2**bits
    common = scale.denominator * shift.denominator
    step, base = int(scale * common), int(shift * common)
    times = []
    for tick in timeline.ticks[part].tolist():
        value = tick * step - base
        ticks = (2 * abs(value) + common) // (2 * common)
        sign = (value > 0 and ticks > 0) - (value < 0 and ticks > 0)
        times.append(sign * ticks / 2**bits + sign / 2**17)
    return times


def _durations(timeline: Timeline, part: slice, rate: Fraction) -> list[float]:
    """Nominal length of each source frame in output frames, as ffmpeg's sync code takes it.

    At most 1, unless the packet's own duration rounds to whole output frames.
    """
    nominal = 1.0
    if timeline.rate:
        nominal = min(1 / (float(timeline.rate) * float(1 / rate)), nominal)
    seconds, unit = float(timeline.time_base), float(1 / rate)
    lengths = []
    for ticks in timeline.durations[part].tolist():
        whole = _lrintf(ticks * seconds / unit)
        lengths.append(float(whole) if whole > 0 else nominal)
    return lengths


def constant_rate(
    times: Sequence[float], durations: Sequence[float], timeline: Timeline
) -> NDArray[np.int64]:
    """Drop and repeat frames as ffmpeg 5.1 does for constant frame rate output (``-vsync cfr``).

    Parameters
    ----------
    times, durations
        In output frames, see `output_times`.

    Returns
    -------
    int64 [n]
        Positions in ``times`` of the frames written.

    Notes
    -----
    Behaviour of ``fftools/ffmpeg.c`` (FFmpeg 5.1), established by reading numbered frames back from
    the command's output. A frame is dropped when it ends more than 1.1 output frames before the
    next slot, and is repeated when it ends more than 1.1 after it; when it also *starts* late, the
    gap in front of it is filled with its predecessor. At the end the last frame is repeated as
    often as the median of the last three gaps.
    """
    written: list[int] = []
    gaps = [0, 0, 0]
    slot = 0
    for position, (time, duration) in enumerate(zip(times, durations, strict=True)):
        late = time - slot
        ends = late + duration
        if late < 0 < ends:
            late = 0.0
        if timeline.lone and not written and late >= 0.5:
            # A video on its own starts when its first frame does, without fillers.
            slot = round(time)
            late, ends = 0.0, duration
        repeats, gap = 1, 0
        if ends < -1.1:
            repeats = 0
        elif ends > 1.1:
            repeats = _lrintf(ends)
            gap = min(_lrintf(late - 0.6), repeats) if late > 1.1 else 0
        gaps = [gap, *gaps[:2]]
        previous = max(position - 1, 0)
        written += [previous] * gap + [position] * (repeats - gap)
        slot += repeats
    if times:
        written += [len(times) - 1] * sorted(gaps)[1]
    return np.array(written, dtype=np.int64)


def _lrintf(value: float) -> int:
    """C's ``lrintf``: to single precision, then to nearest, halves to even."""
    return round(float(np.float32(value)))
