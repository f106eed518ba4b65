"""Threads joined by bounded queues: order, errors, leaving early, and where the time went."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from avfeat.extract import stages
from avfeat.extract.stages import Ahead, Behind, CancelledError, Channel, Figures

PATIENCE = 60.0


class Clock:
    """Stands still unless it is moved, and knows how often each thread read it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._reads: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            self._reads[threading.current_thread().name] += 1
            self._changed.notify_all()
            return self._now

    def move(self, seconds: float) -> None:
        """Let time pass."""
        with self._changed:
            self._now += seconds

    def wait_for(self, thread: str, reads: int) -> None:
        """Wait until a thread has read it so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._reads[thread] >= reads, PATIENCE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the stages read."""
    clock = Clock()
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=clock))
    return clock


def ahead(items: Iterator[int], depth: int = 1) -> Ahead[int]:
    return Ahead(
        "first",
        items,
        depth=depth,
        figures=Figures(),
        downstream=Figures(),
        cancelled=threading.Event(),
    )


@pytest.mark.parametrize("depth", [1, 3])
def test_items_come_in_order(depth: int) -> None:
    done: list[int] = []
    with (
        ahead(iter(range(50)), depth) as ready,
        Behind("last", done.append, depth=depth, figures=Figures()) as last,
    ):
        for item in ready:
            last.put(item)
    assert done == list(range(50))


def test_an_iterators_error_is_raised_where_its_items_are_taken() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    taken: list[int] = []
    with pytest.raises(ZeroDivisionError), ahead(items()) as ready:
        taken.extend(ready)
    assert taken in ([], [1])


def test_an_iterator_that_is_left_early_is_closed_in_its_thread() -> None:
    closed: list[str] = []
    made: list[int] = []

    def items() -> Iterator[int]:
        try:
            for item in range(10**6):
                made.append(item)
                yield item
        finally:
            closed.append(threading.current_thread().name)

    with ahead(items()) as ready:
        assert next(iter(ready)) == 0
    assert closed == ["avfeat-first"]
    assert len(made) <= 3  # one taken, one waiting, one in hand


def fail(item: int) -> None:
    raise ZeroDivisionError


def test_an_error_of_the_work_is_raised_at_the_end() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Behind("last", fail, depth=1, figures=Figures()) as last,
    ):
        last.put(0)


def test_an_error_of_the_work_is_raised_by_a_put() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Behind("last", fail, depth=1, figures=Figures()) as last,
    ):
        for item in range(3):
            last.put(item)
        raise AssertionError("the third one found room")


def test_stages_that_end_together_raise_the_first_error() -> None:
    ended = threading.Event()
    with (
        pytest.raises(ZeroDivisionError),
        Behind("last", fail, depth=1, figures=Figures(), cancelled=ended) as last,
        Behind("middle", last.put, depth=1, figures=Figures(), cancelled=ended) as middle,
    ):
        for item in range(5):
            middle.put(item)
        raise AssertionError("the fifth one found room")


def test_what_waits_is_dropped_after_an_error_where_items_are_put() -> None:
    done: list[int] = []
    cancelled, begun = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.set()
        cancelled.wait(PATIENCE)
        done.append(item)

    with (
        pytest.raises(KeyboardInterrupt),
        Behind("last", work, depth=1, figures=Figures(), cancelled=cancelled) as last,
    ):
        last.put(1)
        assert begun.wait(PATIENCE)
        last.put(2)
        raise KeyboardInterrupt
    assert done == [1]


def test_a_channel_that_was_called_off_takes_and_gives_nothing() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    channel.cancelled.set()
    with pytest.raises(CancelledError):
        channel.put(2)
    with pytest.raises(CancelledError):
        channel.get()


def test_a_slow_stage_is_busy_and_who_puts_is_blocked(clock: Clock) -> None:
    here = threading.current_thread().name
    upstream, slow = Figures(), Figures()

    def work(item: int) -> None:
        if item == 1:
            clock.wait_for(here, 5)  # two reads in each of two puts, and one of who puts the third
            clock.move(10)

    with Behind("slow", work, depth=1, figures=slow, upstream=upstream) as stage:
        for item in (1, 2, 3):
            stage.put(item)
    assert (slow.busy, slow.starved, slow.blocked) == (10, 0, 0)
    assert (upstream.busy, upstream.starved, upstream.blocked) == (0, 0, 10)


def test_a_stage_that_nobody_gives_anything_is_starved(clock: Clock) -> None:
    upstream, hungry = Figures(), Figures()
    with Behind("hungry", lambda _: None, depth=1, figures=hungry, upstream=upstream) as stage:
        stage.put(1)
        clock.wait_for("avfeat-hungry", 5)  # got one, worked on it, waits for the next
        clock.move(10)
        stage.put(2)
    assert (hungry.busy, hungry.starved, hungry.blocked) == (0, 10, 0)
    assert upstream.blocked == 0


def test_the_end_of_a_slow_stage_is_waited_for(clock: Clock) -> None:
    upstream, slow = Figures(), Figures()
    here = threading.current_thread().name

    def work(item: int) -> None:
        clock.wait_for(here, 3)  # two reads in the put, one at the end
        clock.move(10)

    with Behind("slow", work, depth=1, figures=slow, upstream=upstream) as stage:
        stage.put(1)
    assert (slow.busy, upstream.blocked) == (10, 10)


def test_an_iterator_that_is_ahead_is_blocked(clock: Clock) -> None:
    figures, downstream = Figures(), Figures()
    with Ahead(
        "first",
        iter(range(3)),
        depth=1,
        figures=figures,
        downstream=downstream,
        cancelled=threading.Event(),
    ) as ready:
        items = iter(ready)
        next(items)
        clock.wait_for("avfeat-first", 5)  # one taken, one waits, and no room for the third
        clock.move(10)
        assert list(items) == [1, 2]
    assert (figures.blocked, figures.busy, downstream.starved) == (10, 0, 0)
    assert downstream.looks == 4  # the end too
    assert 1 / 4 <= downstream.fill <= 1  # at the second look the queue was full


def test_waiting_for_the_next_stage_is_no_work(clock: Clock) -> None:
    middle = Figures()

    def work(item: int, figures: Figures) -> None:
        clock.move(3)
        figures.blocked += 2

    with Behind("middle", partial(work, figures=middle), depth=1, figures=middle) as stage:
        for item in range(4):
            stage.put(item)
    assert (middle.busy, middle.blocked) == (4, 8)


def test_figures_of_threads_add_up() -> None:
    both = Figures(1, 2.0, 3.0, 4.0, 5, 2.5)
    both.add(Figures(10, 20.0, 30.0, 40.0, 5, 0.5))
    assert both == Figures(11, 22.0, 33.0, 44.0, 10, 3.0)
    assert both.fill == 0.3
    assert Figures().fill == 0
