"""Running a plan on many processes and machines through Dask.

The task is one unit: its clips are decoded, its rows computed and its shards committed by the
worker that has it; what passes the scheduler are clip names and outcomes, never features. Networks
are loaded once per process. A worker that dies gives its units back, and whoever does them again
ends in the same bytes.
"""

from __future__ import annotations

import atexit
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from avfeat.errors import ClusterError
from avfeat.extract.batch import Forward
from avfeat.extract.decode import Decode, decode
from avfeat.extract.engine import Listener, RunFigures, Silent, run_units
from avfeat.extract.isolate import Isolated
from avfeat.extract.models import Model, models
from avfeat.extract.plan import Plan
from avfeat.extract.run import RunReport
from avfeat.extract.work import Unit, UnitDone, units
from avfeat.manifests.recipe import installed

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.scheduler import KilledWorker

#: Units in the hands of a worker: one in the model, one being decoded meanwhile.
UNITS_IN_HAND = 2

#: Seconds that a scheduler may take to answer, and to have a worker.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs beside the units.

    Attributes
    ----------
    run
        Tells one run from another.
    libraries
        Versions that the recipes name; other ones would make other rows.
    models
        By name of the backbone.
    decoders
        Clips that a unit decodes at once.
    isolate
        Whether to decode in processes of their own.
    """

    run: str
    libraries: dict[str, str]
    models: tuple[tuple[str, Model], ...]
    decoders: int
    isolate: bool


class _Process:
    """What a worker process keeps from unit to unit."""

    def __init__(self, setup: Setup) -> None:
        here = {name: installed(name) for name in setup.libraries}
        if here != setup.libraries:
            raise ClusterError(
                f"worker {platform.node()} has other libraries than this process: "
                + ", ".join(
                    f"{name} {here[name]}, not {version}"
                    for name, version in setup.libraries.items()
                    if here[name] != version
                )
            )
        self.run = setup.run
        self._stack = ExitStack()
        self._one = threading.Lock()
        self.decode: Decode = self._stack.enter_context(Isolated()) if setup.isolate else decode
        self.models: dict[str, Forward] = {
            name: self._alone(model.load_elsewhere()) for name, model in setup.models
        }

    def _alone(self, forward: Forward) -> Forward:
        """One forward pass at a time, though several units are in hand."""

        def run(items: torch.Tensor) -> Callable[[], torch.Tensor]:
            with self._one:
                return forward(items)

        return run

    def close(self) -> None:
        self._stack.close()


_process: _Process | None = None
_starting = threading.Lock()


def _started(setup: Setup) -> _Process:
    """Return this process's networks; loads them for the first unit of a run."""
    global _process
    with _starting:
        if _process is None or _process.run != setup.run:
            if _process is not None:
                _process.close()
            _process = _Process(setup)
            atexit.register(_process.close)
        return _process


def _extract(unit: Unit, setup: Setup) -> tuple[UnitDone, RunFigures]:
    """Do one unit; runs in a worker."""
    process = _started(setup)
    figures = RunFigures()
    results: list[UnitDone] = []
    run_units(
        [unit],
        process.models,
        process.decode,
        decoders=setup.decoders,
        figures=figures,
        done=results.append,
    )
    (result,) = results
    return result, figures


def run_on(
    client: Client,
    plan: Plan,
    *,
    listener: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> RunReport:
    """Extract everything the plan lists on a cluster's workers; its writers are open.

    Parameters
    ----------
    client
        Connected to a scheduler whose workers see the media and the stores by the same paths.
    plan, listener, stop
        As for `run.run`.

    Raises
    ------
    ClusterError
        There are no workers, or their libraries differ from those of the recipe; or units were
        given up, as each worker that had them died. All others are committed.
    WriteError
        A store cannot be written; units committed before are kept.
    """
    named = {name for task in plan.tasks for name in task.writer.recipe.libraries}
    setup = Setup(
        uuid.uuid4().hex,
        {name: installed(name) for name in sorted(named)},
        tuple(models(plan).items()),
        plan.settings.decoders,
        plan.settings.isolate,
    )
    report = RunReport()
    started = time.perf_counter()
    listener = listener or Silent()
    lost: list[str] = []
    for tasks in plan.groups():
        jobs = units(plan, tasks)
        for unit, outcome in _spread(client, jobs, setup, stop):
            if isinstance(outcome, str):
                lost.append(outcome)
                continue
            done, figures = outcome
            report.take(done, tasks)
            report.figures.add(figures)
            for position, job in unit.clips:
                listener.clip_done(
                    job.clip,
                    {name: entry.clips[position][1] for name, entry in done.entries.items()},
                )
            listener.unit_committed(unit.number)
        report.interrupted = report.interrupted or next(jobs, None) is not None
    for task in plan.tasks:
        task.writer.finish()
    report.wall = time.perf_counter() - started
    if lost:
        raise ClusterError("; ".join(lost))
    return report


def _spread(
    client: Client, jobs: Iterator[Unit], setup: Setup, stop: Callable[[], bool]
) -> Iterator[tuple[Unit, tuple[UnitDone, RunFigures] | str]]:
    """Yield each unit and what came of it, as they end; a sentence for one that was given up."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    in_hand: dict[Any, Unit] = {}

    def submit() -> Iterator[Future[Any]]:
        """Submit as much as the workers there are now can have in hand."""
        room = UNITS_IN_HAND * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        while len(in_hand) < room and not stop() and (unit := next(jobs, None)) is not None:
            future = client.submit(_extract, unit, setup, pure=False)
            in_hand[future.key] = unit
            yield future

    try:
        ended = as_completed(list(submit()))
        for future in ended:
            unit = in_hand.pop(future.key)
            try:
                yield unit, future.result()
            except KilledWorker as error:
                yield unit, _given_up(unit, error)
            for following in submit():
                ended.add(following)
    finally:
        client.cancel(list(in_hand), force=True)


def _given_up(unit: Unit, error: KilledWorker) -> str:
    clips = [job.clip.id for _, job in unit.clips]
    return (
        f"unit {unit.number} ({clips[0]} to {clips[-1]}) was given up: "
        f"{error.allowed_failures + 1} workers died of it, the last one at "
        f"{error.last_worker.address}; see their logs. The same command tries it again"
    )


@contextmanager
def local(workers: int, *, gpus: Sequence[int] = ()) -> Iterator[Client]:
    """Start worker processes on this machine, and a scheduler for them.

    Parameters
    ----------
    workers
        How many; the processor's cores are shared out among them.
    gpus
        Numbers of CUDA devices, of which each worker gets one in turn.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads
    )
    environment["DASK_LOGGING__DISTRIBUTED"] = "error"
    options = {"nthreads": UNITS_IN_HAND, "memory_limit": 0, "dashboard": False}
    spec = {
        number: {
            "cls": Nanny,
            "options": options
            | ({"env": {"CUDA_VISIBLE_DEVICES": str(gpus[number % len(gpus)])}} if gpus else {}),
        }
        for number in range(workers)
    }
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        SpecCluster(
            workers=spec,
            scheduler={"cls": Scheduler, "options": {"dashboard": False}},
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler, whoever started it: SLURM, Kubernetes, SSH, ``dask scheduler``.

    Raises
    ------
    ClusterError
        Nobody answers there, or it has no workers.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {address} has no workers; start some first"
            ) from error
        yield client
