"""One open media file: safe opening, errors by kind, time zero, seeking and demuxing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream

from avfeat.errors import MediaError

# Containers that hold one clip's media. Left out on purpose: playlists and scripts (concat, hls,
# dash), which open other files; still images; and demuxers that take any text for video (tty).
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,rm,dv,mxf,"
    "nut,gif,ivf,h264,hevc,m4v,vc1,swf,wtv,mp3,aac,ac3,eac3,flac,wav,w64,aiff,au,caf,amr,wv,ape,"
    "tta,dts,dtshd,opus"
)

# AVFMT_TS_DISCONT of libavformat/avformat.h
_TS_DISCONT = 0x0200

# Seconds before a stream's start to which it is rewound.
_BEFORE_START = 1

#: Decoder threads of one reader. The engine runs several readers on few cores, and with one thread
#: the concealment of damaged frames does not depend on the machine.
THREADS = 1


@contextmanager
def media_errors(name: str, path: Path | None = None) -> Iterator[None]:
    """Turn what FFmpeg and the system raise into `MediaError`; ``name`` is the file's base name.

    FFmpeg's exceptions also inherit from built-in ones (`ValueError`, `OSError`), so they are
    caught first.
    """
    try:
        yield
    except (av.error.EOFError, av.error.InvalidDataError, av.error.ArgumentError) as error:
        if isinstance(error, av.error.EOFError) or (path is not None and _is_cut_off(path)):
            raise MediaError("truncated", f"{name}: the file is cut off; fetch it again") from error
        raise MediaError(
            "not_media", f"{name}: no audio or video file that FFmpeg can read ({error.strerror})"
        ) from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise MediaError("io", f"{name}: cannot be read ({error.strerror})") from error
        raise MediaError("not_media", f"{name}: FFmpeg refuses it ({error.strerror})") from error
    except OSError as error:
        raise MediaError("io", f"{name}: cannot be read ({error.strerror})") from error


def _is_cut_off(path: Path) -> bool:
    """Tell a known container whose end is missing from bytes that are no media at all."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}:
            file.seek(0)
            return not _has_whole_moov(file, path.stat().st_size)
    # EBML (Matroska, WebM), AVI or WAVE, FLV, Ogg: the format is right, so what follows is lacking
    return head[:4] in {b"\x1aE\xdf\xa3", b"OggS"} or head[:3] == b"FLV" or head[:4] == b"RIFF"


