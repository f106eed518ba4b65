"""The first signal asks, the second one stops; what was there before is put back."""

from __future__ import annotations

import signal

import pytest

from avfeat.interrupt import stoppable

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
    assert len(said) == 1


def test_handlers_are_put_back_whatever_happens() -> None:
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    with pytest.raises(ZeroDivisionError), stoppable(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before
