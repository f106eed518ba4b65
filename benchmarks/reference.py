"""One backbone, end to end, against the plain loop of `benchmarks.labs`.

Networks are loaded and prepared outside the timed part on both sides. The loop takes one clip at a
time, so one clip is all that it is timed on; avfeat takes one to six, decoding processes started
with the clock running. Ratios are of seconds per clip. Runs alternate.

``python -m benchmarks.reference`` runs it alone.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from avfeat.extract import backbones
from benchmarks.figure import Figure, least
from benchmarks.labs import Loop
from benchmarks.limits import Peak, decode_seconds, gemm_peak
from benchmarks.setting import TINY, Setting, alone, alternate, counted_runs, medians

#: Backbones, and how many clips avfeat extracts in a repetition.
CLIPS = {"resnet152": 2, "vgg19_bn": 1, "senet154": 1, "polynet": 1, "r2plus1d_18": 6}
TARGETS = {"fp32": 1.8, "bf16": 3.2}


def loop_seconds(loop: Loop, clip: Path) -> float:
    """Time the loop on one clip."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        loop(clip, Path(folder))
        return time.perf_counter() - started


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure each backbone in float32, and in bfloat16 where the device has it."""
    precisions = [precision for precision in setting.precisions if precision in TARGETS]
    peaks = {precision: gemm_peak(setting, precision) for precision in precisions}
    for name, clips in {TINY[0]: 1}.items() if setting.quick else CLIPS.items():
        yield from _compare(setting, name, clips, peaks)
        setting.forget()
        gc.collect()


def _compare(setting: Setting, name: str, clips: int, peaks: dict[str, Peak]) -> list[Figure]:
    repeats = setting.repeats(5)
    backbone = backbones.get(name)
    # As many clips in bfloat16, which is twice as fast, make as long a run.
    media = {
        precision: setting.clips(clips if precision == "fp32" else max(clips, 2))
        for precision in peaks
    }
    clip = media["fp32"] / "clip0000.mp4"
    loop = Loop(backbone, setting.device)

    def ours(precision: str) -> float:
        report = setting.extract([name], media[precision], precision=precision)
        return report.wall / report.figures.clips

    for precision in peaks:  # loads and prepares the networks
        if precision == "fp32" or not setting.quick:
            setting.extract([name], setting.clips(1), precision=precision)
    contenders = {precision: partial(ours, precision) for precision in peaks}
    seconds = medians(
        alternate({"loop": partial(loop_seconds, loop, clip), **contenders}, repeats=repeats)
    )
    decoding = decode_seconds(clip, (backbone.spec,), repeats=repeats)
    rows = backbone.spec.rows(10.0) * backbone.spec.pool
    return [
        least(
            f"{name} end to end, {precision}, against the loop",
            seconds["loop"] / seconds[precision],
            TARGETS[precision],
            f"seconds per clip: loop {seconds['loop']:.2f}, avfeat {seconds[precision]:.2f} "
            f"({len(list(media[precision].iterdir()))} clips a run), {counted_runs(repeats)}",
            limit=f"at the GEMM peak {peak.seconds(rows * backbone.spec.gmacs_per_item):.2f} s, "
            f"decoding and geometry alone {decoding:.2f} s",
        )
        for precision, peak in peaks.items()
    ]


if __name__ == "__main__":
    alone(figures, "reference", __doc__)
