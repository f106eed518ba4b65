"""The backbones as plain data, for tables and JSON."""

from __future__ import annotations

from typing import Any

from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, BackboneSpec
from avfeat.extract.weights.manage import describe


def describe_backbones() -> list[dict[str, Any]]:
    """Describe every registered backbone, in registry order."""
    return [_describe(backbones.get(name).spec) for name in backbones.names()]


def _describe(spec: BackboneSpec) -> dict[str, Any]:
    rows = spec.rows(10.0)
    entries = [backbones.get(spec.name).weights_entry(tag) for tag in spec.weights]
    return {
        "name": spec.name,
        "modality": spec.modality,
        "description": spec.description,
        "input": _input(spec),
        "layer": spec.layer,
        "dim": spec.dim,
        "rows_per_10s": rows,
        "parameters": spec.parameters,
        "gmacs_per_10s": round(rows * spec.gmacs_per_item, 2),
        "paper": spec.paper,
        "preprocessing": spec.recipe()["input"],
        "weights": [describe(entry) for entry in entries],
    }


def _input(spec: BackboneSpec) -> str:
    wanted = spec.input
    if isinstance(wanted, AudioInput):
        return (
            f"{wanted.window / wanted.rate:.3g} s at {wanted.rate / 1000:g} kHz, {wanted.front_end}"
        )
    height, width = wanted.geometry.shape
    return (
        f"{wanted.frames} x {height}x{width} RGB" if wanted.frames > 1 else f"{height}x{width} RGB"
    )
