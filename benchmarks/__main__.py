"""All benchmarks, or some: ``python -m benchmarks --only media,forward``.

Every figure is a ratio measured in one run, its sides taking turns, or stands beside one. Results
go to benchmarks/results/latest.json and into docs/benchmarks.md as they come, those of collocation
into docs/collocation.md too; what was not measured now keeps its figures of before, with their
date. ``--quick`` only sees that everything runs, and writes nothing.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import cv2
import torch

from avfeat.testing.clips import make_clip
from benchmarks import media, report
from benchmarks.figure import Figure
from benchmarks.setting import REAL, Section, Setting, parser, show, wait_for_quiet

#: Sections in the order they run and are shown, those that other programs disturb most first.
SECTIONS = (
    "limits",
    "media",
    "forward",
    "reference",
    "together",
    "pipeline",
    "cluster",
    "store",
    "collocation",
    "memory",
)


def section(name: str) -> Section:
    """Return what measures a section."""
    if name == "media":
        return media_figures
    found: Section = importlib.import_module(f"benchmarks.{name}").figures
    return found


def media_figures(setting: Setting) -> list[Figure]:
    """`benchmarks.media`, whose contenders all have their own threads and nobody else's."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        if not setting.quick:
            return media.figures(setting.fresh("synthetic"), runs=setting.repeats(7))
        clip = make_clip(setting.fresh("synthetic") / "clip.mp4", fps=10, size=(128, 96))
        return [media.compare(clip, threads=1, runs=1)]
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def not_measured(setting: Setting) -> list[str]:
    """Say what this machine cannot show."""
    found = []
    if not torch.cuda.is_available():
        found.append(
            "GPU: there is none here (`--device cuda` runs limits, forward, reference, together "
            "and pipeline on one)."
        )
    if not REAL.exists():
        found.append("real clips: ../shared/media is not there, synthetic ones stand in.")
    if setting.device == "cpu" and "bf16" not in setting.precisions:
        found.append("bfloat16: the processor has none.")
    return found


def main() -> None:
    """Measure, print and write."""
    options_of = parser("benchmarks", __doc__)
    options_of.add_argument("--only", help=f"sections, comma-separated, of {', '.join(SECTIONS)}")
    options = options_of.parse_args()
    chosen = options.only.split(",") if options.only else list(SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            options_of.error(f"unknown section {name!r}; known: {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory(prefix="avfeat-bench-") as folder:
        setting = Setting(
            Path(folder), quick=options.quick, runs=options.runs, device=options.device
        )
        for name in chosen:
            print(f"{name} …", flush=True)
            load = wait_for_quiet(options.wait)
            for figure in section(name)(setting):
                show(figure)
                if not setting.quick:  # at once: a run that is broken off leaves what it has
                    found = report.record(name, figure, load=load)
                    report.write([found], order=SECTIONS, not_measured=not_measured(setting))


if __name__ == "__main__":
    main()
