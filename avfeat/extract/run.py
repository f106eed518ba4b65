"""Running a plan in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from avfeat.extract.batch import Forward
from avfeat.extract.decode import Decode, decode
from avfeat.extract.engine import Listener, RunFigures, run_units
from avfeat.extract.isolate import Isolated
from avfeat.extract.plan import Plan, StoreTask
from avfeat.extract.work import UnitDone, units


@dataclass(slots=True)
class RunReport:
    """What a run did, and where its time went.

    Attributes
    ----------
    rows
        Rows written, by backbone.
    figures
        Of the stages, and clips decoded.
    wall
        Seconds that the run took, loading the networks not counted.
    interrupted
        Whether it stopped early because it was asked to.
    processes
        That models ran in.
    crashes
        Tracebacks of errors nobody foresaw, by clip.
    """

    rows: dict[str, int] = field(default_factory=dict)
    figures: RunFigures = field(default_factory=RunFigures)
    wall: float = 0.0
    interrupted: bool = False
    processes: int = 1
    crashes: dict[str, str] = field(default_factory=dict)

    @property
    def model_share(self) -> float:
        """Share of wall time that a model was running, 0 to 1; the mean over the processes."""
        if not self.wall:
            return 0.0
        # Units that a process has in hand at once may wait for its GPU at once.
        return min(1.0, self.figures.forward.busy / (self.wall * self.processes))

    def take(self, done: UnitDone, tasks: list[StoreTask]) -> None:
        """Take note of a unit that was committed, here and in the writers of its stores."""
        for task in tasks:
            name = task.spec.name
            if name in done.entries:
                task.writer.adopt(done.entries[name])
                self.rows[name] = self.rows.get(name, 0) + done.rows[name]
        self.crashes |= done.crashes


def run(
    plan: Plan,
    models: Mapping[str, Forward],
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
        Asked before each unit; True ends the run there, with everything begun committed.

    Raises
    ------
    WriteError
        If a store cannot be written; units committed before are kept.
    """
    report = RunReport()
    started = time.perf_counter()
    open_units = 0
    with ExitStack() as stack:
        decoder: Decode = stack.enter_context(Isolated()) if plan.settings.isolate else decode
        for tasks in plan.groups():
            open_units += len(set().union(*(task.units() for task in tasks)))

            def done(unit: UnitDone, tasks: list[StoreTask] = tasks) -> None:
                nonlocal open_units
                open_units -= 1
                report.take(unit, tasks)

            run_units(
                units(plan, tasks),
                models,
                decoder,
                decoders=plan.settings.decoders,
                figures=report.figures,
                done=done,
                listener=listener,
                stop=stop,
            )
    report.interrupted = open_units > 0
    for task in plan.tasks:
        task.writer.finish()
    report.wall = time.perf_counter() - started
    return report
