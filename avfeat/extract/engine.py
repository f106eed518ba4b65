"""The pipeline: clips decoded once, rows from every backbone, units committed one by one.

Its stages run beside each other, joined by bounded queues::

    decode -> geometry -> batch -> forward -> write -> commit

Decoding and geometry have threads for several clips at once, in processes of their own as a rule;
the others have one each, and the forward passes run in the caller's thread.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch

from avfeat.extract.batch import Batch, Forward, Packer, Part, RowSink
from avfeat.extract.decode import ClipFigures, Decode
from avfeat.extract.prefetch import ClipStream, prefetch
from avfeat.extract.stages import Ahead, Behind, Figures
from avfeat.extract.work import Unit, UnitDone
from avfeat.manifests.clips import WITH_ROWS, Clip, Outcome
from avfeat.stores.unitrows import UnitRows

#: Batches that may wait for the model, batches of rows that may wait to be written, and units that
#: may wait to be committed.
_BATCHES_WAITING = 3
_ROWS_WAITING = 8
_UNITS_WAITING = 1

#: Batches that a device has been given and not yet handed back.
_IN_FLIGHT = 1


class Listener(Protocol):
    """Told what happens, in a thread of its own; the command line draws its progress from it."""

    def clip_done(self, clip: Clip, outcomes: dict[str, Outcome]) -> None:
        """A clip was decoded; `outcomes` by backbone."""

    def unit_committed(self, unit: int) -> None:
        """A unit's rows are safe."""


class Silent:
    """A listener that does nothing."""

    def clip_done(self, clip: Clip, outcomes: dict[str, Outcome]) -> None:
        """See `Listener`."""

    def unit_committed(self, unit: int) -> None:
        """See `Listener`."""


@dataclass(slots=True)
class RunFigures:
    """What the stages of a run did.

    Attributes
    ----------
    clips
        Clips decoded; their files opened once each.
    media
        Of decoding and geometry, summed over the threads.
    batch, forward, write
        Their items are those of all backbones, without padding.
    commit
        Its items are units.
    models
        Seconds of forward passes by backbone.
    """

    clips: int = 0
    media: ClipFigures = field(default_factory=ClipFigures)
    batch: Figures = field(default_factory=Figures)
    forward: Figures = field(default_factory=Figures)
    write: Figures = field(default_factory=Figures)
    commit: Figures = field(default_factory=Figures)
    models: dict[str, float] = field(default_factory=dict)

    def add(self, other: RunFigures) -> None:
        """Add what another process did."""
        self.clips += other.clips
        self.media.add(other.media)
        self.batch.add(other.batch)
        self.forward.add(other.forward)
        self.write.add(other.write)
        self.commit.add(other.commit)
        for name, seconds in other.models.items():
            self.models[name] = self.models.get(name, 0.0) + seconds

    @property
    def stages(self) -> dict[str, Figures]:
        """The stages in order, by name."""
        return {
            "decode": self.media.decode,
            "geometry": self.media.geometry,
            "batch": self.batch,
            "forward": self.forward,
            "write": self.write,
            "commit": self.commit,
        }


