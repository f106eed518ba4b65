"""Tensors of a published file into a network: compared key by key, then loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avfeat.errors import WeightsError
from avfeat.extract.weights.convert import read_converted
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import WeightsEntry

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

_NAMED = 3  # differing keys that a message names; the first few tell which model it is
_OTHER_TYPE = "of another type"
_COUNTER = ".num_batches_tracked"  # not used in inference, nor in all files


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
    for name, entry, path, sha256 in _places(backbone, info):
        module = net.get_submodule(name)
        state = read_converted(path, sha256)
        module.load_state_dict(
            fit(state, module, backbone, entry, path),
            strict=False,  # `fit` is the strict comparison
        )


def identify(info: WeightsInfo, backbone: Backbone) -> WeightsInfo:
    """Say what a network gets from published weights, whichever file they came in.

    Mirrors serve the same weights in files of other bytes: saved anew, under other names, in other
    layouts, without the classifier. `WeightsInfo.tensors` is equal for such files, and for no
    others: it is the SHA-256 of names, types, shapes and values of all tensors that the network
    takes, in the order of the names. ``num_batches_tracked`` has no part in it.

    Parameters
    ----------
    info
        Verified weights, as `avfeat.extract.weights.cache` returns them.
    backbone
        That is to load them. Nothing is built, and nothing is written.

    Raises
    ------
    WeightsError
        A file cannot be read, or its tensors cannot be renamed.
    """
    digest = hashlib.sha256()
    for name, entry, path, sha256 in _places(backbone, info):
        state = arrange(read_converted(path, sha256, keep=False), backbone, entry, path)
        for key in sorted(state):
            if not key.endswith(_COUNTER):
                value = state[key].detach().contiguous()
                kind = [f"{name}.{key}" if name else key, str(value.dtype), list(value.shape)]
                digest.update(json.dumps(kind).encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return replace(info, tensors=digest.hexdigest())


def _places(backbone: Backbone, info: WeightsInfo) -> Iterator[tuple[str, WeightsEntry, Path, str]]:
    """Submodule, entry, path and SHA-256 of each file; ``""`` is the network itself."""
    assert info.tag is not None  # published weights have one
    entry = backbone.weights_entry(info.tag)
    names = [(name, part) for name, part in entry.parts] or [("", entry)]
    infos = [part for _, part in info.parts] or [info]
    for (name, leaf), leaf_info in zip(names, infos, strict=True):
        assert leaf_info.path is not None and leaf_info.sha256 is not None
        yield name, leaf, leaf_info.path, leaf_info.sha256


def fit(
    state: dict[str, Tensor], module: nn.Module, backbone: Backbone, entry: WeightsEntry, path: Path
) -> dict[str, Tensor]:
    """Turn the tensors of a file into those of a network, or say why they are not.

    Keys behind the feature layer (`WeightsEntry.drop`) are left out, and ``num_batches_tracked``
    may be absent, or of any type of integers. All others must match in name, shape and type, both
    ways: halves, doubles or integers where the network has float32 were made from the published
    weights by somebody. Where a layout is published so, `Backbone.from_published` casts.

    Raises
    ------
    WeightsError
        The tensors are of another architecture or type; the first differences are named.
    """
    kept = arrange(state, backbone, entry, path)
    if found := _differences(kept, module.state_dict()):
        only_types = all(_OTHER_TYPE in difference for difference in found)
        wrong = f"{path} does not fit {entry.name}:" if only_types else _wrong(entry, path)
        raise WeightsError(f"{wrong} {'; '.join(found)}")
    return kept


def arrange(
    state: dict[str, Tensor], backbone: Backbone, entry: WeightsEntry, path: Path
) -> dict[str, Tensor]:
    """Rename the tensors of a file as `Backbone.from_published` does; leave the classifier out.

    Raises
    ------
    WeightsError
        They are not what it expects.
    """
    try:
        renamed = backbone.from_published(state)
    except (WeightsError, LookupError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{_wrong(entry, path)} {error}") from error
    return {
        key: value
        for key, value in renamed.items()
        if not any(fnmatchcase(key, pattern) for pattern in entry.drop)
    }


def _wrong(entry: WeightsEntry, path: Path) -> str:
    return f"{path} does not fit {entry.name}: it is of another architecture."


def _differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    kinds = {
        "missing": [k for k in own if k not in state and not k.endswith(_COUNTER)],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} {list(state[k].shape)} instead of {list(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
        _OTHER_TYPE: [
            f"{k} {_type(state[k])} instead of {_type(own[k])}"
            for k in own
            if k in state and not _same_type(k, state[k].dtype, own[k].dtype)
        ],
    }
    return [
        f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{', …' if len(keys) > _NAMED else ''}"
        for what, keys in kinds.items()
        if keys
    ]


def _same_type(key: str, found: torch.dtype, wanted: torch.dtype) -> bool:
    if key.endswith(_COUNTER) and found != torch.bool:
        return not found.is_floating_point and not found.is_complex
    return found == wanted


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
