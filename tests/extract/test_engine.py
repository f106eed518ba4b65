"""The pipeline with a network, stores and a decoder that do as they are told; and its figures."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from support import Cli, Corpus
from tiny import TinyImage

from avfeat import render
from avfeat.errors import WriteError
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, Emit, decode
from avfeat.extract.engine import RunFigures, run_units
from avfeat.extract.work import Unit, UnitDone, UnitStore
from avfeat.manifests.clips import Clip, Outcome
from avfeat.manifests.store import Layout
from avfeat.stores.ledger import LedgerEntry
from avfeat.stores.unitrows import UnitRows
from avfeat.testing import make_clip

PATIENCE = 60.0
LAYOUT = Layout(clips=8, rows=4, dim=1, unit_clips=2, chunk_rows=4, shard_rows=4)
STAGES = ["decode", "geometry", "batch", "forward", "write", "commit"]


class Store:
    """Stands in for `UnitWriter`: keeps what is committed to it in `committed`."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.begun = threading.Event()
        self.before: Callable[[], None] = lambda: None
        self.committed: np.ndarray | None = None
        self.collected: UnitRows | None = None

    def rows(self) -> UnitRows:
        self.begun.set()
        self.collected = UnitRows(LAYOUT, self.unit)
        return self.collected

    def commit(self, rows: UnitRows, outcomes: dict[int, Outcome]) -> LedgerEntry:
        self.before()
        ((_, features, _),) = rows.blocks()
        self.committed = features[..., 0]
        return LedgerEntry(self.unit, "", (), {})


