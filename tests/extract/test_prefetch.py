"""Clips are decoded side by side and handed over in order."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyImage

from avfeat.errors import ProcessError
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, Emit
from avfeat.extract.prefetch import ClipStream, prefetch
from avfeat.extract.stages import CancelledError, Figures
from avfeat.manifests.clips import Clip, Outcome

PATIENCE = 60.0


def job(name: str) -> ClipJob:
    path = Path(f"{name}.mp4")
    return ClipJob(Clip(name, 0.0, 1.0), path, path.name, (TinyImage.spec,), "avvp")


def chunk(value: int) -> Chunk:
    return Chunk("tiny_image", np.full((1, 1), value), np.zeros(1))


def values(stream: ClipStream) -> list[int]:
    return [int(one.items[0, 0]) for one in stream.chunks(Figures())]


def test_a_clip_that_is_through_first_waits_for_its_turn() -> None:
    second = threading.Event()

    def decode(job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        if job.clip.id == "0":
            assert second.wait(PATIENCE)
        emit(chunk(int(job.clip.id)))
        if job.clip.id == "1":
            second.set()
        return {"tiny_image": Outcome("ok", message=job.clip.id)}

    jobs = [job(str(number)) for number in range(5)]
    streams = prefetch(jobs, decode, decoders=2, cancelled=threading.Event())
    got = [(s.job.clip.id, values(s), s.outcomes["tiny_image"].message) for s in streams]
    assert got == [(str(number), [number], str(number)) for number in range(5)]


def test_an_error_costs_its_clip_unless_nothing_can_be_decoded() -> None:
    def decode(job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        if job.clip.id == "odd":
            emit(chunk(7))
            raise ZeroDivisionError("nobody foresaw this")
        raise ProcessError("no process")

    streams = prefetch([job("odd"), job("none")], decode, decoders=1, cancelled=threading.Event())
    odd = next(streams)
    assert values(odd) == [7]
    outcome = odd.outcomes["tiny_image"]
    assert (outcome.status, outcome.kind) == ("failed", "unexpected")
    assert outcome.message == "odd.mp4: ZeroDivisionError: nobody foresaw this"
    assert odd.crash is not None
    assert "ZeroDivisionError" in odd.crash
    with pytest.raises(ProcessError, match="no process"):
        values(next(streams))


def test_decoders_that_nobody_listens_to_stop_at_their_next_chunk() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def decode(job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        try:
            while True:
                emit(chunk(0))
        except CancelledError:
            ended.set()
            raise

    streams = prefetch([job("long")], decode, decoders=1, cancelled=cancelled)
    stream = next(streams)
    assert next(stream.chunks(Figures())).backbone == "tiny_image"
    cancelled.set()
    streams.close()
    assert ended.wait(PATIENCE)
    with pytest.raises(CancelledError):
        values(stream)
