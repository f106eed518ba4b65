"""Stopping politely: the first signal ends the run after the unit in hand, the second at once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

#: Exit codes by signal, 128 + number as shells have it.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequest:
    """Whether, and by which signal, a stop was asked for."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 0 if nobody asked."""
        return EXIT_CODES[self.signal] if self.signal is not None else 0


@contextmanager
def stoppable(announce: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest` while the context lasts.

    Parameters
    ----------
    announce
        Told, in a sentence, what a signal does.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal is not None:
            announce("stopped at once; the same command goes on from the last committed unit")
            raise SystemExit(EXIT_CODES[signal.Signals(number)])
        request.signal = signal.Signals(number)
        announce(
            f"{request.signal.name}: finishing the unit in hand, then stopping; "
            "once more stops now (nothing committed is lost either way)"
        )

    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_child(command: Sequence[str]) -> int:
    """Run a command that deals with signals itself, and wait for it whatever comes.

    SIGINT is left to the child, which a terminal sends it to as well; SIGTERM, which goes to one
    process, is passed on. `subprocess.run` would kill the child a quarter of a second after SIGINT.

    Returns
    -------
    int
        Its exit code; 128 + number if a signal ended it, as shells have it.
    """
    # A function, not SIG_IGN, which the child would inherit.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    try:
        child = subprocess.Popen(command)
        before[signal.SIGTERM] = signal.signal(
            signal.SIGTERM, lambda number, frame: child.send_signal(number)
        )
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
