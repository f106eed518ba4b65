"""Whether OpenVINO can run a network of which that is not known."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avfeat.errors import EngineError, IntegrityError
from avfeat.extract.engines import prepared
from avfeat.extract.engines.convert import convert
from avfeat.extract.engines.identity import identify
from avfeat.manifests.jsonfile import digest, seal, unseal

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

_known: dict[tuple[type[Backbone], str, int], str | None] = {}


def refusal(backbone: Backbone, *, batch_size: int, keep: bool = True) -> str | None:
    """Say why OpenVINO cannot run a network; None if it can.

    avfeat's own networks are known to convert (`Backbone.converts`). Others are tried once, with
    the weights they start with: the answer must not depend on weights that are still to be fetched.

    Parameters
    ----------
    keep
        Whether the answer may be written to the cache.
    """
    if backbone.converts is not None:
        return None if backbone.converts else "its class says so"
    key = (type(backbone), backbone.spec.name, batch_size)
    if key not in _known:
        identity = identify(backbone, batch_size=batch_size)
        path = _path(identity) if identity is not None else None
        found = _read(path) if path is not None else None
        if found is None:
            found = {"refused": _try(backbone, batch_size)}
            if keep and path is not None:
                _write(path, found)
        _known[key] = found["refused"]
    return _known[key]


def _try(backbone: Backbone, batch_size: int) -> str | None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = backbone.build()
    try:
        convert(net, backbone, batch_size=batch_size)
    except EngineError as error:
        return str(error)
    return None


def _path(identity: dict[str, Any]) -> Path:
    return prepared.folder() / "trials" / f"{digest(identity)[:32]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return unseal(path.read_bytes(), str(path))
    except (OSError, IntegrityError):
        return None


def _write(path: Path, found: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it is found out again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(seal(found))
        part.replace(path)
