"""Running a plan: clips decoded once, rows from every backbone, units committed one by one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Protocol

from avfeat.extract.batch import Batcher, Forward
from avfeat.extract.decode import ClipJob
from avfeat.extract.plan import Plan, StoreTask
from avfeat.extract.prefetch import ClipStream, prefetch
from avfeat.manifests.clips import WITH_ROWS, Clip, Outcome
from avfeat.stores.unitrows import UnitRows


class Listener(Protocol):
    """Told what happens; the command line draws its progress from it."""

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


@dataclasses.dataclass(slots=True)
class RunReport:
    """What a run did, and where its time went.

    Attributes
    ----------
    clips, rows
        Clips decoded; rows written, by backbone.
    seconds
        Wall time by stage. ``decode`` and ``transform`` are summed over the decoding threads and
        run beside the model; ``forward`` is by backbone; ``wait`` is what the model waited for
        clips; ``write`` is encoding and committing.
    wall
        Wall time of the run.
    interrupted
        Whether it stopped early because it was asked to.
    crashes
        Tracebacks of errors nobody foresaw, by clip.
    """

    clips: int = 0
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(("decode", "transform", "wait", "write"), 0.0)
    )
    forward: dict[str, float] = dataclasses.field(default_factory=dict)
    wall: float = 0.0
    interrupted: bool = False
    crashes: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def model_share(self) -> float:
        """Share of wall time that a model was running, 0 to 1."""
        return sum(self.forward.values()) / self.wall if self.wall else 0.0


def run(
    plan: Plan,
    models: dict[str, Forward],
    *,
    listener: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> RunReport:
    """Extract everything the plan lists; its writers are open.

    Parameters
    ----------
    plan
        What to do.
    models
        Backbone name to forward function, for every store that has clips to decode.
    listener
        Told of progress.
    stop
        Asked after each unit; True ends the run there, with everything committed.

    Raises
    ------
    WriteError
        If a store cannot be written; units committed before are kept.
    """
    report = RunReport()
    listener = listener or Silent()
    started = time.perf_counter()
    for tasks in plan.groups():
        if not report.interrupted:
            _run_group(plan, tasks, models, report, listener, stop)
    for task in plan.tasks:
        task.writer.finish()
    report.wall = time.perf_counter() - started
    return report


def _run_group(
    plan: Plan,
    tasks: list[StoreTask],
    models: dict[str, Forward],
    report: RunReport,
    listener: Listener,
    stop: Callable[[], bool],
) -> None:
    work = {task.spec.name: task.units() for task in tasks}
    units = sorted(set().union(*work.values()))
    jobs = (job for unit in units for _, job in _jobs(plan, tasks, unit))
    with closing(prefetch(jobs, workers=plan.settings.workers)) as streams:
        for unit in units:
            if stop():
                report.interrupted = True
                return
            todo = [
                (task, work[task.spec.name][unit]) for task in tasks if unit in work[task.spec.name]
            ]
            _run_unit(plan, todo, unit, models, streams, report, listener)
            listener.unit_committed(unit)


def _jobs(plan: Plan, tasks: Sequence[StoreTask], unit: int) -> Iterator[tuple[int, ClipJob]]:
    """Yield the clips of a unit that need decoding, in order."""
    writer = tasks[0].writer
    for index in writer.layout.unit_range(unit):
        specs = tuple(task.spec for task in tasks if index in task.decode)
        if specs:
            clip = writer.clips[index]
            path = plan.manifest.media[clip.id]
            media = path.relative_to(plan.manifest.data_root).as_posix()
            yield (
                index,
                ClipJob(
                    clip, path, media, specs, plan.settings.sampling, device=plan.settings.device
                ),
            )


def _run_unit(
    plan: Plan,
    todo: list[tuple[StoreTask, dict[int, Outcome]]],
    unit: int,
    models: dict[str, Forward],
    streams: Iterator[ClipStream],
    report: RunReport,
    listener: Listener,
) -> None:
    tasks = [task for task, _ in todo]
    first = tasks[0].writer.layout.unit_range(unit).start
    with ExitStack() as stack:
        rows: dict[str, UnitRows] = {}
        batchers: dict[str, Batcher] = {}
        outcomes: dict[str, dict[int, Outcome]] = {}
        for task, settled in todo:
            name = task.spec.name
            rows[name] = stack.enter_context(task.writer.unit_rows(unit))
            outcomes[name] = dict(settled)
            if name in models:
                batchers[name] = Batcher(
                    models[name], task.batch_size, rows[name], pool=task.spec.pool
                )
        for index, _ in _jobs(plan, tasks, unit):
            stream = _next(streams, report)
            _feed(stream, index - first, batchers, report)
            for name, outcome in stream.outcomes.items():
                outcomes[name][index] = outcome
            listener.clip_done(stream.job.clip, stream.outcomes)
        for batcher in batchers.values():
            batcher.flush()
        for task in tasks:
            name = task.spec.name
            batcher_or_none = batchers.get(name)
            not_finite = batcher_or_none.not_finite if batcher_or_none else set()
            for index, outcome in outcomes[name].items():
                outcomes[name][index] = _settle(outcome, index - first, rows[name], not_finite)
            started = time.perf_counter()
            task.writer.commit(rows[name], outcomes[name])
            report.seconds["write"] += time.perf_counter() - started
            report.rows[name] = report.rows.get(name, 0) + sum(
                outcome.rows for outcome in outcomes[name].values()
            )
        for name, batcher in batchers.items():
            report.forward[name] = report.forward.get(name, 0.0) + batcher.seconds


def _next(streams: Iterator[ClipStream], report: RunReport) -> ClipStream:
    started = time.perf_counter()
    stream = next(streams)
    report.seconds["wait"] += time.perf_counter() - started
    return stream


def _feed(
    stream: ClipStream, position: int, batchers: dict[str, Batcher], report: RunReport
) -> None:
    """Pass a clip's items to the batchers as they come."""
    chunks = iter(stream)
    while True:
        started = time.perf_counter()
        chunk = next(chunks, None)
        report.seconds["wait"] += time.perf_counter() - started
        if chunk is None:
            break
        batchers[chunk.backbone].add(position, chunk.items, chunk.times)
    report.clips += 1
    report.seconds["decode"] += stream.times.decode
    report.seconds["transform"] += stream.times.transform
    if stream.crash is not None:
        report.crashes[stream.job.clip.id] = stream.crash


def _settle(outcome: Outcome, position: int, rows: UnitRows, not_finite: set[int]) -> Outcome:
    """Give an outcome its number of rows; a clip that failed has none."""
    if outcome.status in WITH_ROWS and position in not_finite:
        outcome = dataclasses.replace(
            outcome,
            status="failed",
            kind="non_finite",
            message="the network gave NaN or infinity for at least one row",
        )
    if outcome.status not in WITH_ROWS:
        rows.discard(position)
        return outcome
    return dataclasses.replace(outcome, rows=int(rows.lengths[position]))
