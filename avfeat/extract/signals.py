"""What keeps the worker processes of this machine alive through a Ctrl-C; light to import."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin


class Deaf(WorkerPlugin):
    """Lets a worker ignore SIGINT and SIGTERM, which a terminal sends to the whole group.

    What they mean is for the client to say: it finishes the units in hand, then ends the workers.
    """

    def setup(self, worker: Worker) -> None:
        """Runs in the main thread of the worker's process, as it starts."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
