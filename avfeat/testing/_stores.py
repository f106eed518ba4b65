"""The check of backbones from a clip to a store and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from avfeat.extract.backbones import Backbone, BackboneSpec, Extractor, VisualInput
from avfeat.testing._demands import alike, demand
from avfeat.testing.clips import AudioTrack, make_clip

_RULE = "on-screen"
_LONGEST = 60  # seconds of the synthetic clip


def check_store(
    backbone: Backbone, extract: Extractor, folder: Path, *, weights: str, device: str
) -> None:
    """Extract a synthetic clip to a store, whose rows must be those computed directly."""
    from avfeat.extract import session
    from avfeat.extract.plan import Settings
    from avfeat.stores.reader import open_store

    spec = backbone.spec
    clip = _make_clip(spec, folder / "media")
    manifest = session.load_manifest("folder", data=clip.parent, annotations=None)
    settings = Settings(out=str(folder / "features"), device=device, engine="torch", sampling=_RULE)
    with session.open_plan(manifest, [backbone], settings, weights=weights) as plan:
        (task,) = plan.tasks
        report = session.execute(plan)
    crash = "".join(report.crashes.values())
    store = open_store(task.url, allow_random=True)
    outcome = store.outcome(clip.name)
    demand(
        outcome.status == "ok",
        spec,
        f"extracting a synthetic clip ends as {outcome.status}({outcome.kind}): {outcome.message}",
        crash or "Look at its input and at `rows` of the spec",
    )
    rows, times = _directly(spec, extract, task.batch_size, manifest, device)
    stored = store[clip.name]
    (listed,) = manifest.clips
    demand(
        len(rows) == spec.rows(listed.seconds),
        spec,
        f"{listed.seconds:g} s give {len(rows)} rows, its spec says {spec.rows(listed.seconds)}",
        "Let `items` of its input count the complete items of a stream",
    )
    demand(
        stored.shape == (len(rows), *spec.row_shape) and stored.dtype == np.float32,
        spec,
        f"the store holds {stored.dtype} {list(stored.shape)}, not {len(rows)} rows of "
        f"{list(spec.row_shape)}",
        "Correct `dim`, `map` or `pool` of the spec",
    )
    demand(
        alike(stored, rows, exact=extract.device.type == "cpu"),
        spec,
        "rows read back from a store are not those computed directly",
        "Keep no state between calls",
    )
    stamps = store.times(clip.name)
    demand(
        bool(np.all(np.diff(stamps) > 0)) and np.array_equal(stamps, times),
        spec,
        f"the times of its rows do not ascend: {stamps.tolist()}",
        "Check stride and hop of its input",
    )


def _make_clip(spec: BackboneSpec, folder: Path) -> Path:
    """Write a clip with picture and sound that is long enough for two rows."""
    seconds = next((s for s in range(1, _LONGEST + 1) if spec.rows(float(s)) >= 2), None)
    demand(
        seconds is not None,
        spec,
        f"{_LONGEST} s of media give fewer than two rows",
        "Check frames, stride and fps, or window and hop, of its input",
    )
    assert seconds is not None
    folder.mkdir()
    fps = spec.input.fps if isinstance(spec.input, VisualInput) else 8.0
    return make_clip(
        folder / "clip.mkv",
        # A frame of its own for each sample, so that times ascend.
        fps=max(30, math.ceil(fps)),
        duration=float(seconds),
        size=(160, 120),
        audio=AudioTrack([(0.0, seconds, 440.0, 0.4), (0.5, seconds, 97.0, 0.3)], codec="flac"),
    )


def _directly(
    spec: BackboneSpec, extract: Extractor, batch_size: int, manifest: Any, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the rows of the one clip and their times without engine, batcher and store."""
    import torch

    from avfeat.extract.decode import Chunk, ClipJob, decode

    (clip,) = manifest.clips
    path = manifest.media[clip.id]
    chunks: list[Chunk] = []
    decode(ClipJob(clip, path, path.name, (spec,), _RULE, device=device), chunks.append)
    items = torch.from_numpy(np.concatenate([chunk.items for chunk in chunks]))
    times = np.concatenate([chunk.times for chunk in chunks])
    batches = []
    for first in range(0, len(items), batch_size):
        batch = items[first : first + batch_size]
        padding = torch.zeros((batch_size - len(batch), *batch.shape[1:]), dtype=batch.dtype)
        batches.append(extract(torch.cat([batch, padding]))[: len(batch)].numpy())
    rows = np.concatenate(batches)
    if spec.pool == 1:
        return rows, times
    count = len(rows) // spec.pool
    groups = rows[: count * spec.pool].reshape(count, spec.pool, *spec.row_shape)
    means = groups.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means, times[: count * spec.pool].reshape(count, spec.pool).mean(axis=1)
