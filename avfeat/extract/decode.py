"""One clip in: opened once, cut into the items of every backbone that wants it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from avfeat.download import sha256_file
from avfeat.errors import MediaError
from avfeat.extract import transforms
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec, VisualInput
from avfeat.extract.media import ClipReader, locate_window
from avfeat.extract.media.types import Window
from avfeat.manifests.clips import Clip, Outcome

#: A stream may end this many seconds before the clip does without the clip counting as degraded:
#: one sampling period at 8 frames per second.
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


@dataclass(slots=True)
class _Source:
    """What is known of the file, for every outcome of the clip."""

    facts: dict[str, Any] = field(default_factory=dict)

    def outcome(self, **values: Any) -> Outcome:
        return Outcome(**self.facts, **values)

    def failed(self, error: MediaError) -> Outcome:
        if error.kind in ("no_video", "no_audio"):
            return self.outcome(status=error.kind, message=str(error))
        return self.outcome(status="failed", kind=error.kind, message=str(error))


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
    times = times or DecodeTimes()
    waited = 0.0

    def hand_over(chunk: Chunk) -> None:
        # Handing over may wait for the model; that is no time of decoding.
        nonlocal waited
        began = time.perf_counter()
        emit(chunk)
        waited += time.perf_counter() - began

    audio = tuple(spec for spec in job.specs if isinstance(spec.input, AudioInput))
    visual = tuple(spec for spec in job.specs if isinstance(spec.input, VisualInput))
    source = _Source({"media": job.media})
    outcomes: dict[str, Outcome] = {}
    started = time.perf_counter()
    try:
        source.facts |= {"media_bytes": job.path.stat().st_size}
        source.facts |= {"media_sha256": sha256_file(job.path)}
        with ClipReader(job.path) as reader:
            source.facts |= {"media_duration": reader.info.duration or 0.0}
            if not math.isfinite(job.clip.seconds):
                raise MediaError("undecodable", f"{job.path.name}: its length cannot be told")
            window = locate_window(reader.info, job.clip.start, job.clip.end)
            for specs, read in ((audio, _read_audio), (visual, _read_video)):
                if specs:
                    outcomes |= read(job, reader, window, specs, hand_over, source, times)
    except MediaError as error:
        outcomes |= {s.name: source.failed(error) for s in job.specs if s.name not in outcomes}
    except OSError as error:
        message = f"{job.path.name}: {error.strerror or error}"
        failure = source.failed(MediaError("io", message))
        outcomes |= {s.name: failure for s in job.specs if s.name not in outcomes}
    times.decode += time.perf_counter() - started - times.transform - waited
    return outcomes


def _read_audio(
    job: ClipJob,
    reader: ClipReader,
    window: Window,
    specs: Sequence[BackboneSpec],
    emit: Callable[[Chunk], None],
    source: _Source,
    times: DecodeTimes,
) -> dict[str, Outcome]:
    outcomes, specs = _leave_out_short(job, specs, source)
    inputs = {spec.name: spec.input for spec in specs if isinstance(spec.input, AudioInput)}
    cutters = {name: _Cutter(wanted.window, wanted.hop) for name, wanted in inputs.items()}
    rates = {wanted.rate for wanted in inputs.values()}
    try:
        for block in reader.audio(rates, window=window) if rates else ():
            for name, wanted in inputs.items():
                first, items = cutters[name].push(block[wanted.rate])
                if len(items):
                    starts = first + wanted.hop * np.arange(len(items))
                    emit(Chunk(name, items, (starts + wanted.window / 2) / wanted.rate))
    except MediaError as error:
        return outcomes | {spec.name: source.failed(error) for spec in specs}
    ends = _ending(source, reader.report.corrupt_frames, reader.report.audio_short, "audio")
    return outcomes | {spec.name: ends for spec in specs}


def _read_video(
    job: ClipJob,
    reader: ClipReader,
    window: Window,
    specs: Sequence[BackboneSpec],
    emit: Callable[[Chunk], None],
    source: _Source,
    times: DecodeTimes,
) -> dict[str, Outcome]:
    outcomes, specs = _leave_out_short(job, specs, source)
    inputs = {spec.name: spec.input for spec in specs if isinstance(spec.input, VisualInput)}
    cutters = {name: _Cutter(wanted.frames, wanted.stride) for name, wanted in inputs.items()}
    geometries = {wanted.geometry for wanted in inputs.values()}
    before = reader.report.corrupt_frames
    pictures: dict[Any, list[np.ndarray]] = {geometry: [] for geometry in geometries}
    seconds: list[float] = []
    previous: tuple[np.ndarray | None, dict[Any, np.ndarray]] = (None, {})

    def hand_over() -> None:
        stamps = np.array(seconds)
        stacks = {geometry: np.stack(frames) for geometry, frames in pictures.items()}
        for name, wanted in inputs.items():
            _, items = cutters[name].push(stacks[wanted.geometry])
            shown = cutters[name].times(stamps)
            if len(items):
                emit(Chunk(name, items[:, 0] if wanted.frames == 1 else items, shown))
        seconds.clear()
        for frames in pictures.values():
            frames.clear()

    count = round(job.clip.seconds * job.fps)
    frames = reader.frames(job.sampling, window=window, fps=job.fps, count=count)
    try:
        for frame in frames if inputs else ():
            if frame.rgb is not previous[0]:
                started = time.perf_counter()
                previous = (frame.rgb, transforms.crops(frame.rgb, geometries))
                times.transform += time.perf_counter() - started
            for geometry, picture in previous[1].items():
                pictures[geometry].append(picture)
            seconds.append(frame.time)
            if len(seconds) == _CHUNK_FRAMES:
                hand_over()
        if seconds:
            hand_over()
    except MediaError as error:
        return outcomes | {spec.name: source.failed(error) for spec in specs}
    corrupt = reader.report.corrupt_frames - before
    ends = _ending(source, corrupt, reader.report.video_short, "video")
    return outcomes | {spec.name: ends for spec in specs}


def _leave_out_short(
    job: ClipJob, specs: Sequence[BackboneSpec], source: _Source
) -> tuple[dict[str, Outcome], list[BackboneSpec]]:
    """Fail the backbones whose one item is longer than the clip."""
    outcomes, fitting = {}, []
    for spec in specs:
        if spec.rows(job.clip.seconds, job.fps):
            fitting.append(spec)
        else:
            message = (
                f"{job.path.name}: {job.clip.seconds:.3f} s is shorter than one {spec.name} item"
            )
            outcomes[spec.name] = source.failed(MediaError("too_short", message))
    return outcomes, fitting


def _ending(source: _Source, corrupt: int, short: float, stream: str) -> Outcome:
    """Say whether a stream that was read to its end was whole."""
    reasons = []
    if corrupt:
        reasons.append(f"{corrupt} corrupt frames")
    if short > SHORT_TOLERANCE:
        filled = "silence" if stream == "audio" else "its last frame"
        reasons.append(f"{stream} ends {short:.3f} s early, filled with {filled}")
    return source.outcome(
        status="degraded" if reasons else "ok",
        kind="corrupt" if corrupt else "short" if reasons else "",
        message="; ".join(reasons),
        corrupt_frames=corrupt,
        short=round(short, 6),
    )


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
