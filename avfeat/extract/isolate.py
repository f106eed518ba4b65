"""Decoding in processes of their own, so that a file that crashes or hangs costs one clip.

PyAV's libraries are C on dirty input from the web. Nothing but a process boundary keeps a
segmentation fault, an endless loop or the memory that a broken header asks for from taking the run
along.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np

import avfeat
from avfeat.errors import ProcessError
from avfeat.extract.child import SIGNALS
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, Emit
from avfeat.extract.stages import CancelledError
from avfeat.manifests.clips import Outcome

#: Seconds that the decoder may be at work on one packet.
LIMIT = 600.0
_GRACE = 60.0

#: What runs in the processes.
_MODULE = "avfeat.extract.child"


class DecodingError(Exception):
    """An error nobody foresaw, in a decoding process; a note holds its traceback."""


class Isolated:
    """Decodes in processes that are kept for the next clip; a `Decode`, for several threads.

    Use it in a ``with`` statement, which ends the processes. As many are started as there are
    calls at once.

    Parameters
    ----------
    limit
        Seconds after which a decoder that gives nothing is given up.
    """

    def __init__(self, *, limit: float = LIMIT) -> None:
        self._limit = limit
        self._closed = False
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()  # what waits for a busy one sees it end
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def __call__(self, job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        """See `decode.decode`; a crash is ``failed(crash)``, a decoder that hangs ``failed(hang)``.

        Raises
        ------
        DecodingError
            An error in the process that nobody foresaw.
        ProcessError
            A process cannot be started, which is no clip's fault.
        CancelledError
            It was left meanwhile.
        """
        child = self._take()
        try:
            return child.decode(job, emit, figures)
        except _HungError:
            self._end(child)
            return job.failed("hang", f"the decoder gave nothing for {self._limit:g} s")
        except (EOFError, ConnectionError):
            how = self._end(child)
            if self._closed:  # it did not crash, it was ended
                raise CancelledError from None
            return job.failed("crash", f"the decoder crashed ({how})")
        except DecodingError:
            raise
        except BaseException:
            self._end(child)  # in the middle of a clip that nobody wants any more
            raise
        finally:
            with self._lock:
                if child in self._children:
                    self._idle.append(child)

    def _take(self) -> _Child:
        with self._lock:
            if self._closed:
                raise CancelledError
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                self._children.discard(child)
                child.end()
            child = _Child(self._limit)
            self._children.add(child)
        try:
            child.wait_ready()
        except BaseException:
            self._end(child)
            if self._closed:
                raise CancelledError from None
            raise
        return child

    def _end(self, child: _Child) -> str:
        with self._lock:
            self._children.discard(child)
            if child in self._idle:
                self._idle.remove(child)
        return child.end()


class _HungError(Exception):
    pass


class _Child:
    """One decoding process."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ready = False
        root = str(Path(avfeat.__file__).parents[1])
        path = filter(None, [root, os.environ.get("PYTHONPATH", "")])
        # A signal to everything, as batch systems send it, is for the parent too.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", _MODULE),
                        *(str(theirs.fileno()), str(limit)),
                    ],
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # a terminal's Ctrl-C is for the parent
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                )
                self._line = Connection(ours.detach())
        except OSError as error:
            raise ProcessError(f"a decoding process cannot be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def wait_ready(self) -> None:
        """Wait until it has started; ProcessError if it does not."""
        if self._ready:
            return
        try:
            self._ready = self._line.poll(_GRACE) and self._line.recv() == ("ready",)
            how = f"it said nothing for {_GRACE:g} s"
        except (EOFError, ConnectionError):
            how = f"it ended ({self.end()})"
        if not self._ready:
            raise ProcessError(
                f"a decoding process does not start: {how}; `python -m {_MODULE}` says why, and "
                "--no-isolate does without"
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
        self._line.send(job)
        while True:
            # A sign of life comes every second, unless it starts or C code holds the interpreter.
            if not self._line.poll(self._limit + _GRACE):
                raise _HungError
            kind, *rest = self._line.recv()
            if kind == "chunk":
                name, times, dtype, shape = rest
                items = np.empty(shape, dtype=dtype)
                self._line.recv_bytes_into(items.data.cast("B"))
                emit(Chunk(name, items, times))
            elif kind == "done":
                outcomes: dict[str, Outcome]
                outcomes, spent = rest
                figures.add(spent)
                return outcomes
            elif kind == "error":
                message, trace = rest
                error = DecodingError(message)
                error.add_note(trace)
                raise error
            elif kind == "hung":
                raise _HungError

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> str:
        """End the process, if it has not ended by itself; say how it ended."""
        self._line.close()
        for patience in (0.5, 5.0):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
            self._process.kill()
        code = self._process.poll()
        if code is None:
            return "it cannot even be killed: its disk or network hangs"
        if code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"
