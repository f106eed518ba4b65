"""Writing the synthetic family to stores, one per backbone, and its truth beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from avfeat.datasets.synthetic import (
    BACKBONES,
    CLASSES,
    NAME,
    SEGMENTS,
    SPLITS,
    VERSION,
    Family,
    SyntheticBackbone,
)
from avfeat.errors import ReadError, StoreError
from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe
from avfeat.stores.files import Files
from avfeat.stores.state import RUNS
from avfeat.stores.writer import StoreWriter

TRUTH = "truth.json"

_UNIT_CLIPS = 32


def write(
    family: Family,
    out: str,
    *,
    clip_done: Callable[[Clip], None] | None = None,
) -> list[dict[str, Any]]:
    """Write the family to ``<out>/synthetic/<backbone>``, and its truth to ``truth.json`` there.

    Clips are drawn one by one, so memory does not grow with their number. What a killed run had
    committed is kept; a family that is there whole is left as it is. The same family gives the same
    bytes wherever and whenever it is drawn, with one version of numpy.

    Parameters
    ----------
    family
        What to write.
    out
        Path or fsspec URL of the folder of stores.
    clip_done
        Told of each clip that was drawn for all backbones.

    Returns
    -------
    list of dict
        ``store``, ``backbone``, ``modality``, ``clips``, ``rows`` and ``dim`` of each.

    Raises
    ------
    StoreError
        If another family, or other features than synthetic ones, are there.
    StoreBusyError
        If another process is writing them.
    WriteError
        If they cannot be written.
    """
    folder = f"{out.rstrip('/')}/{NAME}"
    files = Files(folder)
    told = _check_truth(family, files)
    with ExitStack() as stack:
        writers = {
            backbone: stack.enter_context(_writer(family, backbone, folder))
            for backbone in BACKBONES
        }
        for writer in writers.values():
            writer.prepare()
            if writer.clips != family.manifest_clips:
                raise StoreError(
                    f"{writer.files} holds other clips than the family's; delete {folder}, or "
                    "choose another folder with --out"
                )
        if not told:
            # Before the stores: whoever finds some of them knows what they are.
            files.write(TRUTH, _truth_file(family))
            files.remove(RUNS)  # where it was written first
        for writer in writers.values():
            writer.open()
        layout = writers[BACKBONES[0]].layout
        for unit in range(layout.units):
            drawn = [_write_unit(family, *pair, unit) for pair in writers.items()]
            if any(drawn) and clip_done is not None:
                for index in layout.unit_range(unit):
                    clip_done(family.manifest_clips[index])
        for writer in writers.values():
            writer.finish()
    return [
        {
            "store": f"{folder}/{backbone.name}",
            "backbone": backbone.name,
            "modality": backbone.modality,
            "clips": sum(family.clips),
            "rows": sum(family.clips) * SEGMENTS * backbone.rows,
            "dim": backbone.dim(family.width),
        }
        for backbone in BACKBONES
    ]


def command(out: str) -> str:
    """Give the command that writes what is missing of the family whose truth is at ``out``."""
    options = ""
    try:
        truth = json.loads(Files(f"{out.rstrip('/')}/{NAME}").read(TRUTH))
        clips = ",".join(str(truth["clips"][split]) for split in SPLITS)
        options = f" --clips {clips} --width {truth['width']} --seed {truth['seed']}"
    except (FileNotFoundError, ReadError, ValueError, KeyError, TypeError):
        pass  # without a truth that can be read, it is any family's
    return f"avfeat datasets synthesize --out {out}{options}"


def size_bytes(family: Family) -> int:
    """Say how much the features of all stores are, in bytes."""
    row_bytes = sum(4 * backbone.rows * backbone.dim(family.width) for backbone in BACKBONES)
    return sum(family.clips) * SEGMENTS * row_bytes


def _truth_file(family: Family) -> bytes:
    return (json.dumps(family.truth(), indent=1) + "\n").encode()


def _check_truth(family: Family, files: Files) -> bool:
    """Whether the family's truth stands there already; refuse another one."""
    if not files.exists(TRUTH):
        return False
    content, wanted = files.read(TRUTH), _truth_file(family)
    if content == wanted:
        return True
    try:
        there = json.loads(content)
    except ValueError:
        there = None
    truth = json.loads(wanted)
    changed = [
        f"  {key}: {there.get(key)!r} there, {truth[key]!r} now"
        for key in ("seed", "clips", "width", "version")
        if isinstance(there, dict) and there.get(key) != truth[key]
    ]
    raise StoreError(
        "\n".join(
            [
                f"{files} holds another synthetic family, by its {TRUTH}:",
                *(changed or ["  what it says was changed"]),
                f"delete {files}, or choose another folder with --out",
            ]
        )
    )


def _writer(family: Family, backbone: SyntheticBackbone, folder: str) -> StoreWriter:
    rows = SEGMENTS * backbone.rows
    return StoreWriter(
        f"{folder}/{backbone.name}",
        recipe=_recipe(family, backbone),
        sources={"about": "Drawn by `avfeat datasets synthesize`: no network and no media."},
        manifest=ClipManifest(
            NAME, family.manifest_clips, {}, Path(), CLASSES, {"labels_version": f"v{VERSION}"}
        ),
        rows=lambda _: rows,
        dim=backbone.dim(family.width),
        unit_clips=_UNIT_CLIPS,
    )


def _recipe(family: Family, backbone: SyntheticBackbone) -> Recipe:
    """Write down what the rows of a backbone come from: nothing in it is a real network's."""
    return Recipe(
        backbone={
            "name": backbone.name,
            "modality": backbone.modality,
            "layer": "synthetic",
            "dim": backbone.dim(family.width),
            "input": {"quality": list(backbone.quality), "context": backbone.context},
        },
        weights={
            "source": "synthetic",
            "tag": None,
            "sha256": None,
            "seed": family.seed,
            "method": f"avfeat-synthetic-v{VERSION}",
            "parameters": family.parameters,
        },
        sampling={"rows_per_second": backbone.rows},
        compute={"engine": "numpy", "device": "cpu", "precision": "fp32"},
        store={"dtype": "float32", "unit_clips": _UNIT_CLIPS},
        libraries={"numpy": np.__version__},
    )


def _write_unit(
    family: Family, backbone: SyntheticBackbone, writer: StoreWriter, number: int
) -> bool:
    """Draw and commit a unit; False if it is committed already."""
    clips = writer.layout.unit_range(number)
    if all(writer.outcomes[index].status == "ok" for index in clips):
        return False
    unit = writer.unit(number)
    with unit.rows() as rows:
        outcomes = {}
        for position, index in enumerate(clips):
            if writer.outcomes[index].status == "ok":
                continue
            split, _, place = writer.clips[index].id.partition("_")
            features, times = family.features(backbone, split, int(place))
            rows.append(position, features, times)
            outcomes[position] = Outcome("ok", rows=len(features))
        writer.adopt(unit.commit(rows, outcomes))
    return True
