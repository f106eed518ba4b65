"""Sound of one window: decoded once at its own rate, averaged to mono, resampled to each rate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import av.error
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.packet import Packet
from numpy.typing import NDArray

from avfeat.errors import MediaError
from avfeat.extract.media.container import Media, time_base
from avfeat.extract.media.sampling import exact
from avfeat.extract.media.types import DecodeReport, Window

Mono = NDArray[np.float32]

Rate = int | tuple[int, int]
"""Samples per second asked for; ``(via, rate)`` goes through a lower rate first."""

#: Timestamps that differ from the count of samples by more than this (seconds) move the sound;
#: less is rounding in the container.
GAP_SECONDS = 0.05
# Seconds of sound before the window that are resampled and dropped, so that the filter has its
# history, and that are decoded and dropped before those, so that the codec has its.
_LEAD = 1
_PRIMING = 1
_CHUNK_SECONDS = 1


def read_audio(
    media: Media,
    rates: Collection[Rate],
    *,
    window: Window,
    block_seconds: float,
    report: DecodeReport,
) -> Iterator[dict[Rate, Mono]]:
    """Yield the window's sound in blocks; see `ClipReader.audio`."""
    if media.audio is None:
        raise MediaError("no_audio", f"{media.name}: has no audio stream")
    steps = {rate: (rate,) if isinstance(rate, int) else rate for rate in rates}
    if not steps or min(map(min, steps.values())) <= 0 or block_seconds <= 0:
        raise ValueError(f"rates {list(rates)} and block length {block_seconds} must be positive")
    lead = _LEAD if window.start > 0 else 0
    sound = _Sound(media, window, lead, report)
    outputs = {rate: _Output(sound.rate, steps[rate], lead=lead) for rate in rates}
    length, step = exact(window.length), exact(block_seconds)
    blocks = max(1, -int(-length // step))
    chunks = iter(sound)
    for number in range(1, blocks + 1):
        until = min(number * step, length)
        ends = {rate: round(until * steps[rate][-1]) for rate in rates}
        while any(outputs[rate].ready < ends[rate] for rate in rates):
            chunk = next(chunks, None)
            for output in outputs.values():
                output.feed(chunk)
        yield {rate: outputs[rate].take(ends[rate]) for rate in rates}
    report.audio_short = sound.short()


class _Sound:
    """The decoded stream as one run of mono samples that starts ``lead`` seconds before a window.

    Iterating gives chunks, float32 [n], until the stream's end.
    """

    def __init__(self, media: Media, window: Window, lead: int, report: DecodeReport) -> None:
        self._media = media
        self._window = window
        self._report = report
        self._origin = exact(window.start) - lead
        refused = report.corrupt_frames
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        if self._first is None:
            self.rate = media.audio.codec_context.sample_rate
            if report.corrupt_frames > refused:
                raise MediaError("undecodable", f"{media.name}: no sound can be decoded")
        else:
            self.rate = self._first.sample_rate
        self._written = 0  # samples since the origin
        self._begun = False
        self._heard = 0  # samples of the window that the stream gave
        self._bounds = (round(lead * self.rate), round((lead + exact(window.length)) * self.rate))

    def short(self) -> float:
        """Seconds of the window for which the stream gave no sound."""
        first, end = self._bounds
        return float(max(0, end - first - self._heard)) / float(self.rate)

    def __iter__(self) -> Iterator[Mono]:
        """Place every frame by its timestamp, filling gaps with silence."""
        base, offset = time_base(self._media.audio), self._media.offset(self._media.audio)
        slack = round(GAP_SECONDS * self.rate)
        frame = self._first
        while frame is not None:
            if frame.sample_rate != self.rate:
                self._report.corrupt_frames += 1  # a gap: nothing else in the stream fits it
                frame = next(self._frames, None)
                continue
            samples = to_mono(frame)
            at = self._written
            if frame.pts is not None:
                unit = frame.time_base or base
                time = (frame.pts * unit) + offset * base - self._origin
                stamped = round(time * self.rate)
                # Only a stamp says where the first sample is; later ones are counted on.
                if not self._begun or abs(stamped - self._written) > slack:
                    at = stamped
            if at < self._written:
                samples = samples[self._written - at :]
            yield from self._silence(at - self._written)
            if len(samples) > 0:
                self._begun = True
                first, end = self._bounds
                inside = min(self._written + len(samples), end) - max(self._written, first)
                self._heard += max(0, inside)
                self._written += len(samples)
                yield samples
            frame = next(self._frames, None)

    def _silence(self, samples: int) -> Iterator[Mono]:
        while samples > 0:
            part = min(samples, _CHUNK_SECONDS * self.rate)
            self._written += part
            samples -= part
            yield np.zeros(part, dtype=np.float32)

    def _decoded(self) -> Iterator[AudioFrame]:
        stream = self._media.audio
        from_tick = None
        if self._origin - _PRIMING > 0:
            base = time_base(stream)
            from_tick = int((self._origin - _PRIMING) / base) - self._media.offset(stream)
        for packet in self._media.packets(stream, from_tick=from_tick):
            yield from _decode(packet, self._report)


def _decode(packet: Packet[Any], report: DecodeReport) -> list[AudioFrame]:
    """Decode a packet; one that the decoder refuses is counted and leaves a gap."""
    try:
        return cast(list[AudioFrame], packet.decode())
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:  # decoders fail on damage with all sorts of codes
        report.corrupt_frames += 1
        return []


def to_mono(frame: AudioFrame) -> Mono:
    """Average the channels of a decoded frame in floating point.

    FFmpeg's own down-mix is not used: to a float format it gives (L + R) / sqrt(2), 1.414 times the
    mean.

    Returns
    -------
    float32 [n]
        Full scale at 1.
    """
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        scaled = (samples.astype(np.float64) - 128) / 128
    elif samples.dtype.kind == "i":
        scaled = samples.astype(np.float64) / (1 << (8 * samples.dtype.itemsize - 1))
    else:
        scaled = samples.astype(np.float64)
    mono: Mono = scaled.mean(axis=0).astype(np.float32)
    return mono


class _Output:
    """One asked rate: resamples what it is fed and keeps what was not yet taken."""

    def __init__(self, source: int, steps: Sequence[int], *, lead: int) -> None:
        self._resamplers = [
            soxr.ResampleStream(before, after, 1, dtype="float32", quality="HQ")
            for before, after in pairwise((source, *steps))
            if before != after
        ]
        self._rate = steps[-1]
        self._drop = lead * self._rate
        self._parts: list[Mono] = []
        self._taken = 0
        self._ended = False
        self.ready = 0

    def feed(self, chunk: Mono | None) -> None:
        """Take the next samples at the source rate; None at the end of the stream."""
        if self._ended:
            self._keep(np.zeros(_CHUNK_SECONDS * self._rate, dtype=np.float32))
            return
        self._ended = chunk is None
        if chunk is None:
            chunk = np.zeros(0, dtype=np.float32)
        for resampler in self._resamplers:
            chunk = resampler.resample_chunk(chunk, last=self._ended)
        self._keep(chunk)

    def _keep(self, samples: Mono) -> None:
        dropped = min(self._drop, len(samples))
        self._drop -= dropped
        if dropped < len(samples):
            self._parts.append(samples[dropped:])
            self.ready += len(samples) - dropped

    def take(self, until: int) -> Mono:
        """Return the samples up to number ``until`` of the window that were not yet taken."""
        joined = np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.float32)
        taken, rest = joined[: until - self._taken], joined[until - self._taken :]
        self._parts = [rest.copy()]
        self._taken = until
        return np.ascontiguousarray(taken)
