"""Decoding ahead: clips are decoded side by side, and handed over in order."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from avfeat.errors import ProcessError
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, Decode
from avfeat.extract.stages import CancelledError, Channel, Figures
from avfeat.manifests.clips import Outcome

#: Chunks of up to 16 frames waiting per clip: bounds memory, whatever the clips' length.
_CHUNKS_WAITING = 8


class ClipStream:
    """One clip on its way: iterate over its chunks, then read the rest.

    Attributes
    ----------
    job
        What is decoded.
    outcomes
        Backbone name to outcome; complete once the iteration has ended.
    figures
        What decoding took.
    crash
        Traceback of an error nobody foresaw; the clip's outcomes are then ``failed(unexpected)``.
    """

    def __init__(self, job: ClipJob, cancelled: threading.Event) -> None:
        self.job = job
        self.outcomes: dict[str, Outcome] = {}
        self.figures = ClipFigures()
        self.crash: str | None = None
        self._error: ProcessError | None = None
        self._chunks: Channel[Chunk | None] = Channel(_CHUNKS_WAITING, cancelled=cancelled)

    def chunks(self, taker: Figures) -> Iterator[Chunk]:
        """Yield the chunks; `taker` is the stage that takes them.

        Raises
        ------
        ProcessError
            Nothing can be decoded here.
        """
        while (chunk := self._chunks.get(taker)) is not None:
            yield chunk
        if self._error is not None:
            raise self._error

    def run(self, decode: Decode) -> None:
        """Decode the clip; runs in a thread of its own."""
        with contextlib.suppress(CancelledError):
            try:
                self.outcomes = decode(self.job, self._chunks.put, self.figures)
            except CancelledError:
                raise
            except ProcessError as error:
                self._error = error
            except Exception as error:  # noqa: BLE001 - one odd clip must not cost the night's run
                self.crash = traceback.format_exc()
                self.outcomes = self.job.failed("unexpected", f"{type(error).__name__}: {error}")
            self._chunks.put(None)


def prefetch(
    jobs: Iterable[ClipJob], decode: Decode, *, decoders: int, cancelled: threading.Event
) -> Generator[ClipStream, None, None]:
    """Yield a stream per job, in order, decoding up to `decoders` clips at once.

    Setting `cancelled` stops the threads at their next chunk.
    """
    waiting: deque[ClipStream] = deque()
    pool = ThreadPoolExecutor(decoders, thread_name_prefix="avfeat-decode")
    try:
        for job in jobs:
            stream = ClipStream(job, cancelled)
            pool.submit(stream.run, decode)
            waiting.append(stream)
            if len(waiting) > decoders:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        # Not waited for: one may hang in a file; who owns `decode` ends that.
        pool.shutdown(wait=False, cancel_futures=True)
