"""One clip in: opened once, cut into the items of every backbone that wants it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from avfeat.download import sha256_file
from avfeat.errors import MediaError
from avfeat.extract import transforms
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec, Geometry, VisualInput
from avfeat.extract.media import ClipReader, locate_window
from avfeat.extract.media.types import Window
from avfeat.manifests.clips import Clip, Outcome

#: This many seconds of a stream may be missing without the clip counting as degraded: one sampling
#: period at 8 frames per second.
SHORT_TOLERANCE = 0.125

#: Frames handed over at once; bounds memory whatever the clip's length.
_CHUNK_FRAMES = 16


class Chunk(NamedTuple):
    """Items of one clip for one backbone.

    Attributes
    ----------
    backbone
        Name of the backbone.
    items
        uint8 [n, H, W, 3] or [n, T, H, W, 3], or float32 waveforms [n, window].
    times
        float64 [n], seconds in the clip: of the source frame, the mean over a snippet's frames, or
        the centre of an audio window.
    """

    backbone: str
    items: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, slots=True)
class ClipJob:
    """A clip to decode.

    Attributes
    ----------
    clip, path
        What, and from which file.
    media
        The file's name within the data folder, as the store records it.
    specs
        The backbones that need the clip.
    sampling, fps
        Frame sampling rule and frames per second.
    """

    clip: Clip
    path: Path
    media: str
    specs: tuple[BackboneSpec, ...]
    sampling: str
    fps: float


@dataclass(slots=True)
class DecodeTimes:
    """Seconds spent on one clip: decoding (with colour conversion), and geometry."""

    decode: float = 0.0
    transform: float = 0.0


def decode(
    job: ClipJob, emit: Callable[[Chunk], None], times: DecodeTimes | None = None
) -> dict[str, Outcome]:
    """Decode a clip once and emit every backbone's items, in order.

    Parameters
    ----------
    job
        What to decode.
    emit
        Called with each chunk; audio first, then video.
    times
        Filled with the seconds spent.

    Returns
    -------
    dict
        Backbone name to outcome. `Outcome.rows` is left at 0: the engine counts rows. A clip that
        cannot be decoded is an outcome, never an exception.
    """
    decoding = _Decoding(job, emit, times or DecodeTimes())
    decoding.run()
    return decoding.outcomes


class _Decoding:
    """The state of `decode`: one clip, what is known of its file, and the outcomes so far."""

    def __init__(self, job: ClipJob, emit: Callable[[Chunk], None], times: DecodeTimes) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._job = job
        self._emit_chunk = emit
        self._times = times
        self._waited = 0.0
        #: Of the media file; part of every outcome.
        self._facts: dict[str, Any] = {"media": job.media}

    def run(self) -> None:
        """Open the file once; read its audio, then its video."""
        clip, path = self._job.clip, self._job.path
        started = time.perf_counter()
        try:
            self._facts["media_bytes"] = path.stat().st_size
            self._facts["media_sha256"] = sha256_file(path)
            with ClipReader(path) as reader:
                self._facts["media_duration"] = reader.info.duration or 0.0
                if not math.isfinite(clip.seconds):
                    raise MediaError("undecodable", f"{path.name}: its length cannot be told")
                window = locate_window(reader.info, clip.start, clip.end)
                self._leave_out_short()
                self._read("audio", AudioInput, partial(self._read_audio, reader, window))
                self._read("video", VisualInput, partial(self._read_video, reader, window))
        except MediaError as error:
            self._fail(self._job.specs, error)
        except OSError as error:
            message = f"{path.name}: {error.strerror or error}"
            self._fail(self._job.specs, MediaError("io", message))
        # Handing over may wait for the model; that is no time of decoding.
        elapsed = time.perf_counter() - started
        self._times.decode += elapsed - self._times.transform - self._waited

    def _fail(self, specs: Sequence[BackboneSpec], error: MediaError) -> None:
        """Settle those of `specs` that have no outcome yet."""
        outcome = (
            Outcome(error.kind, message=str(error), **self._facts)  # type: ignore[arg-type]
            if error.kind in ("no_video", "no_audio")
            else Outcome("failed", error.kind, str(error), **self._facts)
        )
        for spec in specs:
            self.outcomes.setdefault(spec.name, outcome)

    def _leave_out_short(self) -> None:
        """Fail the backbones whose one item is longer than the clip."""
        seconds = self._job.clip.seconds
        for spec in self._job.specs:
            if not spec.rows(seconds, self._job.fps):
                message = f"{self._job.path.name}: {seconds:.3f} s are less than a {spec.name} item"
                self._fail([spec], MediaError("too_short", message))

    def _read(
        self,
        stream: str,
        kind: type[AudioInput | VisualInput],
        read: Callable[[dict[str, Any]], tuple[int, float]],
    ) -> None:
        """Read one stream for the backbones of one `kind` of input, and settle them."""
        specs = [
            spec
            for spec in self._job.specs
            if isinstance(spec.input, kind) and spec.name not in self.outcomes
        ]
        if not specs:
            return
        try:
            corrupt, short = read({spec.name: spec.input for spec in specs})
        except MediaError as error:
            self._fail(specs, error)
            return
        reasons = []
        if corrupt:
            reasons.append(f"{corrupt} corrupt frames")
        if short > SHORT_TOLERANCE:
            reasons.append(f"{short:.3f} s of {stream} are not there")
        outcome = Outcome(
            status="degraded" if reasons else "ok",
            kind="corrupt" if corrupt else "short" if reasons else "",
            message="; ".join(reasons),
            corrupt_frames=corrupt,
            short=round(short, 6),
            **self._facts,
        )
        self.outcomes |= {spec.name: outcome for spec in specs}

    def _emit(self, name: str, items: np.ndarray, times: np.ndarray) -> None:
        if len(items):
            started = time.perf_counter()
            self._emit_chunk(Chunk(name, items, times))
            self._waited += time.perf_counter() - started

    def _read_audio(
        self, reader: ClipReader, window: Window, inputs: dict[str, AudioInput]
    ) -> tuple[int, float]:
        """Emit the audio items; return corrupt frames, and seconds missing at the end."""
        cutters = {name: _Cutter(wanted.window, wanted.hop) for name, wanted in inputs.items()}
        for block in reader.audio({wanted.rate for wanted in inputs.values()}, window=window):
            for name, wanted in inputs.items():
                first, items = cutters[name].push(block[wanted.rate])
                starts = first + wanted.hop * np.arange(len(items))
                self._emit(name, items, (starts + wanted.window / 2) / wanted.rate)
        return reader.report.corrupt_frames, reader.report.audio_short

    def _read_video(
        self, reader: ClipReader, window: Window, inputs: dict[str, VisualInput]
    ) -> tuple[int, float]:
        """Emit the visual items; return corrupt frames, and seconds missing at the end."""
        cutters = {name: _Cutter(wanted.frames, wanted.stride) for name, wanted in inputs.items()}
        geometries = {wanted.geometry for wanted in inputs.values()}
        corrupt_before = reader.report.corrupt_frames
        frames = reader.frames(
            self._job.sampling,
            window=window,
            fps=self._job.fps,
            count=round(self._job.clip.seconds * self._job.fps),
        )
        rgb: np.ndarray | None = None
        crops: dict[Geometry, np.ndarray] = {}
        while True:
            pictures, seconds = [], []  # of crops alone: whole frames would be large
            for frame in islice(frames, _CHUNK_FRAMES):
                if frame.rgb is not rgb:  # the same array where a frame is sampled twice
                    started = time.perf_counter()
                    rgb, crops = frame.rgb, transforms.crops(frame.rgb, geometries)
                    self._times.transform += time.perf_counter() - started
                pictures.append(crops)
                seconds.append(frame.time)
            if not pictures:
                break
            stacks = {g: np.stack([crops[g] for crops in pictures]) for g in geometries}
            for name, wanted in inputs.items():
                _, items = cutters[name].push(stacks[wanted.geometry])
                shown = cutters[name].times(np.array(seconds))
                self._emit(name, items[:, 0] if wanted.frames == 1 else items, shown)
        return reader.report.corrupt_frames - corrupt_before, reader.report.video_short


class _Cutter:
    """Cut a stream that comes in blocks into windows of `size`, every `step`."""

    def __init__(self, size: int, step: int) -> None:
        self._size, self._step = size, step
        self._values: np.ndarray | None = None
        self._stamps = np.empty(0)
        self._first = 0
        # Values still to be passed over before the next window, where windows have gaps.
        self._gap = {"values": 0, "stamps": 0}

    def push(self, values: np.ndarray) -> tuple[int, np.ndarray]:
        """Add values [n, ...]; return where the new windows start, and them [m, size, ...]."""
        before = values[:0] if self._values is None else self._values
        windows, self._values = self._cut("values", before, values)
        first = self._first
        self._first += len(windows) * self._step
        return first, np.ascontiguousarray(np.moveaxis(windows, -1, 1))

    def times(self, stamps: np.ndarray) -> np.ndarray:
        """Add the stamps [n] of pushed values; return the mean stamp of each new window [m]."""
        windows, self._stamps = self._cut("stamps", self._stamps, stamps)
        return np.asarray(windows.mean(axis=-1))

    def _cut(
        self, stream: str, before: np.ndarray, new: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the complete windows [m, ..., size] and what is left for the next ones."""
        passed = min(self._gap[stream], len(new))
        self._gap[stream] -= passed
        data = np.concatenate([before, new[passed:]])
        count = max(0, (len(data) - self._size) // self._step + 1)
        if not count:
            return np.empty((0, *data.shape[1:], self._size), dtype=data.dtype), data
        used = count * self._step
        self._gap[stream] = max(0, used - len(data))
        return sliding_window_view(data, self._size, axis=0)[:: self._step][:count], data[used:]
