"""Running a plan on many processes and machines through Dask.

The task is one unit: its clips are decoded, its rows computed and its shards committed by the
worker that has it; what passes the scheduler are clip names and outcomes, never features. Networks
are loaded once per process. A worker that dies gives its units back, and whoever does them again
ends in the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from avfeat.errors import ClusterError, UsageError
from avfeat.extract.engine import Listener, Silent
from avfeat.extract.models import models
from avfeat.extract.plan import Plan, StoreTask
from avfeat.extract.run import RunReport
from avfeat.extract.work import Unit, UnitDone, units
from avfeat.extract.worker import Extracted, Setup, extract, versions

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.scheduler import KilledWorker

Answer = TypeVar("Answer")

#: Units in the hands of a worker: one in the model, one being decoded meanwhile.
UNITS_IN_HAND = 2

#: Seconds that a scheduler may take to answer, and to have a worker.
PATIENCE = 20.0

#: Seconds that a run goes on without any worker: dead ones may be started anew.
LONELY = 60.0

#: Seconds until a file that a worker wrote must be seen here; network file systems take their time.
VISIBLE = 20.0

#: Seconds between two looks at the workers while none has ended a unit.
_LOOK = 1.0


def ask(client: Client, question: Callable[..., Answer], *arguments: Any, about: str) -> Answer:
    """Ask all workers, and return the one answer that they agree on.

    Parameters
    ----------
    client
        Of the cluster.
    question, arguments
        What is called on each.
    about
        What it is, for the message if answers differ.

    Raises
    ------
    UsageError
        The workers differ, by name.
    Exception
        What `question` raised on a worker.
    """
    answers: dict[str, Answer] = client.run(question, *arguments)
    if not answers:
        raise ClusterError("the cluster has no workers")
    if len(set(map(repr, answers.values()))) > 1:
        raise UsageError(
            f"the workers differ in {about}: "
            + ", ".join(f"{worker} {answer}" for worker, answer in sorted(answers.items()))
            + "; give it, or leave out some workers"
        )
    return next(iter(answers.values()))


def check_shared(url: str) -> None:
    """Raise UsageError if only one process can see what is at `url`."""
    if url.startswith("memory:"):
        raise UsageError(f"--out {url}: workers cannot see the memory of this process")


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
    libraries = {name for task in plan.tasks for name in task.writer.recipe.libraries}
    setup = Setup(
        versions(libraries),
        tuple(models(plan).items()),
        plan.settings.decoders,
        plan.settings.isolate,
    )
    report = RunReport()
    started = time.perf_counter()
    listener = listener or Silent()
    lost: list[str] = []
    processes: set[str] = set()
    for tasks in plan.groups():
        jobs = units(plan, tasks)
        for unit, outcome in _spread(client, jobs, setup, stop):
            if isinstance(outcome, str):
                lost.append(outcome)
                continue
            done = outcome.done
            _check_visible(done, tasks)
            report.take(done, tasks)
            report.figures.add(outcome.figures)
            processes.add(outcome.process)
            for position, job in unit.clips:
                listener.clip_done(
                    job.clip,
                    {spec.name: done.entries[spec.name].clips[position][1] for spec in job.specs},
                )
            listener.unit_committed(unit.number)
        report.interrupted = report.interrupted or next(jobs, None) is not None
    for task in plan.tasks:
        task.writer.finish()
    report.wall = time.perf_counter() - started
    report.processes = max(1, len(processes))
    if lost:
        raise ClusterError("; ".join(lost))
    return report


def _check_visible(done: UnitDone, tasks: list[StoreTask]) -> None:
    """Raise ClusterError if what a worker committed is not in the stores as seen from here."""
    deadline = time.monotonic() + VISIBLE
    for task in tasks:
        if (entry := done.entries.get(task.spec.name)) is None:
            continue
        while not _seen(task, entry.name, entry.to_bytes()):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"a worker wrote {entry.name} of {task.url}, and here it is not to be seen: "
                    "workers and client must see the stores by the same paths; see --out"
                )
            time.sleep(0.2)


def _seen(task: StoreTask, name: str, data: bytes) -> bool:
    try:
        return task.writer.files.read(name) == data
    except FileNotFoundError:
        return False


def _spread(
    client: Client, jobs: Iterator[Unit], setup: Setup, stop: Callable[[], bool]
) -> Iterator[tuple[Unit, Extracted | str]]:
    """Yield each unit and what came of it, as they end; a sentence for one that was given up."""
    from distributed.scheduler import KilledWorker

    in_hand: dict[Future[Extracted], Unit] = {}

    def submit() -> None:
        """Submit as much as the workers there are now can have in hand."""
        room = UNITS_IN_HAND * max(1, _workers(client))
        while len(in_hand) < room and not stop() and (unit := next(jobs, None)) is not None:
            in_hand[client.submit(extract, unit, setup, pure=False)] = unit

    try:
        submit()
        while in_hand:
            for future in _ended(client, list(in_hand)):
                unit = in_hand.pop(future)
                try:
                    yield unit, future.result()
                except KilledWorker as error:
                    yield unit, _given_up(unit, error)
                except CancelledError as error:
                    raise ClusterError(
                        "the scheduler is gone, or forgot what it was given; the same command "
                        "goes on from the last committed unit"
                    ) from error
                submit()
    finally:
        client.cancel(list(in_hand), force=True)


def _ended(client: Client, futures: list[Future[Extracted]]) -> list[Future[Extracted]]:
    """Wait for one to end, or for there to be no worker any more that could end it."""
    seen = time.monotonic()
    while True:
        if ended := [future for future in futures if future.done()]:
            return ended
        if _workers(client):
            seen = time.monotonic()
        elif time.monotonic() - seen > LONELY:
            raise ClusterError(
                f"no worker is left for {LONELY:g} s; see their logs. The same command goes on "
                "from the last committed unit"
            )
        _wait(futures)


def _wait(futures: list[Future[Extracted]]) -> None:
    from distributed import wait

    with suppress(TimeoutError, CancelledError):
        wait(futures, timeout=_LOOK, return_when="FIRST_COMPLETED")


def _workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _given_up(unit: Unit, error: KilledWorker) -> str:
    clips = [job.clip.id for _, job in unit.clips]
    span = f" ({clips[0]} to {clips[-1]})" if clips else ""
    return (
        f"unit {unit.number}{span} was given up: "
        f"{error.allowed_failures + 1} workers died of it, the last one at "
        f"{error.last_worker.address}; see their logs. The same command tries it again"
    )


@contextmanager
def local(workers: int, *, gpus: Sequence[int] = ()) -> Iterator[Client]:
    """Start worker processes on this machine, and a scheduler for them.

    Parameters
    ----------
    workers
        How many processes.
    gpus
        Numbers of CUDA devices, of which each worker gets one in turn.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    from avfeat.extract.signals import Deaf

    # Anyone who can connect can run code.
    local = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = local | {"nthreads": UNITS_IN_HAND, "memory_limit": 0, "plugins": (Deaf(),)}
    spec = {
        number: {
            "cls": Nanny,
            "options": options
            | ({"env": {"CUDA_VISIBLE_DEVICES": str(gpus[number % len(gpus)])}} if gpus else {}),
        }
        for number in range(workers)
    }
    with (
        dask.config.set(
            {
                "distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "error"},
                # A worker that is slow to come back, on a busy machine, is not given up.
                "distributed.deploy.lost-worker-timeout": "1 day",
            }
        ),
        SpecCluster(
            workers=spec,
            scheduler={"cls": Scheduler, "options": local},
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