def run_units(
    units: Iterable[Unit],
    models: Mapping[str, Forward],
    decode: Decode,
    *,
    decoders: int,
    figures: RunFigures,
    done: Callable[[UnitDone], None],
    listener: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Extract units, one after another, each clip decoded once.

    Parameters
    ----------
    units
        Taken as they are needed.
    models
        Backbone name to forward function, for every store that has clips to decode.
    decode
        `decode.decode`, or what runs it elsewhere.
    decoders
        Clips decoded at once.
    figures
        Added to.
    done
        Told of each unit once it is committed, in the committing thread.
    listener
        Told of progress.
    stop
        Asked before each unit; True ends the run there, with what was begun committed.

    Raises
    ------
    WriteError
        If a store cannot be written; units committed before are kept.
    """
    listener = listener or Silent()
    cancelled, given_up = threading.Event(), threading.Event()
    batches = _batches(units, decode, decoders, figures, listener, stop, cancelled)
    forward = figures.forward
    with (
        closing(_Writing(done, listener, figures.commit)) as writing,
        Ahead(
            "batch",
            batches,
            depth=_BATCHES_WAITING,
            figures=figures.batch,
            downstream=forward,
            cancelled=cancelled,
        ) as ready,
        Behind(
            "commit",
            writing.commit,
            depth=_UNITS_WAITING,
            figures=figures.commit,
            upstream=figures.write,
            cancelled=given_up,
        ) as commit,
        Behind(
            "write",
            partial(writing.take, commit=commit.put),
            depth=_ROWS_WAITING,
            figures=figures.write,
            upstream=forward,
            cancelled=given_up,
        ) as write,
    ):
        flying = _Flying(models, figures)
        for message in ready:
            if isinstance(message, Batch):
                flying.start(message)
            else:
                for rows in flying.land(0):
                    write.put(rows)
                write.put(message)
            for rows in flying.land(_IN_FLIGHT):
                write.put(rows)


class _Rows(NamedTuple):
    """The rows of a batch."""

    backbone: str
    rows: np.ndarray
    parts: tuple[Part, ...]


class _Flying:
    """Batches that a device works on: the next one is on its way while one is computed."""

    def __init__(self, models: Mapping[str, Forward], figures: RunFigures) -> None:
        self._models = models
        self._figures = figures
        self._batches: deque[tuple[Batch, Callable[[], torch.Tensor]]] = deque()

    def start(self, batch: Batch) -> None:
        """Start on a batch."""
        started = time.perf_counter()
        wait = self._models[batch.backbone](torch.from_numpy(batch.items))
        self._spent(batch.backbone, time.perf_counter() - started)
        self._batches.append((batch, wait))
        self._figures.forward.items += batch.used

    def land(self, left: int) -> Iterator[_Rows]:
        """Yield the rows of the earliest batches, until `left` are under way."""
        while len(self._batches) > left:
            batch, wait = self._batches.popleft()
            started = time.perf_counter()
            rows = wait().numpy()
            self._spent(batch.backbone, time.perf_counter() - started)
            self._figures.write.items += batch.used
            yield _Rows(batch.backbone, rows, batch.parts)

    def _spent(self, backbone: str, seconds: float) -> None:
        self._figures.forward.busy += seconds
        models = self._figures.models
        models[backbone] = models.get(backbone, 0.0) + seconds


class _End(NamedTuple):
    """All batches of the unit in hand are through: by backbone, outcomes by position."""

    outcomes: dict[str, dict[int, Outcome]]
    crashes: dict[str, str]


def _batches(
    units: Iterable[Unit],
    decode: Decode,
    decoders: int,
    figures: RunFigures,
    listener: Listener,
    stop: Callable[[], bool],
    cancelled: threading.Event,
) -> Iterator[Unit | Batch | _End]:
    """Yield each unit, its batches, and its end. Clips are decoded ahead, beyond the unit."""
    own, ahead = itertools.tee(units)
    jobs = (job for unit in ahead for _, job in unit.clips)
    with closing(prefetch(jobs, decode, decoders=decoders, cancelled=cancelled)) as streams:
        for unit in own:
            if stop():
                return
            yield unit
            packers = {
                name: Packer(name, store.batch_size)
                for name, store in unit.stores.items()
                if unit.clips
            }
            outcomes = {name: dict(store.settled) for name, store in unit.stores.items()}
            crashes: dict[str, str] = {}
            for position, job in unit.clips:
                stream = next(streams)
                yield from _packed(stream, position, packers, figures)
                for name, outcome in stream.outcomes.items():
                    outcomes[name][position] = outcome
                if stream.crash is not None:
                    crashes[job.clip.id] = stream.crash
                figures.clips += 1
                figures.media.add(stream.figures)
                listener.clip_done(job.clip, stream.outcomes)
            for packer in packers.values():
                yield from packer.finish()
            yield _End(outcomes, crashes)


def _packed(
    stream: ClipStream, position: int, packers: dict[str, Packer], figures: RunFigures
) -> Iterator[Batch]:
    """Yield the batches that the items of the clip at `position` complete."""
    for chunk in stream.chunks(figures.batch):
        started = time.perf_counter()
        batches = packers[chunk.backbone].add(position, chunk.items, chunk.times)
        figures.batch.items += len(chunk.items)
        figures.batch.busy += time.perf_counter() - started
        yield from batches


class _Whole(NamedTuple):
    """A unit whose rows are all there, by backbone."""

    unit: Unit
    sinks: dict[str, RowSink]
    end: _End


class _Writing:
    """The last two stages: rows to clips; and beside that, clips to shards, units to the ledger."""

    def __init__(
        self, done: Callable[[UnitDone], None], listener: Listener, figures: Figures
    ) -> None:
        self._done = done
        self._listener = listener
        self._figures = figures
        self._open: set[UnitRows] = set()
        self._unit: Unit | None = None
        self._sinks: dict[str, RowSink] = {}

    def take(self, message: Unit | _Rows | _End, *, commit: Callable[[_Whole], None]) -> None:
        """Take a unit that begins, rows of it, or its end, and then hand it over to `commit`."""
        if isinstance(message, Unit):
            self._unit, self._sinks = message, {}
            for name, store in message.stores.items():
                rows = store.writer.rows()
                self._open.add(rows)
                self._sinks[name] = RowSink(rows, pool=store.spec.pool)
        elif isinstance(message, _Rows):
            self._sinks[message.backbone].add(message.rows, message.parts)
        else:
            assert self._unit is not None
            commit(_Whole(self._unit, self._sinks, message))

    def commit(self, whole: _Whole) -> None:
        """Commit a unit to all its stores."""
        unit, sinks, end = whole
        entries, rows = {}, {}
        for name, store in unit.stores.items():
            sink = sinks[name]
            settled = {
                position: _settle(outcome, position, sink)
                for position, outcome in end.outcomes[name].items()
            }
            entries[name] = store.writer.commit(sink.rows, settled)
            rows[name] = sum(outcome.rows for outcome in settled.values())
            sink.rows.close()
            self._open.discard(sink.rows)
        self._figures.items += 1
        self._done(UnitDone(unit.number, entries, rows, end.crashes))
        self._listener.unit_committed(unit.number)

    def close(self) -> None:
        """Give up what was not committed."""
        for rows in self._open:
            rows.close()


def _settle(outcome: Outcome, position: int, sink: RowSink) -> Outcome:
    """Give an outcome its number of rows; a clip that failed has none."""
    if outcome.status in WITH_ROWS and position in sink.not_finite:
        outcome = dataclasses.replace(
            outcome,
            status="failed",
            kind="non_finite",
            message="the network gave NaN or infinity for at least one row",
        )
    if outcome.status not in WITH_ROWS:
        sink.rows.discard(position)
        return outcome
    return dataclasses.replace(outcome, rows=int(sink.rows.lengths[position]))
