"""Running trainings: those in the log are not repeated, the others run here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from avfeat.collocate.corpus import Corpus
from avfeat.collocate.log import Log, Record
from avfeat.collocate.train import Epoch, Fit
from avfeat.collocate.training import Training, train
from avfeat.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future


@dataclass(frozen=True, slots=True)
class Ended:
    """A training whose record is at hand.

    Attributes
    ----------
    training, record
        What was asked for, and what came of it.
    known
        The log had it before.
    done, total
        How many of the trainings that were asked for together are at hand, and how many there are.
    """

    training: Training
    record: Record
    known: bool
    done: int
    total: int


Listener = Callable[[Ended], None]
#: Told of an epoch of a training.
EpochListener = Callable[[Training, Epoch], None]


class Runner:
    """Runs trainings of one corpus.

    Parameters
    ----------
    corpus
        The clips.
    log
        Where records are kept and looked up.
    client
        Of a Dask cluster whose workers see the stores by the same paths; None to train here. Each
        worker reads features once and keeps them for its next training.
    listener
        Told once of every training that ended, and of those found in the log.
    on_epoch
        Told of every epoch of a training in this process.
    """

    def __init__(
        self,
        corpus: Corpus,
        log: Log,
        *,
        client: Client | None = None,
        listener: Listener | None = None,
        on_epoch: EpochListener | None = None,
    ) -> None:
        self.corpus = corpus
        self._log = log
        self._client = client
        self._listener = listener or (lambda ended: None)
        self._on_epoch = on_epoch or (lambda training, epoch: None)
        self._told: set[str] = set()
        # Where paused trainings are: here, or on the worker that has them.
        self._paused: dict[str, Fit | Future[Any]] = {}
        # The corpus on the cluster. Sent again its name would be the same, and letting go of the
        # first could take the second along.
        self._sent: Future[Any] | None = None

    def run(
        self, trainings: Sequence[Training], *, going_on: Sequence[Training] | None = None
    ) -> list[Record]:
        """Return the records of trainings, in their order; they run by visual backbone.

        Of one that is to pause, the record of all its epochs will do where the log has that.

        Parameters
        ----------
        going_on
            For each, the same training paused earlier, from where it goes on.

        Raises
        ------
        ClusterError
            A training was given up, as the workers that had it died; the others are in the log.
        """
        keys = [training.key(self.corpus) for training in trainings]
        before = [one.key(self.corpus) for one in going_on or ()]
        # What nobody goes on with was dropped.
        self._paused = {key: one for key, one in self._paused.items() if key in before}
        records: dict[str, Record] = {}

        def ended(training: Training, key: str, record: Record, *, known: bool) -> None:
            records[key] = record
            # A search may come back to a training of its own, and to the first epochs of one.
            if record["key"] not in self._told:
                self._told.add(record["key"])
                self._listener(Ended(training, record, known, len(records), len(set(keys))))

        for training, key in zip(trainings, keys, strict=True):
            if (record := self._known(training, key)) is not None:
                ended(training, key, record, known=True)
        # Visual features are the large ones, 0.8 GB of LLP's training clips: trainings on the same
        # follow each other, so that each store is read once even if a process keeps only one.
        visuals = list(dict.fromkeys(training.visual for training in trainings))
        todo = sorted(
            (number for number, key in enumerate(keys) if key not in records),
            key=lambda number: visuals.index(trainings[number].visual),
        )
        if todo:
            self._log.check()
        run = self._here if self._client is None else self._there
        jobs = [(trainings[n], keys[n], before[n] if before else None) for n in todo]
        for training, key, record in run(jobs):
            self._log.keep(record)
            ended(training, key, record, known=False)
        return [records[key] for key in keys]

    def _known(self, training: Training, key: str) -> Record | None:
        record = self._log.find(key)
        if record is None and training.until is not None:
            record = self._log.find(replace(training, until=None).key(self.corpus))
        return record

    def _here(
        self, jobs: Sequence[tuple[Training, str, str | None]]
    ) -> Iterator[tuple[Training, str, Record]]:
        for training, key, before in jobs:
            paused = self._paused.pop(before, None) if before else None
            record, found = train(
                training,
                self.corpus,
                resume=paused,  # type: ignore[arg-type]
                on_epoch=partial(self._on_epoch, training),
            )
            if found is not None and found.checkpoint is not None:
                self._paused[key] = found
            yield training, key, record

    def _there(
        self, jobs: Sequence[tuple[Training, str, str | None]]
    ) -> Iterator[tuple[Training, str, Record]]:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        assert self._client is not None
        client = self._client
        if self._sent is None:
            (self._sent,) = client.scatter([self.corpus], broadcast=True)
        corpus = self._sent
        waiting: dict[Future[Any], tuple[Training, str, list[Future[Any]]]] = {}
        for training, key, before in jobs:
            paused: Any = self._paused.pop(before, None) if before else None
            # A network stays on its worker; only the record comes back.
            both = client.submit(train, training, corpus, resume=paused, pure=False)
            if training.until is not None:
                self._paused[key] = client.submit(_second, both, pure=False)
            # The scheduler may hear that something is let go before it hears what needs it.
            held = [both] if paused is None else [both, paused]
            waiting[client.submit(_first, both, pure=False)] = (training, key, held)
        lost = []
        try:
            for future in as_completed(list(waiting)):
                training, key, _ = waiting.pop(future)
                try:
                    yield training, key, future.result()
                except KilledWorker:
                    lost.append(" + ".join(training.pair))
                except CancelledError as error:
                    raise ClusterError(
                        "the scheduler is gone, or forgot what it was given; the same command "
                        "goes on from the trainings in the log"
                    ) from error
        finally:
            # Others may go on using the workers after an error here, or Ctrl-C.
            left = [one for future, (_, _, held) in waiting.items() for one in (future, *held)]
            client.cancel(left, force=True)
        if lost:
            raise ClusterError(
                f"trainings were given up, as the workers that had them died: {', '.join(lost)}; "
                "the same command goes on from the others"
            )


def _first(both: tuple[Record, Fit | None]) -> Record:
    return both[0]


def _second(both: tuple[Record, Fit | None]) -> Fit | None:
    return both[1]
