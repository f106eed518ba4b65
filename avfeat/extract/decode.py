"""One clip in: opened once, cut into the items of every backbone that wants it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avfeat.errors import MediaError
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec, VisualInput
from avfeat.extract.items import Cutter, VisualItems
from avfeat.extract.media import ClipReader, Rate, Sampling, locate_window
from avfeat.extract.media.types import Frame, Window
from avfeat.extract.stages import Behind, Figures
from avfeat.manifests.clips import Clip, Outcome

#: This many seconds of a stream may be missing without the clip counting as degraded: one sampling
#: period at 8 frames per second.
SHORT_TOLERANCE = 0.125

#: Decoded frames that may wait to be resized; bounds memory.
_FRAMES_WAITING = 8

#: Bytes hashed at once.
_BLOCK = 2**20


class Chunk(NamedTuple):
    """Items of one clip for one backbone.

    Attributes
    ----------
    backbone
        Name of the backbone.
    items
        [n, *item_shape] of the backbone's `item_dtype`: pictures, snippets or waveforms.
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
    rule
        Frame sampling rule, of backbones that have none of their own.
    device
        Torch device where optical flow is computed, by the method that can use one.
    nvdec
        Whether frames are decoded on the device too.
    """

    clip: Clip
    path: Path
    media: str
    specs: tuple[BackboneSpec, ...]
    rule: str
    device: str = "cpu"
    nvdec: bool = False

    def failed(self, kind: str, message: str) -> dict[str, Outcome]:
        """Return the outcomes of a clip that nothing more is known about."""
        outcome = Outcome("failed", kind, f"{self.path.name}: {message}", media=self.media)
        return {spec.name: outcome for spec in self.specs}


@dataclass(slots=True)
class ClipFigures:
    """What one clip, or all of them, took.

    Attributes
    ----------
    decode
        Demuxing and decoding; items are frames sampled, and blocks of sound.
    geometry
        Resizing, cropping and optical flow, in a thread beside; items are those of all backbones.
    reading
        Since when (`time.monotonic`) the decoder is at work on the same packet; None while
        something else goes on.
    """

    decode: Figures = field(default_factory=Figures)
    geometry: Figures = field(default_factory=Figures)
    reading: float | None = None

    def add(self, other: ClipFigures) -> None:
        """Add those of another clip."""
        self.decode.add(other.decode)
        self.geometry.add(other.geometry)


Emit = Callable[[Chunk], None]
Decode = Callable[[ClipJob, Emit, ClipFigures], dict[str, Outcome]]
"""What `decode` is, and what runs it elsewhere."""


def decode(job: ClipJob, emit: Emit, figures: ClipFigures | None = None) -> dict[str, Outcome]:
    """Decode a clip once and emit every backbone's items, in order.

    Parameters
    ----------
    job
        What to decode.
    emit
        Called with each chunk, audio first, then video; by one thread at a time.
    figures
        Filled with what it took.

    Returns
    -------
    dict
        Backbone name to outcome. `Outcome.rows` is left at 0: the engine counts rows. A clip that
        cannot be decoded is an outcome, never an exception.
    """
    decoding = _Decoding(job, emit, figures or ClipFigures())
    decoding.run()
    return decoding.outcomes


class _Decoding:
    """The state of `decode`: one clip, what is known of its file, and the outcomes so far."""

    def __init__(self, job: ClipJob, emit: Emit, figures: ClipFigures) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._job = job
        self._emit_chunk = emit
        self._figures = figures
        #: Of the media file; part of every outcome.
        self._facts: dict[str, Any] = {"media": job.media}

    def run(self) -> None:
        """Open the file once; read its audio, then its video."""
        clip, path = self._job.clip, self._job.path
        started = time.perf_counter()
        try:
            self._alive()
            self._facts["media_bytes"] = path.stat().st_size
            self._facts["media_sha256"] = self._digest()
            hardware = self._job.device if self._job.nvdec else None
            with ClipReader(path, hardware=hardware, alive=self._alive) as reader:
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
        self._figures.reading = None
        # Handing over may wait for the stages that follow; that is no time of decoding.
        spent = self._figures.decode
        spent.busy += time.perf_counter() - started - spent.blocked

    def _alive(self) -> None:
        """Show that the decoder goes on."""
        self._figures.reading = time.monotonic()

    def _digest(self) -> str:
        """Hash the file, showing that it goes on."""
        digest = hashlib.sha256()
        with self._job.path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                self._alive()
        return digest.hexdigest()

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
        """Fail the backbones whose one row takes more than the clip."""
        seconds = self._job.clip.seconds
        for spec in self._job.specs:
            if not spec.rows(seconds):
                message = (
                    f"{self._job.path.name}: {seconds:.3f} s are less than one row of {spec.name}, "
                    f"which needs {spec.row_seconds:.3g} s"
                )
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

    def _emit(self, figures: Figures, name: str, items: np.ndarray, times: np.ndarray) -> None:
        """Emit items, from the stage that `figures` are of."""
        if len(items):
            started = time.perf_counter()
            self._emit_chunk(Chunk(name, items, times))
            figures.blocked += time.perf_counter() - started
            self._figures.geometry.items += len(items)

    def _read_audio(
        self, reader: ClipReader, window: Window, inputs: dict[str, AudioInput]
    ) -> tuple[int, float]:
        """Emit the audio items; return corrupt frames, and seconds missing at the end."""
        cutters = {name: Cutter(wanted.window, wanted.hop) for name, wanted in inputs.items()}
        rates: dict[str, Rate] = {
            name: wanted.rate if wanted.via is None else (wanted.via, wanted.rate)
            for name, wanted in inputs.items()
        }
        for block in reader.audio(set(rates.values()), window=window):
            self._figures.reading = None
            self._figures.decode.items += 1
            for name, wanted in inputs.items():
                first, items = cutters[name].push(block[rates[name]])
                starts = first + wanted.hop * np.arange(len(items))
                middles = (starts + wanted.window / 2) / wanted.rate
                self._emit(self._figures.decode, name, items, middles)
            self._alive()
        return reader.report.corrupt_frames, reader.report.audio_short

    def _read_video(
        self, reader: ClipReader, window: Window, inputs: dict[str, VisualInput]
    ) -> tuple[int, float]:
        """Emit the visual items; return corrupt frames, and seconds missing at the end."""
        corrupt_before = reader.report.corrupt_frames
        seconds = self._job.clip.seconds
        by_sampling: dict[Sampling, dict[str, VisualInput]] = {}
        for name, wanted in inputs.items():
            rule = wanted.rule or self._job.rule
            sampling = Sampling(rule, wanted.fps, wanted.samples(seconds))
            by_sampling.setdefault(sampling, {})[name] = wanted
        decoding, geometry = self._figures.decode, self._figures.geometry
        feeds = [
            VisualItems(group, partial(self._emit, geometry), device=self._job.device)
            for group in by_sampling.values()
        ]

        def take(sample: tuple[int, Frame | None]) -> None:
            which, frame = sample
            if frame is None:
                feeds[which].finish()
            else:
                feeds[which].push(frame.picture, frame.time)

        with Behind(
            "geometry", take, depth=_FRAMES_WAITING, figures=geometry, upstream=decoding
        ) as resizing:
            for sample in reader.sampled(list(by_sampling), window=window):
                self._figures.reading = None
                decoding.items += 1
                resizing.put(sample)
                self._alive()
            self._figures.reading = None
            for which in range(len(feeds)):
                resizing.put((which, None))
        return reader.report.corrupt_frames - corrupt_before, reader.report.video_short
