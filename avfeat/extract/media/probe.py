"""Read a file's header, and find the annotated window in it."""

from __future__ import annotations

from pathlib import Path

import av.error
from av.stream import Stream

from avfeat.errors import MediaError
from avfeat.extract.media.container import Media, media_errors, time_base
from avfeat.extract.media.types import AudioInfo, MediaInfo, VideoInfo, Window

#: A file at most this much longer than the annotated window (seconds) is the window itself.
TRIM_SLACK = 1.0
# Containers that can say how a picture is to be turned.
_TURNING = {"mov", "matroska"}
_FIRST_PACKETS = 32


def probe(path: Path) -> MediaInfo:
    """Describe a media file from its header, decoding at most one frame (for its rotation).

    Raises
    ------
    MediaError
        ``empty_file``, ``not_media``, ``truncated`` or ``io``.
    """
    with Media(path) as media:
        return describe(media)


def describe(media: Media) -> MediaInfo:
    """Describe an open file."""
    video = audio = None
    if media.video is not None:
        context = media.video.codec_context
        rate = media.video.average_rate
        video = VideoInfo(
            codec=context.name,
            width=context.width,
            height=context.height,
            rotation=_rotation(media),
            average_rate=float(rate) if rate else None,
            start=_start(media, media.video),
            duration=_duration(media.video),
        )
    if media.audio is not None:
        context = media.audio.codec_context
        audio = AudioInfo(
            codec=context.name,
            rate=context.sample_rate,
            channels=context.layout.nb_channels,
            start=_start(media, media.audio),
            duration=_duration(media.audio),
        )
    container = media.container
    return MediaInfo(
        format=container.format.name,
        size=media.size,
        duration=container.duration / 1e6 if container.duration else None,
        video=video,
        audio=audio,
        video_streams=media.video_streams,
        audio_streams=media.audio_streams,
    )


def _start(media: Media, stream: Stream) -> float:
    if stream.start_time is None:
        return 0.0
    return float((stream.start_time + media.offset(stream)) * time_base(stream))


def _duration(stream: Stream) -> float | None:
    return float(stream.duration * time_base(stream)) if stream.duration else None


def _rotation(media: Media) -> int:
    """Rotation in degrees, which PyAV tells of frames only: decode the first one."""
    if _TURNING.isdisjoint(media.container.format.name.split(",")):
        return 0
    with media_errors(media.name):
        for number, packet in enumerate(media.packets(media.video)):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                frames = []
            if frames:
                return round(frames[0].rotation / 90) * 90 % 360
            if number >= _FIRST_PACKETS:
                break
    return 0


def locate_window(info: MediaInfo, start: float, end: float) -> Window:
    """Find the annotated window ``[start, end)`` (seconds) in a file that may be trimmed to it.

    A file that is at most one second longer than the window is the window, cut out by whoever
    fetched it; a longer one is the original. A file of unknown length is taken for an original.

    Raises
    ------
    MediaError
        ``outside_media`` if a longer file ends before the window starts.
    """
    if info.duration is not None and info.duration <= (end - start) + TRIM_SLACK:
        return Window(0.0, end - start, whole=True)
    if info.duration is not None and info.duration <= start:
        raise MediaError(
            "outside_media",
            f"the window starts at {start:g} s, but the media is {info.duration:.3f} s long",
        )
    return Window(start, end)
