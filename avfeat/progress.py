"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from avfeat.manifests.clips import Clip, Outcome
from avfeat.words import duration, pace, without_name

#: Seconds between plain lines where clips get done, and where none does.
_PLAIN_SECONDS = 10.0
_BEAT_SECONDS = 30.0


class ClipProgress:
    """A `Listener` that shows clips done, clips/s, time left and failures so far."""

    def __init__(self, console: Console, total: int, *, verbose: int) -> None:
        self._console = console
        self._total = total
        self._verbose = verbose
        self._done = 0
        self._failed = 0
        self._started = time.monotonic()
        self._last = self._started
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("clips  {task.fields[pace]}  {task.fields[failed]} failed "),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total, pace="", failed=0)

    @contextmanager
    def shown(self) -> Iterator[ClipProgress]:
        """Show the bar while the context lasts; without one, a line now and then."""
        if self._bar is not None:
            with self._bar:
                yield self
            return
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="progress", daemon=True)
        beat.start()
        try:
            yield self
        finally:
            over.set()
            beat.join()

    def _beat(self, over: threading.Event) -> None:
        """Say that the run is alive where a clip, or loading the networks, takes long."""
        while not over.wait(_BEAT_SECONDS):
            if time.monotonic() - self._last >= _BEAT_SECONDS:
                self._line()

    @property
    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def clip_done(self, clip: Clip, outcomes: dict[str, Outcome]) -> None:
        """See `Listener`."""
        self._done += 1
        bad = {name: outcome for name, outcome in outcomes.items() if outcome.status == "failed"}
        if bad:
            self._failed += 1
            outcome = next(iter(bad.values()))
            message = without_name(outcome.message, clip.id)
            self._say(f"failed({outcome.kind}) {clip.id}: {message}", "red")
        elif self._verbose:
            self._say(f"done {clip.id}", "dim")
        if self._bar is not None:
            self._bar.update(
                self._task, completed=self._done, pace=pace(self._rate), failed=self._failed
            )
        elif time.monotonic() - self._last >= _PLAIN_SECONDS:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        speed = f"none done yet, {duration(self._last - self._started)} so far"
        if self._done:
            left = duration((self._total - self._done) / self._rate)
            speed = f"{pace(self._rate)}, {left} left, {self._failed} failed"
        self._console.print(
            f"{self._done}/{self._total} clips, {speed}", markup=False, highlight=False
        )

    def unit_committed(self, unit: int) -> None:
        """See `Listener`."""
        if self._verbose > 1:
            self._say(f"unit {unit} committed", "dim")

    def _say(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False)


class DownloadProgress:
    """Says every few seconds how far the download of a backbone's weights is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def __call__(self, backbone: str, done: int, total: int | None) -> None:
        """Take note of `done` of `total` bytes."""
        now = time.monotonic()
        if backbone in self._last and now - self._last[backbone] < _PLAIN_SECONDS and done != total:
            return
        self._last[backbone] = now
        whole = f" of {total / 2**20:.0f}" if total else ""
        self._console.print(
            f"fetching the weights of {backbone}: {done / 2**20:.0f}{whole} MiB",
            markup=False,
            highlight=False,
        )
