"""Small stores to collocate: clips of four seconds, three classes, rows of a few features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from avfeat.manifests.clips import Clip, ClipManifest, Event, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.writer import StoreWriter

CLASSES = ("Dog", "Cat", "Car")
SEGMENTS = 4
#: Backbone to modality, features and rows per second.
BACKBONES = {
    "vggish": ("audio", 5, 1),
    "openl3": ("audio", 7, 1),
    "resnet152": ("visual", 6, 2),
    "polynet": ("visual", 8, 2),
    "r2plus1d_18": ("visual", 4, 1),
}

Rows = Callable[[Clip], tuple[np.ndarray, np.ndarray]]


def make_clips(splits: Mapping[str, int], *, events: Sequence[str] = ("val", "test")) -> list[Clip]:
    """Clips ``train_00`` ...; those of splits in `events` have dense labels."""
    clips = []
    for split, count in splits.items():
        for number in range(count):
            rng = np.random.default_rng([len(split), ord(split[0]), number])
            labels = [CLASSES[c] for c in sorted(rng.choice(3, rng.integers(1, 3), replace=False))]
            found = []
            for label in labels:
                onset = int(rng.integers(SEGMENTS - 1))
                offset = int(rng.integers(onset + 1, SEGMENTS + 1))
                kinds = [("audio",), ("visual",), ("audio", "visual")][rng.integers(3)]
                found += [Event(modality, label, onset, offset) for modality in kinds]
            dense = tuple(found) if split in events else ()
            clips.append(Clip(f"{split}_{number:02d}", 0.0, SEGMENTS, split, tuple(labels), dense))
    return clips


def drawn_rows(name: str, modality: str, dim: int, per_second: int) -> Rows:
    """Non-negative features that know the clip's labels and, where there are any, its events."""
    basis = np.random.default_rng(list(name.encode())).normal(size=(3 + SEGMENTS, dim))

    def rows(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([*name.encode(), *clip.id.encode()])
        count = SEGMENTS * per_second
        times = (np.arange(count) + 0.5) / per_second
        latent = 0.3 * rng.normal(size=(count, 3 + SEGMENTS))
        for label in clip.labels:
            latent[:, CLASSES.index(label)] += 1
        for event in clip.events:
            if event.modality == modality:
                heard = (times >= event.onset) & (times < event.offset)
                latent[heard, CLASSES.index(event.label)] += 2
        values = np.maximum(latent @ basis + 0.5, 0).astype(np.float32)
        return values, times

    return rows


def make_store(
    url: Path,
    name: str,
    clips: Sequence[Clip],
    rows: Rows,
    *,
    modality: str,
    dim: int,
    dataset: str = "llp",
    source: str = "published",
    classes: Sequence[str] = CLASSES,
    without: Sequence[str] = (),
    layer: str = "pool",
    map: tuple[int, int] | None = None,
) -> None:
    """Write one store; clips in `without` are missing."""
    recipe = Recipe(
        backbone={"name": name, "modality": modality, "layer": layer, "dim": dim, "input": {}},
        weights={"source": source, "tag": "v1", "sha256": "0" * 64, "seed": 0},
        sampling={"rule": "on-screen"},
        compute={"engine": "torch"},
        store={"dtype": "float32", "unit_clips": 64},
        libraries={"numpy": "2.0.0"},
    )
    manifest = ClipManifest(dataset, tuple(clips), {}, Path(), tuple(classes), {})
    with StoreWriter(
        str(url),
        recipe=recipe,
        sources={},
        manifest=manifest,
        rows=lambda clip: 8 * SEGMENTS,
        dim=dim,
        unit_clips=64,
        map=map,
    ) as writer:
        writer.open()
        for number in range(writer.layout.units):
            unit = writer.unit(number)
            with unit.rows() as open_rows:
                outcomes = {}
                for position, index in enumerate(writer.layout.unit_range(number)):
                    clip = writer.clips[index]
                    if clip.id in without:
                        outcomes[position] = Outcome("missing")
                        continue
                    features, times = rows(clip)
                    open_rows.append(position, features, times)
                    outcomes[position] = Outcome("ok", rows=len(features))
                writer.adopt(unit.commit(open_rows, outcomes))
        writer.finish()


def make_family(
    root: Path,
    clips: Sequence[Clip],
    *,
    names: Sequence[str] = tuple(BACKBONES),
    dataset: str = "llp",
    source: str = "published",
    without: Mapping[str, Sequence[str]] = {},
    rows: Mapping[str, Rows] = {},
    classes: Sequence[str] = CLASSES,
) -> str:
    """Write stores of some backbones to ``root/<dataset>/<name>``; return the root."""
    for name in names:
        modality, dim, per_second = BACKBONES[name]
        make_store(
            root / dataset / name,
            name,
            clips,
            rows.get(name) or drawn_rows(name, modality, dim, per_second),
            modality=modality,
            dim=dim,
            dataset=dataset,
            source=source,
            without=without.get(name, ()),
            classes=classes,
        )
    return str(root)
