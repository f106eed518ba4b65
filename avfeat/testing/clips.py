"""Synthetic clips whose frames carry their number, so that a test can read what was sampled.

Every frame has a strip of 16 black or white blocks along its bottom: a 15-bit number, most
significant bit first, and its parity. The strip survives lossy coding; it does not survive
resizing. The rest of the picture and the sound are up to the caller. The same arguments give the
same file, byte for byte, with the same FFmpeg build.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
#: Draws on one frame: number, seconds from the clip's start, uint8 [H, W, 3] to write to.
Paint = Callable[[int, float, Canvas], None]

_BITS = 15
_BLOCKS = _BITS + 1
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 6: "5.1"}
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "mp3": "libmp3lame"}
# One thread each: encoders with several give other bytes on other machines. x264's mbtree gives
# other bytes from run to run even so (about one file in five with x264 core 165).
_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "20", "threads": "1", "mbtree": "0"},
    "libx265": {
        "preset": "ultrafast",
        "crf": "20",
        "x265-params": "log-level=none:pools=none:frame-threads=1",
    },
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "threads": "1"},
    "mpeg4": {"qscale": "3", "threads": "1"},
    "mpeg2video": {"qscale": "3", "threads": "1"},
}
_MATRICES = {"bt709": 1, "bt601": 6}


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """The sound of a synthetic clip.

    Parameters
    ----------
    tones
        ``(onset, offset, hz, amplitude)``: sines in seconds from the clip's start and full scale 1.
    gains
        One factor per channel, so the number of channels; (1, 1) is stereo, (1, 0) left only.
    codec
        ``aac``, ``mp3``, ``flac``, ``pcm_s16le`` or another FFmpeg encoder.
    start
        Seconds after the clip's start at which the stream begins.
    duration
        Length of the stream in seconds, up to the clip's end if None.
    """

    tones: Sequence[tuple[float, float, float, float]] = ()
    gains: Sequence[float] = (1.0,)
    rate: int = 44100
    codec: str = "aac"
    start: float = 0.0
    duration: float | None = None

    def samples(self, first: int, count: int) -> NDArray[np.float32]:
        """Return float32 [channels, count] from sample ``first`` of the stream on."""
        time = self.start + np.arange(first, first + count) / self.rate
        mono = np.zeros(count)
        for onset, offset, hz, amplitude in self.tones:
            sounding = (time >= onset) & (time < offset)
            mono += sounding * amplitude * np.sin(2 * math.pi * hz * (time - onset))
        return np.outer(self.gains, mono).astype(np.float32)


def make_clip(
    path: Path,
    *,
    fps: float | Fraction = 30,
    timestamps: Sequence[float] | None = None,
    duration: float = 10.0,
    size: tuple[int, int] = (320, 240),
    codec: str | None = "h264",
    gop: int = 30,
    b_frames: int = 2,
    options: Mapping[str, str] | None = None,
    audio: AudioTrack | Sequence[AudioTrack] | None = None,
    start: float = 0.0,
    rotation: int = 0,
    matrix: Literal["bt601", "bt709"] | None = None,
    container_options: Mapping[str, str] | None = None,
    paint: Paint | None = None,
) -> Path:
    """Write a clip; the container follows from the path's suffix.

    Parameters
    ----------
    fps
        Constant frame rate, exact where it is a `fractions.Fraction`.
    timestamps
        Ascending seconds of the frames, for a variable rate; ``fps`` is then only what the codec's
        header states (for H.264, as in web videos of variable rate).
    duration
        Seconds; frames are those with a timestamp before it.
    size
        Width and height in pixels, both even, the width at least 128.
    codec
        ``h264``, ``hevc``, ``vp9``, ``mpeg4`` or another FFmpeg encoder; None for no video.
    gop, b_frames
        Longest distance of key frames, and B frames in a row (where the codec has them).
    options
        Further encoder options, such as ``{"x264-params": "open-gop=1"}``.
    audio
        One track or several.
    start
        Timestamp of the clip's start in the container, in seconds.
    rotation
        Degrees by which a player turns the picture counter-clockwise; a multiple of 90.
    matrix
        Colour matrix to code with and to write into the stream; untagged BT.601 if None.
    container_options
        Muxer options, such as ``{"movflags": "+faststart"}``.
    paint
        Draws each frame before the number is put on; a plain changing picture if None.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> import tempfile
    >>> from avfeat.extract.media import ClipReader, Window
    >>> folder = tempfile.TemporaryDirectory()
    >>> clip = make_clip(Path(folder.name, "clip.mp4"), duration=1.0, audio=AudioTrack())
    >>> with ClipReader(clip) as reader:
    ...     frames = reader.frames("on-screen", window=Window(0, 1), count=8)
    ...     print([read_number(frame.rgb) for frame in frames])
    [0, 3, 7, 11, 15, 18, 22, 26]
    >>> folder.cleanup()
    """
    rate = Fraction(fps).limit_denominator(1_000_000)
    tracks = [audio] if isinstance(audio, AudioTrack) else list(audio or ())
    settings = {"fflags": "+bitexact", **(container_options or {})}
    with av.open(str(path), "w", options=settings) as container:
        sources: list[Iterator[tuple[float, Packet[Any]]]] = []
        if codec is not None:
            name = _ENCODERS.get(codec, codec)
            stream: Any = container.add_stream(
                name, rate=rate, options={**_OPTIONS.get(name, {}), **(options or {})}
            )
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.gop_size = gop
            if name != "libvpx-vp9":
                context.max_b_frames = b_frames
            if matrix is not None:
                context.colorspace = context.color_primaries = context.color_trc = _MATRICES[matrix]
                context.color_range = 1
            if rotation:
                stream.set_display_rotation(rotation)
            if timestamps is None:
                times: Iterable[Fraction] = (
                    Fraction(k) / rate for k in range(math.ceil(Fraction(duration) * rate))
                )
                whole = (Fraction(start).limit_denominator(1_000_000) * rate).denominator == 1
                unit = 1 / rate if whole else 1 / (rate * 1000)
            else:
                times = (Fraction(t) for t in timestamps if t < duration)
                unit = Fraction(1, 10_000)
            context.time_base = unit
            pictures = _pictures(times, size, paint)
            frames = _video_frames(pictures, unit, Fraction(start), matrix)
            packets = _encoded(stream, frames)
            if timestamps is not None and name == "libx264":
                packets = _stating_rate(stream, packets, rate)
            sources.append(packets)
        for track in tracks:
            name = _ENCODERS.get(track.codec, track.codec)
            stream = container.add_stream(name, rate=track.rate, layout=_LAYOUTS[len(track.gains)])
            length = duration - track.start if track.duration is None else track.duration
            sources.append(_encoded(stream, _audio_frames(stream, track, length, start)))
        for _, packet in heapq.merge(*sources, key=lambda timed: timed[0]):
            container.mux(packet)
    return path


def _pictures(
    times: Iterable[Fraction], size: tuple[int, int], paint: Paint | None
) -> Iterator[tuple[Fraction, Canvas]]:
    width, height = size
    for number, time in enumerate(times):
        canvas = np.empty((height, width, 3), dtype=np.uint8)
        if paint is None:
            canvas[:] = (np.arange(width)[None, :, None] + 5 * number) % 96 + 64
        else:
            canvas[:] = 0
            paint(number, float(time), canvas)
        write_number(canvas, number)
        yield time, canvas


def _video_frames(
    pictures: Iterator[tuple[Fraction, Canvas]],
    unit: Fraction,
    start: Fraction,
    matrix: str | None,
) -> Iterator[VideoFrame]:
    for time, canvas in pictures:
        frame = VideoFrame.from_ndarray(canvas, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_MATRICES[matrix or "bt601"], dst_color_range=1
        )
        frame.pts = round((time + start) / unit)
        frame.time_base = unit
        yield frame


def _audio_frames(
    stream: Any, track: AudioTrack, seconds: float, start: float
) -> Iterator[AudioFrame]:
    """Cut the track into the codec's frames, in the codec's sample format."""
    context = stream.codec_context
    context.open()
    size = context.frame_size or 1024
    total = round(seconds * track.rate)
    shift = round((start + track.start) * track.rate)
    for first in range(0, total, size):
        samples = track.samples(first, min(size, total - first))
        name = context.format.name
        if name.startswith("s16"):
            samples = np.round(samples.clip(-1, 1) * 32767).astype(np.int16)
        elif name.startswith("s32"):
            samples = np.round(samples.astype(np.float64).clip(-1, 1) * (2**31 - 1)).astype(
                np.int32
            )
        if not context.format.is_planar:
            samples = samples.T.reshape(1, -1)
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format=name, layout=_LAYOUTS[len(track.gains)]
        )
        frame.sample_rate = track.rate
        frame.pts = shift + first
        frame.time_base = Fraction(1, track.rate)
        yield frame


def _encoded(
    stream: Any, frames: Iterator[VideoFrame] | Iterator[AudioFrame]
) -> Iterator[tuple[float, Packet[Any]]]:
    """Encode frames; each packet comes with its decoding time for the merge of the streams."""
    for frame in itertools.chain(frames, (None,)):
        for packet in stream.encode(frame):
            yield float((packet.dts or 0) * packet.time_base), packet


def _stating_rate(
    stream: Any, packets: Iterator[tuple[float, Packet[Any]]], rate: Fraction
) -> Iterator[tuple[float, Packet[Any]]]:
    """Make the H.264 header state a frame rate instead of the encoder's time base."""
    rewrite = BitStreamFilterContext(f"h264_metadata=tick_rate={2 * rate}", stream)
    context = stream.codec_context
    context.open()
    if context.extradata:
        (header,) = rewrite.filter(Packet(context.extradata))
        context.extradata = bytes(header)
    for time, packet in packets:
        for rewritten in rewrite.filter(packet):
            rewritten.stream = stream
            yield time, rewritten


