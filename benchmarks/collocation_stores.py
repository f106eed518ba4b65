"""All pairs of two audio and six visual backbones, from stores of LLP's size.

Stores are those of the synthetic family, rows averaged per second before they are written: the rows
of eight frames a second would take 40 GB.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avfeat.collocate.candidates import Candidates, gather
from avfeat.collocate.segments import blocks
from avfeat.collocate.session import Settings, collocate
from avfeat.datasets import synthetic
from avfeat.datasets.synthetic import AUDIO, BACKBONES, CLASSES, MOTION, SEGMENTS, VISUAL, Family
from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.writer import StoreWriter
from benchmarks.figure import Figure, plain
from benchmarks.setting import Setting

#: Clips of a smoke test's splits.
QUICK_CLIPS = (12, 8, 8)
#: Seconds that are promised on two cores.
SECONDS = 120.0

_UNIT_CLIPS = 64


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


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure the scores of all pairs, and reading alone."""
    counts = QUICK_CLIPS if setting.quick else synthetic.LLP_CLIPS
    family = Family(clips=counts, width="small" if setting.quick else "real")
    out = setting.fresh("features")
    write(out, family)
    candidates = gather(
        str(out),
        dataset=None,
        audio=[one.name for one in AUDIO],
        visual=[one.name for one in (*VISUAL, *MOTION)],
        motion="none",
    )
    started = time.perf_counter()
    document = collocate(candidates, Settings(method="scores"))
    seconds = time.perf_counter() - started
    reading = _read_once(candidates)
    given = sum(
        score["value"] is not None
        for pair in document["pairs"]
        for score in pair["scores"].values()
    )
    scored = plain(
        f"all pairs of {len(AUDIO)} audio and {len(VISUAL) + len(MOTION)} visual backbones, "
        f"{sum(counts):,} clips: every score",
        seconds,
        "s",
        f"{document['splits']['source']} to {document['splits']['target']}, {given} numbers for "
        f"{len(document['pairs'])} pairs; widths "
        f"{', '.join(str(one.store.dim) for one in candidates.all)}; "
        "one row per second; 1 run",
        limit=f"reading each of the stores once: {reading:.1f} s",
    )
    yield scored.bounded(SECONDS)


def _read_once(candidates: Candidates) -> float:
    """Read what scores are of, source and target, of every store; return seconds."""
    ids = candidates.split("train") + candidates.split("val")
    started = time.perf_counter()
    for one in candidates.all:
        for _ in blocks(one.store, ids, SEGMENTS):
            pass
    return time.perf_counter() - started


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
