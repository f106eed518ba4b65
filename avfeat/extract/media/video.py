"""Sampled frames of one window: timestamps first, then as little decoding as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from av.video.frame import VideoFrame

from avfeat.errors import MediaError
from avfeat.extract.media.container import Media
from avfeat.extract.media.picture import Picture
from avfeat.extract.media.sampling import Timeline, exact, select
from avfeat.extract.media.scan import Scan, decode, scan_window
from avfeat.extract.media.types import DecodeReport, Frame, Sampling, Window


def read_frames(
    media: Media,
    samplings: Sequence[Sampling],
    *,
    window: Window,
    rotation: int,
    report: DecodeReport,
    hardware: str | None = None,
) -> Iterator[tuple[int, Frame]]:
    """Yield the samples of every sampling in one decode; see `ClipReader.sampled`."""
    if media.video is None:
        raise MediaError("no_video", f"{media.name}: has no video stream")
    by_count = any(sampling.rule in ("avvp", "ave") for sampling in samplings)
    scan = scan_window(media, window, to_end=by_count and window.whole)
    if len(scan.timeline) == 0:
        raise MediaError("undecodable", f"{media.name}: the video stream holds no frames")
    report.video_short = _short(scan.timeline, window, ended=scan.ended)
    start = exact(window.start)
    picks = [
        select(s.rule, scan.timeline, window=window, fps=s.fps, count=s.count) for s in samplings
    ]
    # By frame, then by sampling: each sampling's own samples stay in order.
    asked = sorted(
        (position, which, index)
        for which, positions in enumerate(picks)
        for index, position in enumerate(positions.tolist())
    )
    names = scan.names(np.array([position for position, _, _ in asked], dtype=np.int64))
    # torchcodec knows frames by their timestamps alone, and not always where these may jump.
    if hardware is None or scan.by_order or media.jumps:
        matched = _matched(media, scan, names, report, turns=rotation // 90)
    else:
        from avfeat.extract.media.hardware import pictures

        matched = pictures(media, scan, names, report, device=hardware)
    for (_, which, index), (name, picture) in zip(asked, matched, strict=True):
        yield which, Frame(index, float(scan.time(name) - start), picture)


def _short(timeline: Timeline, window: Window, *, ended: bool) -> float:
    """Seconds of the window before the first frame and, if the stream `ended`, after the last."""
    last = int(timeline.durations[-1]) * timeline.time_base
    if last == 0 and timeline.rate:
        last = 1 / timeline.rate
    end = int(timeline.ticks[-1]) * timeline.time_base + last
    first = int(timeline.ticks[0]) * timeline.time_base
    missing_after = float(exact(window.end) - end) if ended else 0.0
    return max(0.0, missing_after) + max(0.0, float(first - exact(window.start)))


def _matched(
    media: Media, scan: Scan, names: list[int], report: DecodeReport, *, turns: int
) -> Iterator[tuple[int, Picture]]:
    """Pair each asked name (pts or ordinal, ascending) with its frame, or with a neighbour of it.

    A frame that never comes out of the decoder is replaced by the nearest earlier one that did, or
    the first later one, and counted once as corrupt.
    """
    at = 0
    last: tuple[int, Picture] | None = None
    for name, frame in _decoded(media, scan, names, report):
        this = (name, Picture(frame, turns))
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
    media: Media, scan: Scan, names: list[int], report: DecodeReport
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
        for frame in decode(packet, report):
            name = ordinal if scan.by_order else frame.pts
            ordinal += 1
            if name is not None:
                yield name, frame
