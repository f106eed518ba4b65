"""What a prepared network depends on: weights, code, libraries, batch shape."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import avfeat
from avfeat.extract.weights.info import WeightsInfo

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

_OWN = ("backbones", "engines", "weights")  # of avfeat.extract: what makes a network what it is
_LIBRARIES = ("openvino", "torch", "torchvision", "timm")


def identify(backbone: Backbone, *, batch_size: int) -> dict[str, Any] | None:
    """Describe all that the conversion of a network depends on, but its weights.

    Returns
    -------
    dict or None
        Ready for JSON. None if the code of the network cannot be told from other code: a class that
        was made in a function or typed in, outside of avfeat.
    """
    made = type(backbone)
    own = made.__module__.partition(".")[0] == "avfeat"
    if not own and "<locals>" in made.__qualname__:
        return None
    source = None if own else _source(made.__module__.partition(".")[0])
    if not own and source is None:
        return None
    versions = {name: metadata.version(name) for name in (*_LIBRARIES, *backbone.libraries)}
    return {
        "version": 1,
        "class": f"{made.__module__}.{made.__qualname__}",
        "backbone": backbone.spec.recipe(),
        "chosen": list(backbone.chosen),
        "batch_size": batch_size,
        "libraries": versions | {"avfeat": avfeat.__version__},
        "code": [_own_source(), source],
    }


def identify_weights(info: WeightsInfo) -> dict[str, Any]:
    """Describe weights: the digest of published ones, else how they are drawn."""
    if info.source == "published":
        return {"tag": info.tag, "sha256": info.sha256}
    # Running statistics are computed, so their last bits depend on what computes them.
    machine = torch.backends.cpu.get_cpu_capability()
    return {"seed": info.seed, "method": info.method, "machine": machine}


@cache
def _own_source() -> str:
    root = Path(__file__).parents[1]
    return _digest(root, [path for name in _OWN for path in (root / name).rglob("*.py")])


@cache
def _source(package: str) -> str | None:
    """Hash the Python files of a top-level package or module; None if it has none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # __main__ has no spec
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        return _digest(root, list(root.rglob("*.py")))
    return None if spec.origin is None else _digest(Path(spec.origin).parent, [Path(spec.origin)])


def _digest(root: Path, paths: list[Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        data = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()
