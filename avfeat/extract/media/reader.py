"""The reader: one open per clip, frames and audio of one window of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avfeat.extract.media.audio import Rate, read_audio
from avfeat.extract.media.container import THREADS, Media
from avfeat.extract.media.probe import describe
from avfeat.extract.media.types import DecodeReport, Frame, MediaInfo, Sampling, Window
from avfeat.extract.media.video import read_frames


class ClipReader:
    """Read the frames and the audio of a clip; a context manager that opens its file once.

    Parameters
    ----------
    path
        A local media file.
    threads
        Decoder threads, 0 for as many as FFmpeg likes. Frames are the same whatever it is.
    hardware
        Torch device that decodes the frames, see `media.hardware`; None for PyAV.
    alive
        Called with each packet that is read, whether or not it gives anything.

    Attributes
    ----------
    info : MediaInfo
        The file as its header describes it; ``info.video`` and ``info.audio`` are None where there
        is no such stream.
    report : DecodeReport
        Filled while reading.

    Raises
    ------
    MediaError
        ``empty_file``, ``not_media``, ``truncated`` or ``io``.

    Notes
    -----
    Memory does not grow with the file: one decoded frame, one block of audio, and the timestamps of
    the window's frames are held. The file has one read position, so finish one of `frames` and
    `audio` (or drop it) before using the other.
    """

    info: MediaInfo
    report: DecodeReport

    def __init__(
        self,
        path: Path,
        *,
        threads: int = THREADS,
        hardware: str | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the file and read its header."""
        self._hardware = hardware
        self._media = Media(Path(path), threads=threads, alive=alive)
        try:
            self.info = describe(self._media)
        except BaseException:
            self._media.close()
            raise
        self.report = DecodeReport()

    def __enter__(self) -> ClipReader:
        """Enter the context; the file is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        self._media.close()

    def frames(self, rule: str, *, window: Window, fps: float = 8, count: int) -> Iterator[Frame]:
        """Yield the samples of a window, in order.

        Parameters
        ----------
        rule
            ``avvp`` (what ``ffmpeg -r 8`` of ffmpeg 5.1 writes, thinned out to ``count``), ``ave``
            (``fps`` frames of each second by counting frames, as the AVE scripts do),
            ``on-screen`` (shown at k / fps) or ``center`` (shown at (k + 0.5) / fps).
        window
            Seconds of media time, see `locate_window`.
        count
            Number of samples, see `sampling.sample_count`.

        Yields
        ------
        Frame
            Exactly ``count``. The pixels are those that decoding the whole file gives.

        Raises
        ------
        MediaError
            ``no_video``, ``undecodable`` or ``io``.
        ValueError
            If the rule is unknown, or ``count`` or ``fps`` is not positive.
        """
        for _, frame in self.sampled([Sampling(rule, fps, count)], window=window):
            yield frame

    def sampled(
        self, samplings: Sequence[Sampling], *, window: Window
    ) -> Iterator[tuple[int, Frame]]:
        """Yield the samples of several samplings of a window, decoding it once.

        Yields
        ------
        int, Frame
            Position in `samplings`, and the sample. The samples of one sampling come in order;
            those of different ones are interleaved as the video shows them.

        Raises
        ------
        MediaError, ValueError
            As `frames` does.
        """
        rotation = self.info.video.rotation if self.info.video else 0
        return read_frames(
            self._media,
            samplings,
            window=window,
            rotation=rotation,
            report=self.report,
            hardware=self._hardware,
        )

    def audio(
        self, rates: Collection[Rate], *, window: Window, block_seconds: float = 10.0
    ) -> Iterator[dict[Rate, NDArray[np.float32]]]:
        """Yield the window's sound in blocks, decoded once, at every asked rate.

        Channels are averaged. Sound is placed by its timestamps: silence stands before a late
        start, in gaps of more than 50 ms, and after an early end (see ``report.audio_short``).

        Parameters
        ----------
        rates
            Samples per second, each a positive integer; or a pair ``(via, rate)``: resampled to
            ``via`` first and from there to ``rate``.
        window
            Seconds of media time, see `locate_window`.
        block_seconds
            Length of a block; the last one may be shorter.

        Yields
        ------
        dict of rate to float32 [n]
            One array per rate, full scale at 1. Over all blocks a rate's arrays have exactly
            ``round(window.length * rate)`` samples.

        Raises
        ------
        MediaError
            ``no_audio``, ``undecodable`` or ``io``.

        Notes
        -----
        AAC decoders fill some bands with noise whose generator goes on from one reading to the
        next, so a second call on the same reader may differ by about 1e-3; a new reader does not.
        """
        return read_audio(
            self._media, rates, window=window, block_seconds=block_seconds, report=self.report
        )
