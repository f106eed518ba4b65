"""From a published file to a network: read without running code, compared key by key, loaded."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avfeat.errors import WeightsError
from avfeat.extract.weights.registry import WeightsEntry

# What torch's reader raises on bytes that are no torch file, besides its own errors: it trusts the
# opcodes it meets.
_UNREADABLE = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_NAMED = 3  # differing keys that a message names; the first few tell which model it is


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a torch file; pickled code in it is refused, never run.

    Raises
    ------
    WeightsError
        The file is no torch file, is damaged, or holds anything but named tensors.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path} is no file of plain tensors and was not loaded (code in a weights file is "
            f"never run): {_reason(error)}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is no state dict: it holds {type(state).__name__}")
    return dict(state)


def load_state(net: nn.Module, path: Path, entry: WeightsEntry) -> None:
    """Load a published file into a network that was cut at its feature layer.

    Keys behind that layer (`WeightsEntry.drop`) are left out, and ``num_batches_tracked`` may be
    absent. All others must match in name and shape, both ways.

    Raises
    ------
    WeightsError
        The file cannot be read or is of another architecture; the first differences are named.
    """
    state = {
        key: value
        for key, value in read_state(path).items()
        if not any(fnmatchcase(key, pattern) for pattern in entry.drop)
    }
    own = net.state_dict()
    absent = own.keys() - state.keys()
    differences = {
        "missing": [k for k in own if k in absent and not k.endswith(".num_batches_tracked")],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} {list(state[k].shape)} instead of {list(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    found = [
        f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{', …' if len(keys) > _NAMED else ''}"
        for what, keys in differences.items()
        if keys
    ]
    if found:
        raise WeightsError(
            f"{path} does not fit {entry.name}: it is of another architecture. {'; '.join(found)}"
        )
    net.load_state_dict(state, strict=False)  # the comparison above is the strict one


def _reason(error: BaseException) -> str:
    # torch wraps the cause in advice on how to run the code anyway, which is not passed on.
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].splitlines()
    causes = [line for line in lines if line and not line.startswith("Weights only load failed")]
    return causes[0] if causes else type(error).__name__
