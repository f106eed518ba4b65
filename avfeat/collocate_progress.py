"""What a collocation says on stderr while it works: stores, epochs, trainings that ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from avfeat.words import counted, duration

if TYPE_CHECKING:
    from avfeat.collocate.runner import Ended
    from avfeat.collocate.train import Epoch
    from avfeat.collocate.training import Training

#: Seconds between lines of one training where there is no terminal to show every epoch on.
_PLAIN_SECONDS = 60.0


class CollocationProgress:
    """Lines for what ended; of what goes on a line that changes, or one now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._last = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[CollocationProgress]:
        """Show what goes on while the context lasts."""
        if self._status is None:
            yield self
            return
        with self._status:
            yield self

    def reading(self, name: str) -> None:
        """Tell that scores read a store."""
        self._print(f"reading {name}")

    def epoch(self, training: Training, epoch: Epoch) -> None:
        """Tell of an epoch of a training in this process."""
        last = training.until or training.hyper.epochs
        left = (last - epoch.number) * epoch.seconds
        text = (
            f"{_name(training)}: epoch {epoch.number} of {last}, "
            f"Type@AV {epoch.scores.segment.type_av:.2f}, {duration(left)} left"
        )
        if self._status is not None:
            self._status.update(Text(text))
        elif time.monotonic() - self._last > _PLAIN_SECONDS and epoch.number < last:
            self._print(text)

    def ended(self, ended: Ended) -> None:
        """Tell of a training whose record is at hand."""
        training, record = ended.training, ended.record
        # A pause has the record of all epochs where the log has that, which may diverge later.
        paused = training.until is not None
        curve = record["curve"][: training.until]
        result = "diverged"
        if paused and len(curve) == training.until:
            result = f"Type@AV {max(epoch['type_av'] for epoch in curve):.2f}"
        elif not record["diverged"]:
            result = f"Type@AV {record['scores']['segment']['type_av']:.2f}"
        of = "" if training.until is None else f" of {training.hyper.epochs}"
        self._print(
            f"{ended.done} of {ended.total} {'found in the log' if ended.known else 'trained'}: "
            f"{_name(training)}, learning rate {training.hyper.lr:g}, seed {training.hyper.seed}, "
            f"{counted(len(curve), 'epoch')}{of}: {result}"
        )

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        self._console.print(text, markup=False)


def _name(training: Training) -> str:
    return f"{' + '.join(training.pair)} on {training.train}"
