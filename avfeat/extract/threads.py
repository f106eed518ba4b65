"""How many threads torch's operations on the CPU take, which decides the last bits of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def default_threads(processes: int) -> int:
    """Threads for each of so many processes on this machine."""
    import torch

    return max(1, torch.get_num_threads() // processes)


def compute_with(threads: int) -> None:
    """Let the calling thread compute with so many; others that run have their own number."""
    import torch

    if torch.get_num_threads() != threads:  # setting it lets oneDNN forget what it compiled
        torch.set_num_threads(threads)


@contextmanager
def computing_with(threads: int | None = None) -> Iterator[None]:
    """As `compute_with`, and put the number back at the end; None changes nothing itself."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        compute_with(threads)
    try:
        yield
    finally:
        compute_with(before)