def _strip(height: int, width: int) -> tuple[slice, int]:
    """Rows of the number strip, and the width of a block."""
    if width < 8 * _BLOCKS or height < 32:
        raise ValueError(f"a frame of {width}x{height} is too small to carry its number")
    rows = max(8, height // 12)
    return slice(height - rows, height), width // _BLOCKS


def write_number(canvas: Canvas, number: int) -> None:
    """Draw a number from 0 to 32767 along the bottom of a frame, uint8 [H, W, 3], in place."""
    if not 0 <= number < 1 << _BITS:
        raise ValueError(f"frame number {number} is not in [0, {1 << _BITS})")
    rows, width = _strip(*canvas.shape[:2])
    word = number << 1 | (number.bit_count() & 1)
    for place in range(_BLOCKS):
        bright = word >> (_BLOCKS - 1 - place) & 1
        canvas[rows, place * width : (place + 1) * width] = 235 if bright else 20


def read_number(rgb: Canvas) -> int:
    """Read the number of a frame, uint8 [H, W, 3], upright and at its original size.

    Raises
    ------
    ValueError
        If the strip is not there or is damaged.
    """
    rows, width = _strip(*rgb.shape[:2])
    middle = rows.start + (rows.stop - rows.start) // 2
    word = 0
    for place in range(_BLOCKS):
        left = place * width + width // 4
        level = float(rgb[middle - 2 : middle + 2, left : left + width // 2].mean())
        if 90 < level < 165:
            raise ValueError(f"block {place} of the number strip is grey ({level:.0f})")
        word = word << 1 | (level > 127)
    number = word >> 1
    if number.bit_count() & 1 != word & 1:
        raise ValueError("the parity of the number strip is wrong")
    return number
