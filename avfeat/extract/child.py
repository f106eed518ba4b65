"""A decoding process: clips in, items out, until its other end is closed.

What crashes or hangs FFmpeg then costs this process and one clip; see `avfeat.extract.isolate`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, decode

#: Blocked by the parent until they are ignored, as importing takes a second.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Seconds between two signs of life.
BEAT = 1.0


class _Worker:
    def __init__(self, line: Connection, limit: float) -> None:
        self._line = line
        self._limit = limit
        self._sending = threading.Lock()

    def work(self) -> None:
        """Decode what comes until nobody sends any more."""
        self._send(("ready",))
        while True:
            try:
                job: ClipJob = self._line.recv()
            except EOFError:
                return
            self._decode(job)

    def _decode(self, job: ClipJob) -> None:
        figures, done = ClipFigures(), threading.Event()
        beating = threading.Thread(target=self._beat, args=(figures, done), daemon=True)
        beating.start()
        try:
            answer: tuple[Any, ...] = ("done", decode(job, self._emit, figures), figures)
        except Exception as error:  # noqa: BLE001 - told to the parent, which makes it an outcome
            answer = ("error", f"{type(error).__name__}: {error}", traceback.format_exc())
        done.set()
        beating.join()
        self._send(answer)

    def _emit(self, chunk: Chunk) -> None:
        items = np.ascontiguousarray(chunk.items)
        with self._sending:
            self._line.send(("chunk", chunk.backbone, chunk.times, items.dtype, items.shape))
            self._line.send_bytes(items.data.cast("B"))

    def _beat(self, figures: ClipFigures, done: threading.Event) -> None:
        while not done.wait(BEAT):
            since = figures.reading
            hung = since is not None and time.monotonic() - since > self._limit
            try:
                self._send(("hung" if hung else "alive",))
            except OSError:  # the parent is gone, and the decoder may never look
                os._exit(1)
            if hung:
                return

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._sending:
            self._line.send(message)


def main() -> None:
    """Serve the parent over the file descriptor that the command line names."""
    for number in SIGNALS:  # of the whole group: the parent says what comes next
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    line = Connection(int(sys.argv[1]))
    try:
        _Worker(line, float(sys.argv[2])).work()
    except (BrokenPipeError, ConnectionResetError):  # the parent is gone
        sys.exit(1)


if __name__ == "__main__":
    main()
