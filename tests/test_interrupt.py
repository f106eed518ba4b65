"""The first signal asks, the second one stops; what was there before is put back."""

from __future__ import annotations

import signal
import sys

import pytest

from avfeat.interrupt import run_child, stoppable

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_one_signal_is_a_request(number: signal.Signals, code: int) -> None:
    said: list[str] = []
    with stoppable(said.append) as stop:
        assert (stop(), stop.exit_code, said) == (False, 0, [])
        signal.raise_signal(number)
        assert stop()
    assert stop.exit_code == code
    (words,) = said
    assert words.startswith(f"{number.name}: finishing the unit in hand")


@pytest.mark.parametrize(("first", "code"), SIGNALS)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(
    first: signal.Signals, code: int, second: signal.Signals
) -> None:
    said: list[str] = []
    with pytest.raises(SystemExit, match=r"1(30|43)"), stoppable(said.append) as stop:
        signal.raise_signal(first)
        signal.raise_signal(second)
        raise AssertionError("not stopped")
    assert stop.exit_code == code
    assert said[1:] == ["stopped at once; the same command goes on from the last committed unit"]


def test_handlers_are_put_back_whatever_happens() -> None:
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    with pytest.raises(ZeroDivisionError), stoppable(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before


CHILD = """
import os, signal, sys, time
came = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: came.append(number))
os.kill(os.getppid(), signal.{name})
if signal.{name} == signal.SIGINT:
    os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.6)
sys.exit(40 + len(came))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_child_gets_the_signal_once_and_ends_in_its_own_time(name: str) -> None:
    """As a terminal sends SIGINT to both; SIGTERM comes to the parent alone, and is passed on."""
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    assert run_child([sys.executable, "-c", CHILD.format(name=name)]) == 41
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before


def test_a_child_that_a_signal_ended_has_the_exit_code_of_shells() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_child([sys.executable, "-c", code]) == 137
