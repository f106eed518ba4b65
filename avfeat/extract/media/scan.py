"""Timestamps of a stretch of video, read from its packets without decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avfeat.extract.media.container import Media, time_base
from avfeat.extract.media.sampling import Timeline, exact
from avfeat.extract.media.types import DecodeReport, Window

# Seconds before the window from which timestamps are read, tried in turn until a key frame at or
# before its start is found (a seek in MPEG-TS can lead to any frame).
_MARGINS = (0, 2, 16, 128)


@dataclass(frozen=True, slots=True)
class Scan:
    """Timestamps of a stretch of video, read without decoding it.

    Attributes
    ----------
    timeline
        The frames that the stretch shows.
    offset
        Ticks by which the timeline's timestamps exceed the stream's own.
    keys
        Own (pts, dts) of the key packets.
    ended
        Whether the stretch goes to the end of the stream.
    by_order
        Packets carry no usable timestamps, so these are the decoder's, and a frame is known by its
        place in the order in which the decoder gives them.
    """

    timeline: Timeline
    offset: int
    keys: tuple[tuple[int, int], ...]
    ended: bool
    by_order: bool = False

    def names(self, positions: NDArray[np.int64]) -> list[int]:
        """Return what the decoder's frames are known by: their own pts, or their place."""
        if self.by_order:
            return [int(position) for position in positions]
        return [int(tick) - self.offset for tick in self.timeline.ticks[positions]]

    def time(self, name: int) -> Fraction:
        """Media time in seconds of a frame known by ``name``."""
        tick = int(self.timeline.ticks[name]) if self.by_order else name + self.offset
        return tick * self.timeline.time_base


def scan_window(media: Media, window: Window, *, to_end: bool = False) -> Scan:
    """Collect the timestamps that sampling a window needs, without decoding.

    From a key frame at or before the window's start, if there is one, to the window's end, or to
    the end of the stream. Costs 8 bytes and a few microseconds per frame.
    """
    stream = media.video
    base, offset = time_base(stream), media.offset(stream)
    start = int(exact(window.start) // base)
    end = None if to_end else int(exact(window.end) // base) - offset
    if window.start > 0:
        for margin in _MARGINS:
            if margin >= window.start:
                break
            from_tick = start - offset - int(margin / base)
            found = _packet_scan(media, from_tick=from_tick, end=end)
            if found is None:
                break
            if any(pts <= start - offset for pts, _ in found.keys):
                return found
    found = _packet_scan(media, from_tick=None, end=end)
    return _decoded_scan(media) if found is None else found


def _packet_scan(media: Media, *, from_tick: int | None, end: int | None) -> Scan | None:
    """Scan packets; None if their timestamps cannot be relied on."""
    ticks, durations, keys = [], [], []
    ended, reordered = True, False
    for packet in media.packets(media.video, from_tick=from_tick):
        if packet.size == 0:
            continue
        if packet.pts is None:
            return None
        if end is not None and packet.dts is not None and packet.dts > end:
            ended = False  # every later packet is shown later still
            break
        reordered |= packet.dts is not None and packet.dts != packet.pts
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
    lengths = np.array(durations, dtype=np.int64)[order]
    if reordered and "mov" in media.container.format.name.split(","):
        lengths[:] = _frame_length(media)
    timeline = _timeline(media, shown, lengths)
    return Scan(timeline, media.offset(media.video), tuple(keys), ended)


def _decoded_scan(media: Media) -> Scan:
    """Decode the whole stream for its timestamps: for raw streams and old AVI files."""
    rate = media.video.guessed_rate or Fraction(25)
    step = max(1, round(1 / (rate * time_base(media.video))))
    ticks: list[int] = []
    durations: list[int] = []
    for packet in media.packets(media.video):
        for frame in decode(packet, DecodeReport()):
            following = ticks[-1] + step if ticks else (media.video.start_time or 0)
            ticks.append(following if frame.pts is None else max(frame.pts, following - step))
            durations.append(frame.duration or 0)
    timeline = _timeline(media, np.array(ticks, np.int64), np.array(durations, np.int64))
    return Scan(timeline, media.offset(media.video), (), ended=True, by_order=True)


def _frame_length(media: Media) -> int:
    """Ticks per frame at the codec's own frame rate, 0 if that is unknown or absurd.

    This is what ffmpeg 5.1 knows of frames in MP4 files that reorder them: it takes the file's
    durations only where decoding and showing go in the same order.
    """
    stream = media.video
    rate = stream.codec_context.framerate or stream.base_rate
    if not rate or rate >= 1000:
        return 0
    return int(1 / (rate * time_base(stream)))


def _timeline(media: Media, ticks: NDArray[np.int64], durations: NDArray[np.int64]) -> Timeline:
    stream = media.video
    return Timeline(
        ticks=ticks + media.offset(stream),
        durations=durations,
        time_base=time_base(stream),
        rate=stream.guessed_rate,
        lone=len(media.container.streams) == 1,
        ffmpeg_zero=_ffmpeg_zero(media),
    )


def _ffmpeg_zero(media: Media) -> int:
    """Tick at which the clock of ffmpeg 5.1 starts, where that is not the container's start."""
    stream, offset = media.video, media.offset(media.video)
    container = media.container
    if media.jumps:
        # Timestamps may jump: it counts from the first of the streams that it uses. AVVP wrote
        # pictures only, so the video.
        return offset + (stream.start_time or 0)
    if "matroska" in container.format.name.split(","):
        # It counts from the sound that codecs prepend and players drop.
        starts = [
            (audio.start_time or 0) * time_base(audio)
            - Fraction(int(audio.codec_context.delay), audio.codec_context.sample_rate)
            for audio in container.streams.audio
            if audio.codec_context is not None and audio.codec_context.sample_rate
        ]
        return min([0, *(offset + round(start / time_base(stream)) for start in starts)])
    return 0


def decode(packet: Packet[Any], report: DecodeReport) -> list[VideoFrame]:
    """Decode a packet; one that the decoder refuses is counted and gives nothing."""
    try:
        frames: list[VideoFrame] = packet.decode()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:  # decoders fail on damage with all sorts of codes
        report.corrupt_frames += 1
        return []
    report.corrupt_frames += sum(frame.is_corrupt for frame in frames)
    return frames
