"""The papers' SVD score of two splits: avfeat on stores against numpy's full SVD.

numpy decomposes slices that it has in memory, extrapolated linearly to all rows; avfeat reads all
rows from its stores. Once for one backbone, and once for the command, which scores both backbones
of a pair and the pair: numpy then has to decompose all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avfeat.collocate.candidates import gather
from avfeat.collocate.score_table import Options
from avfeat.collocate.scores.angles import corresponding_angles
from avfeat.collocate.scores.spectra import spectrum
from avfeat.collocate.segments import read_all
from avfeat.collocate.streams import Clips, measure
from avfeat.datasets.synthetic import SEGMENTS
from benchmarks.collocation_command import collocate
from benchmarks.figure import Figure, least, plain
from benchmarks.limits import gemm_peak
from benchmarks.setting import Setting, alternate, counted_runs, medians

PAIR = ("vggish", "polynet")
#: Clips of the slices that numpy decomposes, 20,000 segments.
SLICE, QUICK_SLICE = 2_000, 6
#: numpy's time over avfeat's, and bytes, that are promised.
FASTER, PEAK = 20.0, 1e9


def figures(setting: Setting, stores: Path) -> Iterator[Figure]:
    """Measure time on both sides, and avfeat's memory."""
    audio, visual = PAIR
    candidates = gather(str(stores), dataset=None, audio=[audio], visual=[visual], trains=False)
    options = Options(source="train", target="val", names=("svd",))
    splits = [Clips.of(candidates, name) for name in (options.source, options.target)]
    sliced = QUICK_SLICE if setting.quick else SLICE
    heard, seen = (
        read_all(one.store, one.store.ids()[:sliced], SEGMENTS).reshape(-1, one.store.dim)
        for one in candidates.all
    )
    both = np.concatenate([heard, seen], axis=1)
    command = ["--audio", audio, "--visual", visual, "--motion", "none"]
    command += ["--scores", "svd", "--resamples", "0"]
    peaks = []

    def one_backbone() -> None:
        source, target = (
            spectrum(
                measure(candidates.visual[0], clips, workers=options.workers).own,
                k=options.k,
                clips=len(clips),
                centred=False,
            )
            for clips in splits
        )
        corresponding_angles(source, target)

    def pair() -> float:
        ran = collocate(stores, *command)
        peaks.append(ran.peak)
        return float(ran.document["seconds"])

    def decompose(*matrices: np.ndarray) -> None:
        for matrix in matrices:
            np.linalg.svd(matrix, full_matrices=False)

    repeats = setting.repeats(3)
    seconds = medians(
        alternate(
            {
                "numpy": lambda: decompose(seen),
                "one": one_backbone,
                "numpy for both": lambda: decompose(heard, seen, both),
                "command": pair,
            },
            repeats=repeats,
        )
    )
    dim = seen.shape[1]
    clips = [len(split) for split in splits]
    rows = SEGMENTS * sum(clips)
    whole = rows / len(seen)
    stored = f"stores of {clips[0]:,} and {clips[1]:,} clips; {counted_runs(repeats)}"
    what = f"SVD scores of {rows:,} segments"
    narrow = heard.shape[1]
    peak = gemm_peak(setting, "fp32")
    # Halves of symmetric matrices, and what stands between them.
    one = peak.seconds(rows * dim * (dim + 1) / 2 / 1e9)
    three = peak.seconds(rows * (dim + narrow) * (dim + narrow + 1) / 2 / 1e9)
    yield least(
        f"{what} x {dim}: numpy's full SVD over avfeat",
        seconds["numpy"] * whole / seconds["one"],
        FASTER,
        f"numpy {seconds['numpy']:.2f} s for {len(seen):,} segments in memory, extrapolated to "
        f"{seconds['numpy'] * whole:.1f} s; avfeat {seconds['one']:.2f} s from {stored}",
        limit=f"the products alone, half of a symmetric matrix, at the GEMM peak: {one:.2f} s",
    )
    yield plain(
        f"{what} x {narrow} and {dim}, each and both: numpy's full SVDs over the command",
        seconds["numpy for both"] * whole / seconds["command"],
        "x",
        f"numpy {seconds['numpy for both']:.2f} s for {len(seen):,} segments of the same three "
        f"matrices in memory, extrapolated to {seconds['numpy for both'] * whole:.1f} s; avfeat "
        f"{seconds['command']:.2f} s from {stored}",
        limit=f"as above, of the joint matrix: {three:.2f} s",
    )
    memory = plain(
        f"{what} x {dim}: peak memory",
        max(peaks) / 1e6,
        "MB",
        "of the whole command, all libraries included",
        limit=f"the rows are {4 * rows * dim / 1e6:.0f} MB, the matrices of both splits "
        f"{2 * 8 * dim**2 / 1e6:.0f} MB",
    )
    yield memory.bounded(PEAK / 1e6)
