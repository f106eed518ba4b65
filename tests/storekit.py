"""Small feature stores, written by `StoreWriter` without any network or media."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.unitrows import UnitRows
from avfeat.stores.writer import StoreWriter

DIM = 3

#: (height, width) of rows that are maps.
Map = tuple[int, int] | None


def make_recipe(*, seed: int = 0, **parts: Any) -> Recipe:
    """A recipe with library versions written by hand, so that it never changes."""
    fields: dict[str, Any] = {
        "backbone": {"name": "hand", "layer": "pool", "dim": DIM, "input": {"size": [8, 8]}},
        "weights": {"source": "published", "tag": "v1", "sha256": "0" * 64, "seed": seed},
        "sampling": {"rule": "on-screen", "fps": 8.0},
        "compute": {"engine": "torch", "device": "cpu", "precision": "fp32", "batch_size": 4},
        "store": {"dtype": "float32", "unit_clips": 3},
        "libraries": {"numpy": "2.0.0", "torch": "2.0.0"},
    }
    return Recipe(**{**fields, **parts})


def rows_of(
    clip_id: str, count: int, dim: int = DIM, *, map: Map = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, *map, dim] and times [count] that no other clip has."""
    generator = np.random.default_rng(list(clip_id.encode()))
    features = generator.standard_normal((count, *(map or ()), dim), dtype=np.float32)
    return features, np.arange(count) / 8 + generator.uniform(0, 0.1)


def make_clips(lengths: Sequence[int], *, split: str = "train") -> tuple[Clip, ...]:
    """Clips ``clip_00`` … whose seconds give `lengths` rows at 8 per second (0 taken as 1)."""
    return tuple(
        Clip(f"clip_{number:02d}", 0.0, max(rows, 1) / 8, split, ("Dog",))
        for number, rows in enumerate(lengths)
    )


def make_writer(
    url: object,
    clips: Sequence[Clip],
    *,
    recipe: Recipe | None = None,
    dim: int = DIM,
    unit_clips: int = 3,
    map: Map = None,
) -> StoreWriter:
    """A writer, neither prepared nor opened."""
    return StoreWriter(
        str(url),
        recipe=recipe or make_recipe(),
        sources={"paper": "none"},
        manifest=ClipManifest(
            "handmade", tuple(clips), {}, Path(), ("Dog", "Cat"), {"labels_version": "1"}
        ),
        rows=lambda clip: round(clip.seconds * 8) if math.isfinite(clip.seconds) else 0,
        dim=dim,
        unit_clips=unit_clips,
        map=map,
    )


def commit(writer: StoreWriter, rows: UnitRows, outcomes: Mapping[int, Outcome]) -> None:
    """Commit a unit; `outcomes` by clip index."""
    first = writer.layout.unit_range(rows.unit).start
    settled = {index - first: outcome for index, outcome in outcomes.items()}
    writer.adopt(writer.unit(rows.unit).commit(rows, settled))


def fill_unit(writer: StoreWriter, unit: int, lengths: Mapping[int, int]) -> None:
    """Commit a unit: rows for the clips of `lengths` (by index), the others as they are.

    Length 0 makes a clip missing, length -1 failed.
    """
    with writer.unit(unit).rows() as rows:
        outcomes = {}
        for index, length in lengths.items():
            clip = writer.clips[index]
            if length > 0:
                rows.append(
                    index - writer.layout.unit_range(unit).start,
                    *rows_of(clip.id, length, writer.layout.dim, map=writer.layout.map),
                )
                outcomes[index] = Outcome(
                    "ok",
                    rows=length,
                    media=f"{clip.id}.mp4",
                    media_bytes=1000 + index,
                    media_sha256=f"{index:064x}",
                    media_duration=clip.seconds,
                )
            elif length == 0:
                outcomes[index] = Outcome("missing", message="no media found")
            else:
                outcomes[index] = Outcome("failed", "not_media", "not a video")
        commit(writer, rows, outcomes)


def make_store(
    url: object,
    lengths: Sequence[int],
    *,
    units: Sequence[int] | None = None,
    clips: Sequence[Clip] | None = None,
    recipe: Recipe | None = None,
    dim: int = DIM,
    unit_clips: int = 3,
    map: Map = None,
) -> None:
    """Write a store whose clips have `lengths` rows; see `fill_unit` for lengths 0 and -1.

    `units` are those that are committed, None for all.
    """
    clips = make_clips(lengths) if clips is None else clips
    with make_writer(url, clips, recipe=recipe, dim=dim, unit_clips=unit_clips, map=map) as writer:
        writer.open()
        for unit in range(writer.layout.units) if units is None else units:
            indices = writer.layout.unit_range(unit)
            fill_unit(writer, unit, {index: lengths[index] for index in indices})
        writer.finish()
