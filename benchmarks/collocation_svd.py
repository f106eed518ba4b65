"""The papers' SVD score of two splits: the command on stores against numpy's full SVD.

numpy decomposes a slice of one backbone's rows, which it has in memory, extrapolated linearly to
all rows; avfeat reads all rows of a pair from its stores, and scores both backbones and the pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avfeat.collocate.segments import gather
from avfeat.datasets.synthetic import NAME, SEGMENTS
from avfeat.stores.reader import open_store
from benchmarks.collocation_command import collocate
from benchmarks.figure import Figure, least, plain
from benchmarks.limits import gemm_peak
from benchmarks.setting import Setting, alternate, counted_runs, medians

PAIR = ("vggish", "polynet")
#: Clips of the slice that numpy decomposes, 20,000 segments.
SLICE, QUICK_SLICE = 2_000, 6
#: numpy's time over avfeat's, and bytes, that are promised.
FASTER, PEAK = 20.0, 1e9


def figures(setting: Setting, stores: Path) -> Iterator[Figure]:
    """Measure time on both sides, and avfeat's memory."""
    store = open_store(stores / NAME / PAIR[1])
    clips = [len(store.ids(split=split)) for split in ("train", "val")]
    sliced = QUICK_SLICE if setting.quick else SLICE
    part = gather(store, store.ids()[:sliced], SEGMENTS).reshape(-1, store.dim)
    audio, visual = PAIR
    options = ["--audio", audio, "--visual", visual, "--motion", "none"]
    options += ["--scores", "svd", "--resamples", "0"]
    peaks = []

    def score() -> float:
        ran = collocate(stores, *options)
        peaks.append(ran.peak)
        return float(ran.document["seconds"])

    repeats = setting.repeats(3)
    seconds = medians(
        alternate(
            {"numpy": lambda: np.linalg.svd(part, full_matrices=False) and None, "avfeat": score},
            repeats=repeats,
        )
    )
    rows = SEGMENTS * sum(clips)
    numpy_all = seconds["numpy"] * rows / len(part)
    products = rows * store.dim * (store.dim + 1) / 2 / 1e9
    what = f"SVD scores of {rows:,} segments x {store.dim}"
    yield least(
        f"{what}: numpy's full SVD over avfeat",
        numpy_all / seconds["avfeat"],
        FASTER,
        f"numpy {seconds['numpy']:.2f} s for {len(part):,} segments in memory, extrapolated to "
        f"{numpy_all:.1f} s; avfeat {seconds['avfeat']:.2f} s for {audio}, {visual} and both, from "
        f"stores of {clips[0]:,} and {clips[1]:,} clips; {counted_runs(repeats)}",
        limit=f"the products alone, half of a symmetric matrix, at the GEMM peak: "
        f"{gemm_peak(setting, 'fp32').seconds(products):.2f} s",
    )
    peak = plain(
        f"{what}: peak memory",
        max(peaks) / 1e6,
        "MB",
        "of the whole command, all libraries included",
        limit=f"the rows are {4 * rows * store.dim / 1e6:.0f} MB, the matrices of both splits "
        f"{2 * 8 * store.dim**2 / 1e6:.0f} MB",
    )
    yield peak.bounded(PEAK / 1e6)
