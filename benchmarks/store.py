"""A store against one .npy per clip: writing, random clips, a whole epoch.

Rows are those of ResNet-152: float32 [80, 2048] per 10 s clip. Files are in the page cache when
they are read, on both sides. avfeat's side has what the other does not: a time per row, checksums
that are checked, a ledger, and every file flushed to the device (fsync) before it counts.

``python -m benchmarks.store`` runs it alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import avfeat
from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.writer import StoreWriter
from benchmarks.figure import Figure, plain
from benchmarks.limits import bandwidth
from benchmarks.setting import Setting, alone, alternate, counted_runs, medians

ROWS, DIM, UNIT_CLIPS = 80, 2048, 16


def figures(setting: Setting) -> list[Figure]:
    """Measure rates in MB/s of features, and their ratios to those of .npy files."""
    count = 4 if setting.quick else 256
    repeats = setting.repeats(5)
    generator = np.random.default_rng(0)
    # Zeros as a ReLU gives them: what can be compressed is.
    data = np.maximum(generator.standard_normal((count, ROWS, DIM), dtype=np.float32), 0)
    times = np.arange(ROWS) / 8
    clips = tuple(Clip(f"clip{number:04d}", 0.0, ROWS / 8, "train", ()) for number in range(count))
    folder = setting.fresh("store")
    ours, plainly = folder / "store", folder / "npy"

    def write_store() -> float:
        shutil.rmtree(ours, ignore_errors=True)
        started = time.perf_counter()
        _write(ours, clips, data, times)
        return time.perf_counter() - started

    def write_npy() -> float:
        shutil.rmtree(plainly, ignore_errors=True)
        started = time.perf_counter()
        plainly.mkdir()
        for clip, rows in zip(clips, data, strict=True):
            np.save(plainly / f"{clip.id}.npy", rows)
        return time.perf_counter() - started

    ids = [clip.id for clip in clips]
    shuffled = [ids[i] for i in generator.permutation(count)]
    random = [ids[i] for i in generator.integers(0, count, min(count, 64))]

    def read_store(which: Iterable[str]) -> float:
        store = avfeat.open_store(ours, allow_random=True)
        store[ids[0]]  # opened on first use
        started = time.perf_counter()
        for one in which:
            store[one]
        return time.perf_counter() - started

    def read_npy(which: Iterable[str]) -> float:
        started = time.perf_counter()
        for one in which:
            np.load(plainly / f"{one}.npy")
        return time.perf_counter() - started

    writing = medians(alternate({"store": write_store, "npy": write_npy}, repeats=repeats))
    found = [_figure("writing", writing, data.nbytes, repeats, setting)]
    for label, which in (("a random clip", random), ("a whole epoch, shuffled", shuffled)):
        seconds = medians(
            alternate(
                {
                    "store": lambda which=which: read_store(which),  # type: ignore[misc]
                    "npy": lambda which=which: read_npy(which),  # type: ignore[misc]
                },
                repeats=repeats,
            )
        )
        size = len(which) * data[0].nbytes
        found.append(_figure(f"reading {label}", seconds, size, repeats, setting))
    return found


def _figure(
    label: str, seconds: dict[str, float], size: int, repeats: int, setting: Setting
) -> Figure:
    rates = {name: size / spent / 1e6 for name, spent in seconds.items()}
    return plain(
        f"store: {label}, rate over that of one .npy per clip",
        rates["store"] / rates["npy"],
        "x",
        f"store {rates['store']:.0f} MB/s, .npy {rates['npy']:.0f} MB/s, {size / 1e6:.0f} MB in "
        f"clips of {ROWS} x {DIM}, {counted_runs(repeats)}",
        limit=f"memory copied at {bandwidth(setting) / 1e6:.0f} MB/s",
    )


def _write(path: Path, clips: tuple[Clip, ...], data: np.ndarray, times: np.ndarray) -> None:
    recipe = Recipe(
        backbone={"name": "rows", "layer": "none", "dim": DIM},
        weights={"source": "random", "tag": None, "sha256": None, "seed": 0},
        sampling={"rule": "on-screen", "fps": 8.0},
        compute={"engine": "none", "device": "cpu", "precision": "fp32", "batch_size": 1},
        store={"dtype": "float32", "unit_clips": UNIT_CLIPS},
        libraries={},
    )
    with StoreWriter(
        str(path),
        recipe=recipe,
        sources={},
        manifest=ClipManifest("rows", clips, {}, path.parent),
        rows=lambda clip: ROWS,
        dim=DIM,
        unit_clips=UNIT_CLIPS,
    ) as writer:
        writer.open()
        for number in range(-(-len(clips) // UNIT_CLIPS)):
            unit = writer.unit(number)
            with unit.rows() as rows:
                span = writer.layout.unit_range(number)
                for position, index in enumerate(span):
                    rows.append(position, data[index], times)
                done = {position: Outcome("ok", rows=ROWS) for position in range(len(span))}
                writer.adopt(unit.commit(rows, done))
        writer.finish()


if __name__ == "__main__":
    alone(figures, "store", __doc__)
