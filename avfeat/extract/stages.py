"""Stages of a pipeline: threads joined by bounded queues, each with figures of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Seconds between looks at whether a wait was called off.
_LOOK = 0.1


class CancelledError(Exception):
    """The other end of a queue went away."""


@dataclass(slots=True)
class Figures:
    """What a stage did.

    Attributes
    ----------
    items
        What came through it, in the unit of the stage.
    busy
        Seconds of work, summed over its threads.
    starved, blocked
        Seconds waited for input, and for room in the next stage's queue.
    looks, filled
        How often its input queue was looked at, and the sum of the shares then filled.
    """

    items: int = 0
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    looks: int = 0
    filled: float = 0.0

    def add(self, other: Figures) -> None:
        """Add what another thread of the stage did."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def fill(self) -> float:
        """Mean share of the input queue that was filled when an item was taken, 0 to 1."""
        return self.filled / self.looks if self.looks else 0.0


class Channel(Generic[T]):
    """A bounded queue from one thread to another that either end can call off.

    Parameters
    ----------
    depth
        Items that may wait.
    cancelled
        Set by whoever calls it off; several channels may share it.
    """

    def __init__(self, depth: int, *, cancelled: threading.Event | None = None) -> None:
        self.cancelled = cancelled or threading.Event()
        self._queue: queue.Queue[T] = queue.Queue(depth)

    def put(self, item: T, figures: Figures | None = None) -> None:
        """Add an item, waiting for room; CancelledError if nobody wants it any more."""
        started = time.perf_counter()
        while not self.cancelled.is_set():
            try:
                self._queue.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            if figures is not None:
                figures.blocked += time.perf_counter() - started
            return
        raise CancelledError

    def get(self, figures: Figures | None = None) -> T:
        """Take an item, waiting for one; CancelledError if none will come."""
        started = time.perf_counter()
        filled = self._queue.qsize() / self._queue.maxsize
        while not self.cancelled.is_set():
            try:
                item = self._queue.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if figures is not None:
                figures.starved += time.perf_counter() - started
                figures.looks += 1
                figures.filled += filled
            return item
        raise CancelledError


class _Thread(ABC):
    """A thread at one end of a channel, whose error is raised at the other end."""

    def __init__(self, name: str, channel: Channel[Any]) -> None:
        self.error: BaseException | None = None
        self._channel = channel
        self._thread = threading.Thread(target=self._guarded, name=f"avfeat-{name}", daemon=True)

    def _guarded(self) -> None:
        # In either case nobody at the other end must wait for what will not come.
        try:
            self._run()
        except CancelledError:
            self._channel.cancelled.set()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
            self.error = error
            self._channel.cancelled.set()

    @abstractmethod
    def _run(self) -> None:
        """Do what the thread is for."""


class Ahead(_Thread, Generic[T]):
    """Runs an iterator in a thread, up to `depth` items ahead of who iterates over this.

    Use it in a ``with`` statement; leaving it early stops the thread at its next item.

    Parameters
    ----------
    items
        The iterator; it is closed in its thread.
    figures, downstream
        Figures of the stage that makes the items, and of the one that takes them.
    cancelled
        Set when this is left; what `items` waits for should look at it.
    """

    def __init__(
        self,
        name: str,
        items: Iterator[T],
        *,
        depth: int,
        figures: Figures,
        downstream: Figures,
        cancelled: threading.Event,
    ) -> None:
        super().__init__(name, Channel[T | None](depth, cancelled=cancelled))
        self._items = items
        self._figures = figures
        self._downstream = downstream

    def __enter__(self) -> Ahead[T]:
        """Start."""
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order; raise what the iterator raised."""
        while True:
            try:
                item = self._channel.get(self._downstream)
            except CancelledError:
                item = None
            if item is None:
                if self.error is not None:
                    raise self.error
                return
            yield item

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the thread."""
        self._channel.cancelled.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._channel.put(item, self._figures)
            self._channel.put(None)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()


class Behind(_Thread, Generic[T]):
    """Does something with each item in a thread of its own, up to `depth` items behind.

    Use it in a ``with`` statement. Left without an error it finishes what was put; an error of the
    thread is raised by the next `put`, or at the end.

    Parameters
    ----------
    work
        Called with each item, in order.
    figures, upstream
        Figures of this stage, and of the one that puts. What `work` waits for room is not busy, if
        it adds it to `figures.blocked`.
    cancelled
        Set when this ends early; stages that share it end together.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        *,
        depth: int,
        figures: Figures,
        upstream: Figures | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        super().__init__(name, Channel[T | None](depth, cancelled=cancelled))
        self._work = work
        self._figures = figures
        self._upstream = upstream

    def __enter__(self) -> Behind[T]:
        """Start."""
        self._thread.start()
        return self

    def put(self, item: T) -> None:
        """Hand an item over, waiting for room."""
        try:
            self._channel.put(item, self._upstream)
        except CancelledError:
            if self.error is not None:
                raise self.error from None
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what was put, or drop it if there was an error; raise the thread's own."""
        started = time.perf_counter()
        if error is None:
            with contextlib.suppress(CancelledError):
                self._channel.put(None)
        else:
            self._channel.cancelled.set()
        self._thread.join()
        if self._upstream is not None:
            self._upstream.blocked += time.perf_counter() - started
        if self.error is not None and (error is None or isinstance(error, CancelledError)):
            raise self.error from None

    def _run(self) -> None:
        while (item := self._channel.get(self._figures)) is not None:
            started, blocked = time.perf_counter(), self._figures.blocked
            self._work(item)
            waited = self._figures.blocked - blocked  # for room in the stages that follow
            self._figures.busy += time.perf_counter() - started - waited
