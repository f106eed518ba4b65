"""Where the time goes: seconds per clip by stage, for each backbone and for all together.

``make bench`` runs it on real clips where ../shared/media is there, else on synthetic ones, with
random weights (the arithmetic is the same). Numbers are of this machine and this moment; compare
columns within one run only.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from avfeat import render
from avfeat.extract import backbones, session
from avfeat.extract.engine import RunReport
from avfeat.extract.plan import Settings
from avfeat.testing.clips import AudioTrack, make_clip

SHARED = Path(__file__).resolve().parents[2] / "shared" / "media"


def collect_clips(folder: Path, count: int) -> None:
    """Lay `count` clips of about 10 s into `folder`."""
    real = SHARED / "BjCEufrlXm4.mp4"
    for number in range(count):
        path = folder / f"clip{number:03d}.mp4"
        if real.exists():
            shutil.copyfile(real, path)
        else:
            sound = AudioTrack([(0.0, 10.0, 440.0, 0.3)], gains=(1.0, 1.0))
            make_clip(path, fps=30, size=(320, 240), audio=sound)


def measure(names: Sequence[str], media: Path, out: Path, workers: int) -> RunReport:
    """Extract every clip in `media` with the backbones `names` into a fresh store."""
    manifest = session.load_manifest("folder", data=media, annotations=None)
    settings = Settings(out=str(out), sampling="avvp", decoders=workers)
    with session.open_plan(manifest, backbones.select(names), settings, weights="random") as plan:
        return session.execute(plan)


def row(name: str, report: RunReport) -> list[str]:
    """One line of the table: seconds per clip, and the model's share of wall time."""
    forward = sum(report.forward.values())
    stages = [report.seconds["decode"], report.seconds["transform"], forward]
    stages += [report.seconds["write"], report.seconds["wait"], report.wall]
    return [name, *(f"{value / report.clips:.3f}" for value in stages), f"{report.model_share:.1%}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--clips", type=int, default=4, help="clips per run (default 4)")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--backbones", default="all", help="names, comma-separated (default all)")
    options = parser.parse_args()
    names = [backbone.spec.name for backbone in backbones.select(options.backbones)]
    runs = [[name] for name in names] + ([names] if len(names) > 1 else [])
    console, talk = Console(width=120), Console(stderr=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder, "media")
        media.mkdir()
        collect_clips(media, options.clips)
        for number, group in enumerate(runs):
            label = group[0] if len(group) == 1 else "all, one decode"
            talk.print(f"{label} …", markup=False)
            report = measure(group, media, Path(folder, f"run{number}"), options.workers)
            rows.append(row(label, report))
    render.table(
        console,
        f"seconds per 10 s clip, {options.clips} clips, {options.workers} decoding threads",
        (
            "backbone",
            "decode #",
            "transform #",
            "forward #",
            "write #",
            "wait #",
            "wall #",
            "model #",
        ),
        rows,
    )
    console.print(
        "decode (with colour conversion) and transform run in threads beside the model; wait is "
        "what the model waited for them; model is forward / wall.\n"
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads; loading the networks is not counted"
    )


if __name__ == "__main__":
    main()
