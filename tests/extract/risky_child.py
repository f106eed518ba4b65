"""A decoding process with a decoder that crashes, hangs or fails on clips that are named so."""

from __future__ import annotations

import os
import signal
import time

from avfeat.extract import child, decode
from avfeat.extract.decode import ClipFigures, ClipJob, Emit
from avfeat.manifests.clips import Outcome


def _decode(job: ClipJob, emit: Emit, figures: ClipFigures) -> dict[str, Outcome]:
    if "crash" in job.path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "leave" in job.path.name:
        os._exit(7)
    if "odd" in job.path.name:
        raise RuntimeError("nobody foresaw this")
    if "hang" in job.path.name:
        figures.reading = time.monotonic()
        time.sleep(60)
    return decode.decode(job, emit, figures)


if __name__ == "__main__":
    child.decode = _decode
    child.main()
