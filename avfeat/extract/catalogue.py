"""The backbones as plain data, for tables and JSON."""

from __future__ import annotations

import inspect
from typing import Any

from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, Backbone, BackboneSpec
from avfeat.extract.backbones.base import SECOND
from avfeat.extract.weights.manage import describe as describe_weights

_SECONDS = 10.0


def describe_backbones() -> list[dict[str, Any]]:
    """Describe every registered backbone, in registry order."""
    return [describe(backbones.get(name)) for name in backbones.names()]


def describe(backbone: Backbone) -> dict[str, Any]:
    """Describe one backbone or variant; figures are per clip of ten seconds.

    Figures are those of a set of ten-second clips on a CPU. ``adapted`` lists what is otherwise on
    another kind of data set or device, if anything: ``for`` which, and the values there of
    ``rows_per_10s``, ``gmacs_per_10s`` and the fields of ``sampling`` and ``preprocessing`` that
    differ. ``options`` are lists of alternatives, the default first, ``""`` where it has no name;
    ``decided_by`` says of each what decides on the default: ``"data set"``, ``"device"`` or ``""``,
    and ``chosen`` which one this variant has. ``tag`` is that of its weights.
    """
    spec = backbone.spec
    recipe = spec.recipe()
    return {
        "name": spec.name,
        "modality": spec.modality,
        "description": spec.description,
        "input": _input(spec),
        "layer": spec.layer,
        "dim": spec.dim,
        "row_shape": list(spec.row_shape),
        "rows_per_10s": spec.rows(_SECONDS),
        "parameters": spec.parameters,
        "gmacs_per_10s": _gmacs(spec),
        "paper": spec.paper,
        "about": inspect.getdoc(type(backbone)) or "",
        "options": [list(axis) for axis in backbone.alternatives],
        "decided_by": _decided_by(backbone),
        "chosen": _chosen(backbone),
        "tag": backbone.tag or next(iter(spec.weights), None),
        "adapted": _adapted(backbone),
        "preprocessing": recipe["input"],
        "sampling": _sampling(spec),
        "pool": recipe.get("pool"),
        "batch_size": {"cpu": spec.cpu_batch, "cuda": spec.cuda_batch},
        "weights": [describe_weights(backbone.weights_entry(tag)) for tag in spec.weights],
    }


def _gmacs(spec: BackboneSpec) -> float:
    return round(spec.input.items(_SECONDS) * spec.gmacs_per_item, 2)


def _decided_by(backbone: Backbone) -> list[str]:
    axes = backbone.alternatives
    return [*backbone.decided_by, *[""] * (len(axes) - len(backbone.decided_by))]


def _chosen(backbone: Backbone) -> list[str]:
    pooled = [SECOND if backbone.pooled else ""]
    return [*backbone.chosen, *pooled][: len(backbone.alternatives)]


def _adapted(backbone: Backbone) -> list[dict[str, Any]]:
    usual = _figures(backbone.adapted(untrimmed=False, device="cpu").spec)
    kinds = {"untrimmed videos": (True, "cpu"), "CUDA": (False, "cuda")}
    found = []
    for kind, (untrimmed, device) in kinds.items():
        figures = _figures(backbone.adapted(untrimmed=untrimmed, device=device).spec)
        changed = {key: value for key, value in figures.items() if value != usual[key]}
        if changed:
            found.append({"for": kind, **changed})
    return found


def _figures(spec: BackboneSpec) -> dict[str, Any]:
    """Flatten what `Backbone.adapted` may change, under the names that `describe` has for it."""
    settings = {"padding": 0} | spec.recipe()["input"] | (_sampling(spec) or {})
    return {"rows_per_10s": spec.rows(_SECONDS), "gmacs_per_10s": _gmacs(spec), **settings}


def _input(spec: BackboneSpec) -> str:
    wanted = spec.input
    if isinstance(wanted, AudioInput):
        through = f" through {wanted.via / 1000:g} kHz" if wanted.via else ""
        return f"{wanted.window / wanted.rate:.3g} s at {wanted.rate / 1000:g} kHz{through}"
    height, width = wanted.geometry.shape
    content = {"rgb": "RGB", "flow": "flow", "rgb+flow": "RGB + flow"}[wanted.stream]
    picture = f"{height}x{width} {wanted.colour if wanted.stream == 'rgb' else content}"
    picture = f"{wanted.frames} x {picture}" if wanted.frames > 1 else picture
    return f"{picture}, {wanted.fps:g} fps"


def _sampling(spec: BackboneSpec) -> dict[str, Any] | None:
    wanted = spec.input
    if isinstance(wanted, AudioInput):
        return None
    return {"fps": wanted.fps, "rule": wanted.rule or "the data set's"}
