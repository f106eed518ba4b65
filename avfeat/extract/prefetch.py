"""Decoding ahead: clips are decoded in threads while the model runs, and handed over in order."""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from avfeat.extract.decode import Chunk, ClipJob, DecodeTimes, decode
from avfeat.manifests.clips import Outcome

#: Chunks of 16 frames waiting per clip: bounds memory, whatever the clips' length.
_QUEUE_CHUNKS = 8


class CancelledError(Exception):
    """The consumer went away; the decoding thread stops at its next chunk."""


@dataclass(slots=True)
class ClipStream:
    """One clip on its way: iterate over its chunks, then read `outcomes`.

    Attributes
    ----------
    job
        What is decoded.
    outcomes
        Backbone name to outcome; complete once the iteration has ended.
    times
        Seconds spent decoding and transforming.
    crash
        Traceback of an error nobody foresaw; the clip's outcomes are then ``failed(unexpected)``.
    """

    job: ClipJob
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    times: DecodeTimes = field(default_factory=DecodeTimes)
    crash: str | None = None
    _chunks: queue.Queue[Chunk | None] = field(
        default_factory=lambda: queue.Queue(maxsize=_QUEUE_CHUNKS)
    )

    def __iter__(self) -> Iterator[Chunk]:
        while (chunk := self._chunks.get()) is not None:
            yield chunk

    def run(self, cancelled: threading.Event) -> None:
        """Decode the clip into the queue; runs in a decoding thread."""

        def put(chunk: Chunk | None) -> None:
            while not cancelled.is_set():
                try:
                    self._chunks.put(chunk, timeout=0.2)
                except queue.Full:
                    continue
                return
            raise CancelledError

        if cancelled.is_set():
            return
        with contextlib.suppress(CancelledError):
            try:
                self.outcomes = decode(self.job, put, self.times)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - one odd clip must not cost the night's run
                self.crash = traceback.format_exc()
                failed = Outcome(
                    "failed",
                    "unexpected",
                    f"{self.job.path.name}: {type(error).__name__}: {error}",
                    media=self.job.media,
                )
                self.outcomes = {spec.name: failed for spec in self.job.specs}
            finally:
                put(None)  # whatever happened: the consumer waits for it


def prefetch(jobs: Iterable[ClipJob], *, workers: int) -> Generator[ClipStream, None, None]:
    """Yield a stream per job, in order, decoding up to `workers` clips at once.

    Closing the iterator stops the threads.
    """
    cancelled = threading.Event()
    waiting: deque[ClipStream] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="avfeat-decode") as pool:
        try:
            for job in jobs:
                stream = ClipStream(job)
                pool.submit(stream.run, cancelled)
                waiting.append(stream)
                if len(waiting) > workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