def _has_whole_moov(file: BinaryIO, size: int) -> bool:
    """Walk the top-level boxes of an ISO file (ISO/IEC 14496-12, 4.2) up to a complete ``moov``."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - at
        if header[4:8] == b"moov":
            return at + length <= size
        if length < 8:
            return False
        at += length
    return False


class Media:
    """An open media file with the streams that are read.

    Parameters
    ----------
    path
        A local file. It is opened by its absolute path and with nothing but the file protocol, so
        names such as ``http:x.mp4`` or ``-i.mp4`` are only names.
    threads
        Decoder threads; 0 lets FFmpeg decide.
    alive
        Called with each packet: a stream may be read for minutes before anything is given.

    Raises
    ------
    MediaError
        ``empty_file``, ``not_media``, ``truncated`` or ``io``.

    Attributes
    ----------
    name, path
        Of the file.
    jumps
        Whether timestamps may jump in this format (MPEG-TS, MPEG-PS, Ogg).

    Notes
    -----
    Time zero of a file is its container's start time, as for the ffmpeg command: media time is
    ``(pts + offset(stream)) * time_base``. PyAV keeps FFmpeg's log silent unless the program asks
    for it, so nothing global is touched here.
    """

    def __init__(
        self, path: Path, *, threads: int = THREADS, alive: Callable[[], None] = lambda: None
    ) -> None:
        """Open the file and choose its streams."""
        self._alive = alive
        self.name = path.name
        self.path = path
        self._first: dict[int, tuple[int | None, int | None, int]] = {}
        self._fresh = True
        self._reading = 0
        with media_errors(self.name, path):
            self.size = path.stat().st_size
            if path.is_dir():
                raise MediaError("io", f"{self.name}: is a folder, not a media file")
            if self.size == 0:
                raise MediaError("empty_file", f"{self.name}: the file is empty; fetch it again")
            self.container: InputContainer = av.open(
                f"file:{path.absolute()}",
                options={"protocol_whitelist": "file", "format_whitelist": FORMATS},
                metadata_errors="replace",
            )
        self.jumps = bool(self.container.format.flags & _TS_DISCONT)
        pictures = [s for s in self.container.streams.video if not is_cover(s)]
        self.video_streams = len(pictures)
        self.audio_streams = len(self.container.streams.audio)
        self.video = self._best("video", pictures)
        self.audio = self._best("audio", list(self.container.streams.audio))
        for stream in (self.video, self.audio):
            if stream is not None:
                stream.codec_context.thread_type = "AUTO"
                stream.codec_context.thread_count = threads

    def _best(self, kind: Any, streams: list[Any]) -> Any:
        """Choose as the ffmpeg command does; streams without a decoder are as good as absent."""
        streams = [s for s in streams if s.codec_context is not None]
        best = self.container.streams.best(kind)
        return best if best in streams else next(iter(streams), None)

    def __enter__(self) -> Media:
        """Enter the context; the file is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        self._reading += 1
        self.container.close()

    def offset(self, stream: Stream) -> int:
        """Ticks of the stream's time base to add to a pts so that 0 is the container's start.

        Rounded to the nearest tick, halves away from zero, as FFmpeg's ``av_rescale_q`` does.
        """
        start = Fraction(self.container.start_time or 0, 1_000_000) / time_base(stream)
        ticks = int(abs(start) + Fraction(1, 2))
        return -ticks if start > 0 else ticks

    def packets(self, stream: Stream, *, from_tick: int | None = None) -> Iterator[Packet[Any]]:
        """Demux one stream from its first packet, or from a key packet at or before a timestamp.

        Parameters
        ----------
        from_tick
            Raw timestamp in the stream's time base. What comes first may lie earlier, never later
            (where the index misleads, it is the very first packet).

        Raises
        ------
        RuntimeError
            If another reading of the same file was begun meanwhile: there is one read position.
        """
        self._reading += 1
        mine = self._reading
        for other in self.container.streams:
            other.discard = Discard.default if other.index == stream.index else Discard.all
        packets = self._rewound(stream) if from_tick is None else self._sought(stream, from_tick)
        for packet in packets:
            if mine != self._reading:
                raise RuntimeError(f"{self.name}: read frames and audio one after the other")
            yield packet
            if mine != self._reading:
                raise RuntimeError(f"{self.name}: read frames and audio one after the other")

    def _demux(self, stream: Stream) -> Iterator[Packet[Any]]:
        with media_errors(self.name):
            try:
                for packet in self.container.demux(stream):
                    self._alive()
                    yield packet
            except (av.error.OSError, av.error.MemoryError):
                raise
            except av.error.FFmpegError:
                # Damage that the demuxer cannot step over ends the stream, as for ffmpeg; the
                # reader tells by how much the stream is short.
                return

    def _rewound(self, stream: Stream) -> Iterator[Packet[Any]]:
        if self._fresh:
            self._fresh = False
            return self._noting_first(stream, self._demux(stream))
        # By time where there is an index, from before the start because sound may have priming
        # packets there; by byte where there is none and for MPEG-TS and its like, whose search by
        # time can land behind the first packets. Where none leads back to the very first packet,
        # the earliest time is the best that can be had.
        start = stream.start_time or 0
        early = start - int(_BEFORE_START / time_base(stream))
        packets: Iterator[Packet[Any]] = iter(())
        attempts = [(early, False), (start, False), (0, False), (0, True), (start, False)]
        if self.jumps:
            attempts.insert(0, (0, True))
        for offset, by_byte in attempts:
            try:
                self.container.seek(offset, stream=stream, unsupported_byte_offset=by_byte)
            except av.error.FFmpegError:
                continue
            first, packets = _peek(self._demux(stream))
            if stream.index not in self._first or _identity(first) == self._first[stream.index]:
                break
        return self._noting_first(stream, packets)

    def _noting_first(
        self, stream: Stream, packets: Iterator[Packet[Any]]
    ) -> Iterator[Packet[Any]]:
        first, packets = _peek(packets)
        self._first.setdefault(stream.index, _identity(first))
        return packets

    def _sought(self, stream: Stream, tick: int) -> Iterator[Packet[Any]]:
        self._fresh = False
        try:
            self.container.seek(tick, stream=stream)
        except av.error.FFmpegError:
            return self._rewound(stream)
        first, packets = _peek(self._demux(stream))
        stamp = None if first is None else first.dts if first.dts is not None else first.pts
        if stamp is None or stamp > tick:
            return self._rewound(stream)
        return packets


def time_base(stream: Stream) -> Fraction:
    """Seconds per tick of a stream."""
    if stream.time_base is None:
        raise MediaError("not_media", "a stream has no time base")
    return stream.time_base


def is_cover(stream: Stream) -> bool:
    """Whether a video stream is but a still: cover art or thumbnails."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _peek(packets: Iterator[Packet[Any]]) -> tuple[Packet[Any] | None, Iterator[Packet[Any]]]:
    first = next(packets, None)
    return first, packets if first is None else itertools.chain((first,), packets)


def _identity(packet: Packet[Any] | None) -> tuple[int | None, int | None, int]:
    """Identify a packet by what a seek does not change (decoding times are guessed anew)."""
    return (None, None, 0) if packet is None else (packet.pts, packet.pos, packet.size)
