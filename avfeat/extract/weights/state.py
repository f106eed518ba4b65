"""Tensors of a published file into a network: compared key by key, then loaded."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from avfeat.errors import WeightsError
from avfeat.extract.weights.convert import read_converted
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import WeightsEntry

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

_NAMED = 3  # differing keys that a message names; the first few tell which model it is


def load_weights(net: nn.Module, backbone: Backbone, info: WeightsInfo) -> None:
    """Load published weights into a network that was cut at its feature layer.

    Parameters
    ----------
    net
        What `Backbone.build` gave. Weights of several parts go to its submodules of these names.
    backbone
        Renames what the file holds, see `Backbone.from_published`.
    info
        Verified weights, as `avfeat.extract.weights.cache` returns them.

    Raises
    ------
    WeightsError
        A file cannot be read or is of another architecture; the first differences are named.
    """
    assert info.tag is not None  # published weights have one
    entry = backbone.weights_entry(info.tag)
    places = (
        [
            (net.get_submodule(name), part, part_info)
            for (name, part), (_, part_info) in zip(entry.parts, info.parts, strict=True)
        ]
        if entry.parts
        else [(net, entry, info)]
    )
    for module, leaf, leaf_info in places:
        assert leaf_info.path is not None and leaf_info.sha256 is not None
        state = read_converted(leaf_info.path, leaf_info.sha256)
        module.load_state_dict(
            fit(state, module, backbone, leaf, leaf_info.path),
            strict=False,  # `fit` is the strict comparison
        )


def fit(
    state: dict[str, Tensor], module: nn.Module, backbone: Backbone, entry: WeightsEntry, path: Path
) -> dict[str, Tensor]:
    """Turn the tensors of a file into those of a network, or say why they are not.

    Keys behind the feature layer (`WeightsEntry.drop`) are left out, and ``num_batches_tracked``
    may be absent. All others must match in name and shape, both ways.

    Raises
    ------
    WeightsError
        The tensors are of another architecture; the first differences are named.
    """
    wrong = f"{path} does not fit {entry.name}: it is of another architecture."
    try:
        renamed = backbone.from_published(state)
    except (WeightsError, LookupError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{wrong} {error}") from error
    kept = {
        key: value
        for key, value in renamed.items()
        if not any(fnmatchcase(key, pattern) for pattern in entry.drop)
    }
    if found := _differences(kept, module.state_dict()):
        raise WeightsError(f"{wrong} {'; '.join(found)}")
    return kept


def _differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    kinds = {
        "missing": [k for k in own if k not in state and not k.endswith(".num_batches_tracked")],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} {list(state[k].shape)} instead of {list(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    return [
        f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{', …' if len(keys) > _NAMED else ''}"
        for what, keys in kinds.items()
        if keys
    ]
