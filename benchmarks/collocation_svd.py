"""Corresponding angles of two splits: streamed moments against numpy's full SVD.

numpy decomposes a slice that it has in memory, extrapolated linearly to all rows; avfeat reads all
rows in blocks from a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.collocation_angles import K, angles, blocks, leading, write_rows
from benchmarks.figure import Figure, least, plain
from benchmarks.limits import gemm_peak
from benchmarks.setting import ROOT, Setting, alternate, counted_runs, medians

#: Segments of both splits together, segments of the slice, features.
SIZES = (100_000, 20_000, 2048)
QUICK_SIZES = (4_000, 800, 64)
#: numpy's time over avfeat's, and MB, that are promised.
FASTER, MEGABYTES = 20.0, 1000.0


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure time on both sides, and avfeat's memory."""
    rows, sliced, dim = QUICK_SIZES if setting.quick else SIZES
    path = setting.fresh("svd") / "rows.f32"
    write_rows(path, rows, dim)
    part = np.concatenate(list(blocks(path, 0, sliced, dim)))
    repeats = setting.repeats(3)
    expected = np.empty((K, dim))

    def decompose() -> None:
        expected[:] = np.linalg.svd(part, full_matrices=False)[2][:K]

    def compare() -> None:
        angles(path, dim)

    seconds = medians(alternate({"numpy": decompose, "avfeat": compare}, repeats=repeats))
    found = leading(path, 0, sliced, dim).vectors[:, :K].T
    apart = np.abs(1 - np.abs(np.einsum("kd,kd->k", expected, found))).max()
    numpy_all = seconds["numpy"] * rows / sliced
    products = rows * dim * (dim + 1) / 2 / 1e9
    yield least(
        f"SVD scores of {rows:,} segments x {dim}: numpy's full SVD over avfeat",
        numpy_all / seconds["avfeat"],
        FASTER,
        f"numpy {seconds['numpy']:.2f} s for {sliced:,} segments in memory, extrapolated to "
        f"{numpy_all:.1f} s; avfeat {seconds['avfeat']:.2f} s from a file, two splits of "
        f"{rows // 2:,}; the slice's first {K} vectors are the same: cosines miss 1 by "
        f"{apart:.0e}; {counted_runs(repeats)}",
        limit=f"the products alone, half of a symmetric matrix, at the GEMM peak: "
        f"{gemm_peak(setting, 'fp32').seconds(products):.2f} s",
    )
    memory = _memory(path, dim)
    above = (memory["peak"] - memory["start"]) / 1e6
    peak = plain(
        f"SVD scores of {rows:,} segments x {dim}: peak memory above its start",
        above,
        "MB",
        f"of a process of its own, which begins with {memory['start'] / 1e6:.0f} MB",
        limit=f"the rows are {path.stat().st_size / 1e6:.0f} MB, the matrices of both splits "
        f"{2 * 8 * dim * dim / 1e6:.0f} MB",
    )
    yield peak.bounded(MEGABYTES)
    path.unlink()


def _memory(path: Path, dim: int) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.collocation_angles", str(path), str(dim)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found
