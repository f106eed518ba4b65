"""What the machine allows: multiply-accumulates, memory bandwidth, decoding alone.

``python -m benchmarks.limits`` measures them alone; the other sections show them beside what they
measure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avfeat.extract.backbones import BackboneSpec
from avfeat.extract.decode import ClipFigures, ClipJob, decode
from avfeat.manifests.clips import Clip
from benchmarks.figure import Figure, plain
from benchmarks.setting import Setting, alone

#: Of which the fastest counts.
PRODUCTS = 60

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Peak:
    """The best of several products of square matrices."""

    precision: str
    gmacs: float  # 1e9 multiply-accumulates a second

    def seconds(self, gmacs: float) -> float:
        """Return the time of so many, at this rate."""
        return gmacs / self.gmacs


def gemm_peak(setting: Setting, precision: str) -> Peak:
    """Multiply matrices, with as many threads as the networks have.

    The best of many short products, so that it is the machine's and not that of who else is on it;
    on the CPU in float32 by torch's library or numpy's, whichever is the faster.
    """
    size = 256 if setting.quick else 1024 if setting.device == "cpu" else 8192
    device = torch.device(setting.device)
    one, other = (torch.rand(size, size, device=device).to(_DTYPES[precision]) for _ in "ab")
    work: list[Callable[[], object]] = [lambda: one @ other]
    if setting.device == "cpu" and precision == "fp32":
        first, second = one.numpy(), other.numpy()
        work.append(lambda: first @ second)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        best = min(_timed(run, device) for run in work for _ in range(PRODUCTS))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return Peak(precision, size**3 / best / 1e9)


def bandwidth(setting: Setting) -> float:
    """Copy memory in as many threads as the networks have; bytes read and written a second."""
    size = 2**20 if setting.quick else 2**28
    device = torch.device(setting.device)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(_timed(lambda: target.copy_(source), device) for _ in range(setting.repeats(7)))
    return 2 * size / best


def decode_seconds(
    path: Path, specs: tuple[BackboneSpec, ...], *, repeats: int, seconds: float = 10.0
) -> float:
    """Decode a clip and cut it into the backbones' items: processor time, of both its threads."""
    job = ClipJob(Clip(path.name, 0.0, seconds), path, path.name, specs, "avvp")
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        outcomes = decode(job, lambda _chunk: None, ClipFigures())
        spent.append(time.process_time() - started)
        assert all(outcome.status in ("ok", "degraded") for outcome in outcomes.values())
    return statistics.median(spent)


def figures(setting: Setting) -> list[Figure]:
    """Measure what all sections stand on."""
    threads = f"torch, {torch.get_num_threads()} threads"
    found = []
    for precision in setting.precisions:
        peak = gemm_peak(setting, precision)
        detail = f"best of {PRODUCTS} square products, {threads}"
        found.append(plain(f"limit: GEMM in {precision}", peak.gmacs, "GMAC/s", detail))
    detail = f"best of {setting.repeats(7)} copies, read and written, {threads}"
    found.append(plain("limit: memory bandwidth", bandwidth(setting) / 1e9, "GB/s", detail))
    numpy_copy = np.ones(2**20 if setting.quick else 2**27, dtype=np.uint8)
    spent = min(_timed(numpy_copy.copy, torch.device("cpu")) for _ in range(setting.repeats(7)))
    name = "limit: memory bandwidth, one thread"
    found.append(plain(name, 2 * numpy_copy.nbytes / spent / 1e9, "GB/s", "numpy copy, as above"))
    return found


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    alone(figures, "limits", __doc__)
