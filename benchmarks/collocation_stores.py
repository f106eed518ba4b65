"""All pairs of two audio and six visual backbones, from stores of LLP's size.

Stores are those of the synthetic family. The rows of eight frames a second of all LLP would take
40 GB, so all of LLP is written as rows averaged per second, and a tenth of it as it is extracted.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avfeat.collocate.segments import blocks
from avfeat.datasets import synthetic, synthetic_stores
from avfeat.datasets.synthetic import AUDIO, BACKBONES, CLASSES, MOTION, SEGMENTS, VISUAL, Family
from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.reader import open_store
from avfeat.stores.writer import StoreWriter
from benchmarks.collocation_command import collocate
from benchmarks.figure import Figure, plain
from benchmarks.setting import Setting

#: Clips of a smoke test's splits.
QUICK_CLIPS = (12, 8, 8)
#: Seconds that are promised on two cores.
SECONDS = 120.0

_UNIT_CLIPS = 64
#: Of LLP's clips, written with all of their rows.
_PART = 10


def llp_sized(setting: Setting, *, part: int = 1) -> Family:
    """Return a family of LLP's clips, or of one in `part` of them; small in a smoke test."""
    if setting.quick:
        return Family(clips=QUICK_CLIPS)
    train, val, test = (count // part for count in synthetic.LLP_CLIPS)
    return Family(clips=(train, val, test), width="real")


def write(out: Path, family: Family) -> None:
    """Write a store of every backbone of the family, one row per second."""
    clips = family.manifest_clips
    for backbone in BACKBONES:
        with _writer(out, backbone.name, backbone.modality, clips, backbone.dim(family.width)) as w:
            w.open()
            for number in range(w.layout.units):
                unit = w.unit(number)
                span = w.layout.unit_range(number)
                with unit.rows() as rows:
                    for position, index in enumerate(span):
                        split, _, place = clips[index].id.partition("_")
                        drawn, _ = family.features(backbone, split, int(place))
                        by_second = drawn.reshape(SEGMENTS, backbone.rows, -1).mean(axis=1)
                        rows.append(position, by_second, np.arange(SEGMENTS) + 0.5)
                    done = {place: Outcome("ok", rows=SEGMENTS) for place in range(len(span))}
                    w.adopt(unit.commit(rows, done))
            w.finish()


def figures(setting: Setting, stores: Path) -> Iterator[Figure]:
    """Measure the command with its defaults, intervals included; and reading alone."""
    family = llp_sized(setting)
    yield _all_pairs(stores, family, "one row per second").bounded(SECONDS)
    family = llp_sized(setting, part=_PART)
    folder = setting.fresh("rows")
    synthetic_stores.write(family, str(folder))
    yield _all_pairs(folder, family, "as extracted, eight rows per second of frame networks")
    shutil.rmtree(folder)


def _all_pairs(stores: Path, family: Family, rows: str) -> Figure:
    visual = [one.name for one in (*VISUAL, *MOTION)]
    spent, size = _read_once(stores)  # first, so that nobody measures the disk
    ran = collocate(stores, "--audio", "all", "--visual", ",".join(visual), "--motion", "none")
    given = sum(
        score["value"] is not None
        for pair in ran.document["pairs"]
        for score in pair["scores"].values()
    )
    splits = ran.document["splits"]
    return plain(
        f"all pairs of {len(AUDIO)} audio and {len(visual)} visual backbones, "
        f"{sum(family.clips):,} clips, {rows}",
        ran.seconds,
        "s",
        f"every score with intervals, {splits['source']} to {splits['target']}, {given} numbers "
        f"for {len(ran.document['pairs'])} pairs; widths "
        f"{', '.join(str(one.dim(family.width)) for one in BACKBONES)}; peak memory "
        f"{ran.peak / 1e6:.0f} MB; {os.cpu_count()} cores; "
        "stores in the page cache; the whole command, 1 run",
        limit=f"reading each of the stores once in one thread: {spent:.1f} s for "
        f"{size / 1e9:.1f} GB",
    )


def _read_once(stores: Path) -> tuple[float, float]:
    """Read what scores are of, source and target, of every store; return seconds and bytes."""
    size, started = 0, time.perf_counter()
    for backbone in BACKBONES:
        store = open_store(stores / synthetic.NAME / backbone.name)
        ids = [*store.ids(split="train"), *store.ids(split="val")]
        size += sum(store.outcome(clip_id).rows for clip_id in ids) * store.dim * 4
        for _ in blocks(store, ids, SEGMENTS, size=400):
            pass
    return time.perf_counter() - started, size


def _writer(out: Path, name: str, modality: str, clips: tuple[Clip, ...], dim: int) -> StoreWriter:
    recipe = Recipe(
        backbone={"name": name, "modality": modality, "layer": "none", "dim": dim},
        weights={"source": "synthetic", "tag": None, "sha256": None, "seed": 0},
        sampling={"rows_per_second": 1},
        compute={"engine": "none", "device": "cpu", "precision": "fp32", "batch_size": 1},
        store={"dtype": "float32", "unit_clips": _UNIT_CLIPS},
        libraries={},
    )
    return StoreWriter(
        f"{out}/{synthetic.NAME}/{name}",
        recipe=recipe,
        sources={},
        manifest=ClipManifest(synthetic.NAME, clips, {}, Path(), CLASSES),
        rows=lambda clip: SEGMENTS,
        dim=dim,
        unit_clips=_UNIT_CLIPS,
    )