class Run:
    """Units of two clips of four items each; clip n has the items 10 n to 10 n + 3."""

    def __init__(self, count: int) -> None:
        self.stores = [Store(number) for number in range(count)]
        self.figures = RunFigures()
        self.done: list[int] = []
        self.events: list[tuple[str, int]] = []

    def __call__(self) -> None:
        """Run them, two items a batch."""
        run_units(
            self._units(),
            {"tiny_image": self.forward},
            self._decode,
            decoders=2,
            figures=self.figures,
            done=self._done,
        )

    def expected(self, unit: int) -> np.ndarray:
        """What the network makes of a unit: twice its items."""
        return 2.0 * (10 * np.array([[2 * unit], [2 * unit + 1]]) + np.arange(4))

    def forward(self, items: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start on a batch, as a device that computes when it is waited for."""
        first = int(items[0, 0])
        self.events.append(("start", first))

        def wait() -> torch.Tensor:
            self.events.append(("wait", first))
            return items * 2

        return wait

    def _units(self) -> Iterator[Unit]:
        for number, store in enumerate(self.stores):
            clips = tuple((position, _job(2 * number + position)) for position in range(2))
            unit_store = UnitStore(TinyImage.spec, 2, cast(Any, store), {})
            yield Unit(number, {"tiny_image": unit_store}, clips)

    def _decode(self, job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        items = 10 * int(job.clip.id) + np.arange(4, dtype=np.float32)[:, None]
        emit(Chunk("tiny_image", items, np.arange(4.0)))
        return {"tiny_image": Outcome("ok")}

    def _done(self, unit: UnitDone) -> None:
        assert unit.rows == {"tiny_image": 8}
        self.done.append(unit.number)


def _job(clip: int) -> ClipJob:
    path = Path(f"{clip}.mp4")
    return ClipJob(Clip(str(clip), 0.0, 1.0), path, path.name, (TinyImage.spec,), "avvp")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_device_has_the_next_batch_before_it_is_waited_for() -> None:
    run = Run(1)
    run()
    assert run.events == [
        *(("start", 0), ("start", 2), ("wait", 0), ("start", 10), ("wait", 2)),
        *(("start", 12), ("wait", 10), ("wait", 12)),
    ]
    assert run.stores[0].committed is not None
    assert np.array_equal(run.stores[0].committed, run.expected(0))


def test_units_are_committed_in_order_and_whole() -> None:
    run = Run(4)
    run()
    assert run.done == [0, 1, 2, 3]
    for number, store in enumerate(run.stores):
        assert store.committed is not None
        assert np.array_equal(store.committed, run.expected(number))
    items = {name: figures.items for name, figures in run.figures.stages.items()}
    assert list(items) == STAGES
    assert {items[name] for name in ("batch", "forward", "write")} == {32}
    assert items["commit"] == 4
    assert run.figures.clips == 8


def test_rows_are_taken_while_the_unit_before_is_committed() -> None:
    run = Run(3)
    taken: list[bool] = []
    first, second, _ = run.stores
    first.before = lambda: taken.append(second.begun.wait(PATIENCE))
    run()
    assert taken == [True]
    assert run.done == [0, 1, 2]


def test_a_store_that_cannot_be_written_ends_the_run() -> None:
    def full() -> None:
        raise WriteError("the disk is full")

    run = Run(4)
    run.stores[1].before = full
    with pytest.raises(WriteError, match="the disk is full"):
        run()
    assert run.done == [0]
    _nothing_is_left(run)


@pytest.mark.parametrize("batch", [0, 20, 32])
def test_an_interrupted_run_leaves_nothing_open(batch: int) -> None:
    run = Run(2)
    forward = run.forward

    def interrupted(items: torch.Tensor) -> Callable[[], torch.Tensor]:
        if int(items[0, 0]) == batch:
            raise KeyboardInterrupt
        return forward(items)

    run.forward = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run.done in ([], [0])
    _nothing_is_left(run)


def _nothing_is_left(run: Run) -> None:
    assert not threads() & {"avfeat-batch", "avfeat-write", "avfeat-commit"}
    for store in run.stores:
        assert store.collected is None or store.collected._file.closed


def test_the_last_items_of_a_clip_are_cut_where_the_others_are(corpus: Corpus) -> None:
    """Not in the decoding thread, whose figures they would count in."""
    path = corpus.media / f"{corpus.ids[0][:11]}.mp4"
    job = ClipJob(
        Clip(corpus.ids[0], 0.0, 3.0, "train"), path, path.name, (TinyImage.spec,), "avvp"
    )
    chunks: list[tuple[int, str]] = []
    figures = ClipFigures()
    decode(
        job,
        lambda chunk: chunks.append((len(chunk.items), threading.current_thread().name)),
        figures,
    )
    assert chunks == [(16, "avfeat-geometry"), (8, "avfeat-geometry")]
    assert figures.geometry.items == figures.decode.items == 24
    assert figures.geometry.busy >= 0


def test_each_packet_is_a_sign_of_life(tmp_path: Path) -> None:
    """A stream without timestamps is decoded whole for them before it gives a frame."""
    path = make_clip(tmp_path / "raw.h264", fps=12, duration=2, size=(128, 96), b_frames=0)
    seen: list[object] = []

    class Watched(ClipFigures):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "reading":
                seen.append(value)
            super().__setattr__(name, value)

    clip = Clip("raw", 0.0, 0.5)  # FFmpeg takes it for 25 frames a second
    job = ClipJob(clip, path, path.name, (TinyImage.spec,), "avvp")
    figures = Watched()
    seen.clear()
    outcomes = decode(job, lambda chunk: None, figures)
    assert outcomes["tiny_image"].status == "ok"
    assert seen.index(None) >= 24  # which the first frame is


def test_profile_shows_every_stage(avfeat: Cli, corpus: Corpus) -> None:
    options = ("-b", "tiny_image,tiny_audio", *corpus.options, "--unit-clips", 2, "--profile")
    lines = avfeat("extract", *options).stdout.splitlines()
    rows = {words[0]: words[1:] for line in lines if (words := line.split())[:1] != []}
    assert [name for name in rows if name in STAGES] == STAGES
    assert rows["decode"][-1] == "-"
    assert all(rows[name][-1].endswith("%") for name in STAGES[1:])
    assert rows["commit"][0] == "5"
    # 9 clips of 80 frames and 10 windows of sound.
    assert {rows[name][0] for name in STAGES[1:-1]} == {"810"}


def test_the_table_of_stages_counts_shares_of_the_wall_time() -> None:
    stage = {"items": 30, "busy_seconds": 5, "starved_seconds": 1, "blocked_seconds": 2.5}
    result = {
        "seconds": 10.0,
        "stages": {"decode": stage | {"queue_fill": 0.0}, "write": stage | {"queue_fill": 0.0}},
    }
    out = io.StringIO()
    render.stages(Console(file=out, width=200), result)
    rows = {words[0]: words[1:] for line in out.getvalue().splitlines() if (words := line.split())}
    assert rows["decode"] == ["30", "3.0", "50%", "10%", "25%", "-"]
    assert rows["write"] == ["30", "3.0", "50%", "10%", "25%", "0%"]
