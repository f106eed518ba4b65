"""Sampled frames of one window: timestamps first, then as little decoding as possible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avfeat.errors import MediaError
from avfeat.extract.media.container import Media, time_base
from avfeat.extract.media.sampling import Timeline, exact, select
from avfeat.extract.media.types import DecodeReport, Frame, Window

# Seconds before the window from which timestamps are read, tried in turn until a frame at or
# before its start is found.
_MARGINS = (0, 2, 16, 128)


@dataclass(frozen=True, slots=True)
class _Scan:
    """Timestamps of a stretch of video, read without decoding it.

    ``ticks`` ascend and are raw (not shifted to time zero); ``keys`` holds (pts, dts) of the key
    packets; ``ended`` says that the stretch goes to the end of the stream. ``by_order`` says that
    packets carry no usable timestamps: ticks are then the decoder's, and frames are known by their
    order of coming out.
    """

    ticks: NDArray[np.int64]
    durations: NDArray[np.int64]
    keys: list[tuple[int, int]]
    ended: bool
    by_order: bool = False


def read_frames(
    media: Media,
    rule: str,
    *,
    window: Window,
    fps: float,
    count: int,
    rotation: int,
    report: DecodeReport,
) -> Iterator[Frame]:
    """Yield the ``count`` samples of a window; see `ClipReader.frames`."""
    if media.video is None:
        raise MediaError("no_video", f"{media.name}: has no video stream")
    scan = _scan(media, window, to_end=rule == "avvp" and window.whole)
    if len(scan.ticks) == 0:
        raise MediaError("undecodable", f"{media.name}: the video stream holds no frames")
    base = time_base(media.video)
    offset = media.offset(media.video)
    timeline = Timeline(
        ticks=scan.ticks + offset,
        durations=scan.durations,
        time_base=base,
        rate=media.video.guessed_rate,
        lone=len(media.container.streams) == 1,
    )
    report.video_short = _short(timeline, window) if scan.ended else 0.0
    picks = select(rule, timeline, window=window, fps=fps, count=count)
    start = exact(window.start)
    turns = rotation // 90
    names = picks if scan.by_order else scan.ticks[picks]
    stamps = scan.ticks  # of frames known by their order
    for index, (name, frame) in enumerate(_matched(media, scan, names.tolist(), report)):
        tick = int(stamps[name]) if scan.by_order else name
        yield Frame(index, float((tick + offset) * base - start), frame.rgb(turns))


def _short(timeline: Timeline, window: Window) -> float:
    """Seconds between the end of the last frame and the end of the window, if that is later."""
    last = timeline.durations[-1] * timeline.time_base
    if last == 0 and timeline.rate:
        last = 1 / timeline.rate
    end = int(timeline.ticks[-1]) * timeline.time_base + last
    return max(0.0, float(exact(window.end) - end))


def _scan(media: Media, window: Window, *, to_end: bool) -> _Scan:
    """Collect the timestamps that the sampling rules need: one frame before to the end."""
    stream = media.video
    base, offset = time_base(stream), media.offset(stream)
    start = int(exact(window.start) // base) - offset
    end = None if to_end else int(exact(window.end) // base) - offset
    if window.start > 0:
        for margin in _MARGINS:
            if margin >= window.start:
                break
            found = _packet_scan(media, from_tick=start - int(margin / base), end=end)
            if found is None:
                break
            if len(found.ticks) > 0 and found.ticks[0] <= start:
                return found
    found = _packet_scan(media, from_tick=None, end=end)
    return _decoded_scan(media) if found is None else found


def _packet_scan(media: Media, *, from_tick: int | None, end: int | None) -> _Scan | None:
    """Scan packets; None if their timestamps cannot be relied on."""
    ticks, durations, keys = [], [], []
    ended = True
    for packet in media.packets(media.video, from_tick=from_tick):
        if packet.size == 0:
            continue
        if packet.pts is None:
            return None
        if end is not None and packet.dts is not None and packet.dts > end:
            ended = False  # every later packet is shown later still
            break
        if packet.is_keyframe:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        if not packet.is_discard:
            ticks.append(packet.pts)
            durations.append(packet.duration or 0)
    shown = np.array(ticks, dtype=np.int64)
    order = np.argsort(shown, kind="stable")
    shown = shown[order]
    if np.any(shown[1:] == shown[:-1]):
        return None
    return _Scan(shown, np.array(durations, dtype=np.int64)[order], keys, ended)


def _decoded_scan(media: Media) -> _Scan:
    """Decode the whole stream for its timestamps: for raw streams and old AVI files."""
    rate = media.video.guessed_rate or Fraction(25)
    step = max(1, round(1 / (rate * time_base(media.video))))
    ticks: list[int] = []
    durations: list[int] = []
    for packet in media.packets(media.video):
        for frame in _decode(packet, DecodeReport()):
            following = ticks[-1] + step if ticks else (media.video.start_time or 0)
            ticks.append(following if frame.pts is None else max(frame.pts, following - step))
            durations.append(frame.duration or 0)
    return _Scan(
        np.array(ticks, dtype=np.int64),
        np.array(durations, dtype=np.int64),
        [],
        ended=True,
        by_order=True,
    )


class _Decoded:
    """A decoded frame that is converted to RGB at most once."""

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame
        self._rgb: NDArray[np.uint8] | None = None

    def rgb(self, turns: int) -> NDArray[np.uint8]:
        """Return uint8 [H, W, 3], turned counter-clockwise by quarter turns."""
        if self._rgb is None:
            pixels = self._frame.to_ndarray(format="rgb24")
            self._rgb = np.ascontiguousarray(np.rot90(pixels, turns)).astype(np.uint8, copy=False)
        return self._rgb


def _matched(
    media: Media, scan: _Scan, names: list[int], report: DecodeReport
) -> Iterator[tuple[int, _Decoded]]:
    """Pair each asked name (pts or ordinal, ascending) with its frame, or with a neighbour of it.

    A frame that never comes out of the decoder is replaced by the nearest earlier one that did, or
    the first later one, and counted once as corrupt.
    """
    at = 0
    last: tuple[int, _Decoded] | None = None
    for name, frame in _decoded(media, scan, names, report):
        this = (name, _Decoded(frame))
        lost = {n for n in names[at:] if n < name} if names[at] < name else set()
        report.corrupt_frames += len(lost)
        while at < len(names) and names[at] < name:
            yield last or this
            at += 1
        while at < len(names) and names[at] == name:
            yield this
            at += 1
        last = this
        if at == len(names):
            return
    if last is None:
        raise MediaError("undecodable", f"{media.name}: not one video frame can be decoded")
    report.corrupt_frames += len(set(names[at:]))
    for _ in names[at:]:
        yield last


def _decoded(
    media: Media, scan: _Scan, names: list[int], report: DecodeReport
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode from the key frame that the first asked frame needs on, in the order shown.

    Packets whose frame is not asked for are decoded only if others refer to them.
    """
    key = None if scan.by_order else max((k for k in scan.keys if k[0] <= names[0]), default=None)
    wanted = set(names)
    context = media.video.codec_context
    context.skip_frame = "DEFAULT"
    key_pts = None if key is None else key[0]
    skipping = key is not None
    ordinal = 0
    for packet in media.packets(media.video, from_tick=None if key is None else key[1]):
        if skipping and packet.size > 0:
            if not packet.is_keyframe or packet.pts != key_pts:
                continue
            skipping = False
        if not scan.by_order:
            needed = packet.size == 0 or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in _decode(packet, report):
            name = ordinal if scan.by_order else frame.pts
            ordinal += 1
            if name is not None:
                yield name, frame


def _decode(packet: Packet[Any], report: DecodeReport) -> list[VideoFrame]:
    """Decode a packet; one that the decoder refuses is counted and gives nothing."""
    try:
        frames: list[VideoFrame] = packet.decode()
    except (av.error.InvalidDataError, av.error.EOFError):
        report.corrupt_frames += 1
        return []
    report.corrupt_frames += sum(frame.is_corrupt for frame in frames)
    return frames
