"""All benchmarks, or some: ``python -m benchmarks --only media,forward``.

Every figure is a ratio measured in one run, its sides taking turns, or stands beside one. Results
go to benchmarks/results/latest.json and into docs/benchmarks.md as they come, those of collocation
into docs/collocation.md too; what was not measured now keeps its figures of before, with their
date and machine. ``--quick`` only sees that everything runs, and writes nothing.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import torch

from benchmarks import report
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
    found: Section = importlib.import_module(f"benchmarks.{name}").figures
    return found


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
                    found = report.record(name, figure, load=load, device=setting.device)
                    report.write([found], order=SECTIONS, not_measured=not_measured(setting))


if __name__ == "__main__":
    main()
