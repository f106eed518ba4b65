"""Stopping politely: the first signal ends the run after the unit in hand, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
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
