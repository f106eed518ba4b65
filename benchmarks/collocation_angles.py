"""Corresponding angles of a file of rows, in little memory.

``python -m benchmarks.collocation_angles FILE DIM`` computes those of its first half with its
second and prints, as JSON, the memory that this process had before and at most. It is a module of
its own, so that neither is that of what a benchmark imports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from avfeat.collocate.scores.angles import Angles, corresponding_angles
from avfeat.collocate.scores.moments import Moments
from avfeat.collocate.scores.spectra import Spectrum, spectrum

#: Vectors compared.
K = 5
_SEGMENTS = 10  # per clip
_BLOCK = 4_000  # rows, as `avfeat.collocate.streams` reads them
_LATENTS = 40


def write_rows(path: Path, rows: int, dim: int) -> None:
    """Write rows as a ReLU leaves them, with a spectrum that falls: float32, nothing else."""
    generator = np.random.default_rng(0)
    spread = np.geomspace(1, 0.05, _LATENTS, dtype=np.float32)[:, None]
    mixed = spread * generator.standard_normal((_LATENTS, dim), dtype=np.float32)
    with path.open("wb") as file:
        for first in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - first)
            latent = generator.standard_normal((count, _LATENTS), dtype=np.float32)
            noise = generator.standard_normal((count, dim), dtype=np.float32)
            np.maximum(latent @ mixed + 0.3 * noise + 0.5, 0).tofile(file)


def angles(path: Path, dim: int) -> Angles:
    """Compare the first half of a file of rows with the second, the halves side by side."""
    half = path.stat().st_size // (4 * dim) // 2
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda first: leading(path, first, half, dim), (0, half))
        return corresponding_angles(*halves)


def leading(path: Path, first: int, count: int, dim: int) -> Spectrum:
    """Find the leading directions of some rows of a file, as they are: not centred."""
    moments = Moments(dim)
    for block in blocks(path, first, count, dim):
        moments.add(block)
    return spectrum(moments, k=K, clips=count // _SEGMENTS, centred=False)


def blocks(path: Path, first: int, count: int, dim: int) -> Iterator[np.ndarray]:
    """Read some rows of a file, float32 [n, d] at a time."""
    for start in range(first, first + count, _BLOCK):
        number = min(_BLOCK, first + count - start)
        flat = np.fromfile(path, np.float32, number * dim, offset=4 * start * dim)
        yield flat.reshape(number, dim)


def _resident(field: str) -> int:
    """Read VmRSS or VmHWM, its peak, in bytes. The peak of getrusage would be the parent's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    before = _resident("VmRSS")
    angles(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({"start": before, "peak": _resident("VmHWM")}))
