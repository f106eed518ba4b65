"""What the media layer says about a file, a window of it, a frame, and a reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from avfeat.extract.media.picture import Picture


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The video stream that is read.

    ``width`` and ``height`` are the coded ones, before rotation. ``rotation`` is the multiple of 90
    degrees, counter-clockwise and in [0, 360), by which frames are turned for display; the reader
    turns them. ``start`` and ``duration`` are in seconds, ``start`` counted from the container's
    start.
    """

    codec: str
    width: int
    height: int
    rotation: int
    average_rate: float | None
    start: float
    duration: float | None


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The audio stream that is read; ``start`` in seconds, counted from the container's start."""

    codec: str
    rate: int
    channels: int
    start: float
    duration: float | None


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A media file as its header describes it; ``size`` in bytes, ``duration`` in seconds."""

    format: str
    size: int
    duration: float | None
    video: VideoInfo | None
    audio: AudioInfo | None
    video_streams: int
    audio_streams: int


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open span ``[start, end)`` of a file that is one clip, in seconds of media time.

    Media time is 0 at the container's start. ``whole`` says that the file holds this clip and
    nothing else ("trimmed"): rules that look at all frames of a clip then look at all frames of the
    file, past ``end`` too.
    """

    start: float
    end: float
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuse windows that hold no time at all."""
        if not 0 <= self.start < self.end < float("inf"):
            raise ValueError(f"window [{self.start}, {self.end}) is empty, negative or endless")

    @property
    def length(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a window: `count` of them, by a rule, at `fps` frames per second."""

    rule: str
    fps: float
    count: int


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture: rows ``[top, bottom)``, columns ``[left, right)``, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def holds(self, other: Region) -> bool:
        """Whether another region lies within this one."""
        return (
            self.top <= other.top
            and other.bottom <= self.bottom
            and self.left <= other.left
            and other.right <= self.right
        )

    def union(self, other: Region) -> Region:
        """Return the smallest region that holds both."""
        return Region(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One sampled frame.

    Attributes
    ----------
    index
        Number of the sample in the window, from 0.
    time
        Timestamp of the source frame in seconds from the window's start; may be negative.
    picture
        The source frame, not yet converted. The very same object when it is sampled several times.
    """

    index: int
    time: float
    picture: Picture

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The whole picture, uint8 ``[H, W, 3]``, upright; not to be written to."""
        return self.picture.rgb()


@dataclass(slots=True)
class DecodeReport:
    """What went wrong while reading a clip; all zero for a clean one.

    Attributes
    ----------
    corrupt_frames
        Decoded frames that the decoder marks corrupt, packets that it refuses, and wanted frames
        that never came out and were replaced by a neighbour.
    video_short
        Seconds of the window before the video stream's first frame and after its last.
    audio_short
        Seconds of the window without sound in the stream, at its ends or inside; they are silence.
    """

    corrupt_frames: int = 0
    video_short: float = 0.0
    audio_short: float = 0.0
