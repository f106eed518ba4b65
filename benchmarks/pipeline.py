"""Pipeline efficiency: wall time of an extraction over that of the same forwards in memory.

The forwards in memory are a share of the batches that the extraction makes, half of them run right
before it and half right after, and scaled to all: so both sides see the same machine. Networks are
loaded and prepared outside the timed part.

``python -m benchmarks.pipeline`` runs it alone.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from avfeat.extract.plan import Plan
from avfeat.extract.run import RunReport, run
from avfeat.extract.weights.random import smooth_items
from benchmarks import together
from benchmarks.figure import Figure, most
from benchmarks.limits import decode_seconds
from benchmarks.setting import TINY, Setting, alone, counted_runs

TARGET = 1.08
CORES = os.cpu_count() or 1


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure resnet152, in bfloat16 too, and all backbones that need no optical flow."""
    if setting.quick:
        yield _efficiency(setting, TINY[0], TINY[:1], clips=2, repeats=1, share=1.0)
        return
    repeats = setting.repeats(5)
    for precision in setting.precisions:
        if precision in ("fp32", "bf16"):
            yield _efficiency(
                setting,
                f"resnet152, {precision}",
                ["resnet152"],
                clips=32,
                repeats=repeats,
                precision=precision,
            )
    setting.forget()
    # A run takes a quarter of an hour on two cores, with clips of 10 s it would take five of them.
    few = max(1, repeats // 2)
    names = together.names(setting)
    yield _efficiency(
        setting, "all backbones, fp32", names, clips=32, seconds=2.0, repeats=few, share=0.1
    )
    setting.forget()


def _efficiency(
    setting: Setting,
    label: str,
    names: Sequence[str],
    *,
    clips: int,
    repeats: int,
    seconds: float = 10.0,
    precision: str = "fp32",
    share: float = 0.25,
) -> Figure:
    media = setting.clips(clips, seconds=seconds)
    setting.extract(names, setting.clips(1), precision=precision)  # loads and prepares
    ratios, report, forwards = [], RunReport(), 0.0
    for _ in range(repeats):
        report, forwards = _once(setting, names, media, precision=precision, share=share)
        ratios.append(report.wall / forwards)
    with ExitStack() as stack:
        specs = tuple(task.spec for task in setting.open(stack, names, media).tasks)
    decoding = decode_seconds(media / "clip0000.mp4", specs, seconds=seconds, repeats=3) * clips
    stages = report.figures.stages
    took = ", ".join(
        f"{name} {f.busy:.1f} s busy, {f.starved:.1f} s starved" for name, f in stages.items()
    )
    return most(
        f"pipeline: {label}, wall over forwards in memory",
        statistics.median(ratios),
        TARGET,
        f"{clips} clips of {seconds:g} s, {counted_runs(repeats)}; the last one: "
        f"wall {report.wall:.1f} s, in memory {forwards:.1f} s (of {share:.0%} of the batches), "
        f"{took}",
        limit=f"decoding and geometry alone {decoding:.1f} s of one core: spread over {CORES} "
        f"cores that forwards keep busy, {1 + decoding / CORES / forwards:.3f}",
    )


def _once(
    setting: Setting, names: Sequence[str], media: Path, *, precision: str, share: float
) -> tuple[RunReport, float]:
    with ExitStack() as stack:
        plan = setting.open(stack, names, media, precision=precision)
        networks = setting.networks(plan)
        batches = _batches(plan)

        def in_memory() -> float:
            """Run half of the share, and scale it to all of half."""
            spent = 0.0
            for task in plan.tasks:
                every = batches[task.spec.name] / 2
                some = max(1, round(every * share))
                generator = torch.Generator().manual_seed(0)
                items = smooth_items(task.spec.input, task.batch_size, generator)
                started = time.perf_counter()
                for _ in range(some):
                    networks[task.spec.name](items)()
                spent += (time.perf_counter() - started) * every / some
            return spent

        before = in_memory()
        report = run(plan, networks)
        return report, before + in_memory()


def _batches(plan: Plan) -> dict[str, int]:
    """Batches of each backbone: those of a unit are filled, its last one padded."""
    found = {}
    for task in plan.tasks:
        unit_clips = task.writer.layout.unit_clips
        seconds = [clip.seconds for clip in task.writer.clips]
        units = [seconds[i : i + unit_clips] for i in range(0, len(seconds), unit_clips)]
        found[task.spec.name] = sum(
            math.ceil(sum(task.spec.input.items(one) for one in unit) / task.batch_size)
            for unit in units
        )
    return found


if __name__ == "__main__":
    alone(figures, "pipeline", __doc__)
