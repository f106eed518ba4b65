"""Running a plan on many processes and machines through Dask.

The task is one unit: its clips are decoded, its rows computed and its shards committed by the
worker that has it; what passes the scheduler are clip names and outcomes, never features. Networks
are loaded once per process. A worker that dies or fails gives its units back, and whoever does them
again ends in the same bytes.
"""

from __future__ import annotations

import time
from collections import defaultdict
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
from avfeat.extract.worker import Extracted, Failed, Setup, extract, versions

if TYPE_CHECKING:
    from distributed import Client, Future

Answer = TypeVar("Answer")

#: Units in the hands of a worker: one in the model, one being decoded meanwhile.
UNITS_IN_HAND = 2

#: Seconds that a scheduler may take to answer, and to have a worker.
PATIENCE = 20.0

#: Seconds that a run goes on without any worker: dead ones may be started anew.
LONELY = 60.0

#: Seconds until a file that a worker wrote must be seen here; network file systems take their time.
VISIBLE = 20.0

#: Times that a unit may fail, each on another worker if there is one, until it is given up.
TRIES = 3

#: Units given up one after another that end the run: then it is neither the units nor a worker.
_IN_A_ROW = 3

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
        given up, as each worker that had them died, or as they failed `TRIES` times. All others are
        committed, unless so many were given up one after another that all would be.
    AvfeatError
        What each unit would meet (see `worker.extract`) ends the run at once, say a StoreBusyError
        where another run has taken over. Units committed before are kept.
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
    lost: list[ClusterError] = []
    processes: set[str] = set()
    for tasks in plan.groups():
        jobs = units(plan, tasks)
        for unit, outcome in _spread(client, jobs, setup, stop):
            if isinstance(outcome, ClusterError):
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
        raise ClusterError("; ".join(map(str, lost))) from lost[-1]
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
) -> Iterator[tuple[Unit, Extracted | ClusterError]]:
    """Yield each unit and what came of it, as they end; an error for one that was given up."""
    # With the workers that alone may do it; any, if empty.
    in_hand: dict[Future[Extracted | Failed], tuple[Unit, set[str]]] = {}
    failures: dict[int, list[Failed]] = defaultdict(list)  # by number of the unit
    in_a_row = 0
    seen = time.monotonic()

    def submit(unit: Unit) -> None:
        """Submit a unit; again, to others than those that failed, as these are idle first."""
        failed = {failure.worker for failure in failures[unit.number]}
        only = workers - failed if failed else set()
        future = client.submit(extract, unit, setup, pure=False, workers=sorted(only) or None)
        in_hand[future] = unit, only

    try:
        while True:
            workers = _workers(client)
            for future, (unit, only) in list(in_hand.items()):
                if only and not only & workers:  # all gone: it would wait for ever
                    del in_hand[future]
                    client.cancel([future], force=True)
                    submit(unit)
            room = UNITS_IN_HAND * max(1, len(workers))
            while len(in_hand) < room and not stop() and (job := next(jobs, None)) is not None:
                submit(job)
            if not in_hand:
                return
            ended = _ended(list(in_hand))
            if workers or ended is not None:
                seen = time.monotonic()
            elif time.monotonic() - seen > LONELY:
                raise ClusterError(
                    f"no worker is left for {LONELY:g} s; see their logs. The same command goes on "
                    "from the last committed unit"
                )
            if ended is None:
                continue
            unit, _ = in_hand.pop(ended)
            outcome = _outcome(unit, ended)
            if isinstance(outcome, Failed):
                failures[unit.number].append(outcome)
                if len(failures[unit.number]) < TRIES:
                    submit(unit)
                    continue
                outcome, in_a_row = _failed(unit, outcome), in_a_row + 1
                if in_a_row == _IN_A_ROW:
                    raise ClusterError(
                        f"{outcome}; {_IN_A_ROW} units failed one after another, so the others are "
                        "not tried"
                    ) from outcome
            else:
                in_a_row = 0
            yield unit, outcome
    finally:
        client.cancel(list(in_hand), force=True)


def _ended(futures: list[Future[Extracted | Failed]]) -> Future[Extracted | Failed] | None:
    """Wait a moment for one to end; return it, or None."""
    from distributed import wait

    with suppress(TimeoutError, CancelledError):
        wait(futures, timeout=_LOOK, return_when="FIRST_COMPLETED")
    return next((future for future in futures if future.done()), None)


def _outcome(unit: Unit, future: Future[Extracted | Failed]) -> Extracted | Failed | ClusterError:
    """Return what came of a unit that ended, or raise what ends the run."""
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return _given_up(
            unit,
            f"{error.allowed_failures + 1} workers died of it, the last one at "
            f"{error.last_worker.address}; see their logs",
        )
    except CancelledError as error:
        raise ClusterError(
            "the scheduler is gone, or forgot what it was given; the same command "
            "goes on from the last committed unit"
        ) from error


def _workers(client: Client) -> set[str]:
    """Return the addresses of the workers there are now."""
    return set(client.scheduler_info(n_workers=-1)["workers"])


def _failed(unit: Unit, failure: Failed) -> ClusterError:
    error = _given_up(
        unit, f"it failed {TRIES} times, the last time at {failure.worker}: {failure.message}"
    )
    error.add_note(failure.trace)
    return error


def _given_up(unit: Unit, why: str) -> ClusterError:
    clips = [job.clip.id for _, job in unit.clips]
    span = f" ({clips[0]} to {clips[-1]})" if clips else ""
    return ClusterError(
        f"unit {unit.number}{span} was given up: {why}. The same command tries it again"
    )


@contextmanager
def local(
    workers: int, *, gpus: Sequence[int] = (), at_once: int = UNITS_IN_HAND
) -> Iterator[Client]:
    """Start worker processes on this machine, and a scheduler for them.

    Parameters
    ----------
    workers
        How many processes.
    gpus
        Numbers of CUDA devices, of which each worker gets one in turn.
    at_once
        Tasks that a worker does at once.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    from avfeat.extract.signals import Deaf

    # Anyone who can connect can run code.
    private = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = private | {"nthreads": at_once, "memory_limit": 0, "plugins": (Deaf(),)}
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
            scheduler={"cls": Scheduler, "options": private},
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
