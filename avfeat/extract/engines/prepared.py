"""Prepared networks on disk, so that only the first run converts them.

A network lies in ``prepared/<backbone>/<key>`` of the cache, the key a hash over everything that
its content depends on. Processor, threads and precision are not among it: what is kept is the
network before it is compiled, which takes a second or two. Networks that nobody asked for in a
month, as after an update, go when another of the same backbone comes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino

from avfeat import config, download
from avfeat.errors import IntegrityError
from avfeat.extract.engines.convert import core
from avfeat.manifests.jsonfile import digest, seal, unseal

_log = logging.getLogger(__name__)

_ABOUT, _GRAPH, _WEIGHTS = "about.json", "network.xml", "network.bin"
_KEPT_SECONDS = 30 * 24 * 3600


def folder() -> Path:
    """Where the cache keeps prepared networks. It may be deleted whenever no run is starting."""
    return config.cache_folder() / "prepared"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one network is kept.

    Parameters
    ----------
    name
        Of the backbone.
    identity
        All that the network depends on, ready for JSON; its hash is the key.
    """

    name: str
    identity: dict[str, Any]

    @property
    def path(self) -> Path:
        """The network's own folder."""
        return folder() / self.name.replace(":", "_") / digest(self.identity)[:32]


def obtain(place: Place | None, make: Callable[[], openvino.Model]) -> openvino.Model:
    """Return a network from the cache, made first if need be.

    Of processes that start together one makes it. What is damaged is made again. A network that
    comes from the cache and one that was just made go through the same file, and so are the same.

    Parameters
    ----------
    place
        None if nothing tells the network from others that might have its name: it is then made each
        time.
    make
        Makes it.
    """
    if place is not None:
        try:
            found = _read(place)
            if found is not None:
                return found
            place.path.parent.mkdir(parents=True, exist_ok=True)
            with download.alone(place.path):
                return _read(place) or _keep(place, make)
        except OSError as error:  # read-only, or full
            _log.warning("cannot keep the prepared %s in %s: %s", place.name, place.path, error)
    with tempfile.TemporaryDirectory(prefix="avfeat-") as aside:
        return _checked(Path(aside), _save(make(), Path(aside)))


def _keep(place: Place, make: Callable[[], openvino.Model]) -> openvino.Model:
    path = place.path
    part = path.with_name(f"{path.name}.part")  # left by a process that died, or new
    for old in (part, path, *_unused(path.parent)):
        if old.exists():
            shutil.rmtree(old)
    model = make()
    part.mkdir()
    digests = _save(model, part)
    (part / _ABOUT).write_bytes(seal({"identity": place.identity, "sha256": digests}))
    part.rename(path)
    return _checked(path, digests)


def _unused(folder: Path) -> list[Path]:
    """Networks that were last used too long ago."""
    oldest = time.time() - _KEPT_SECONDS
    return [about.parent for about in folder.glob(f"*/{_ABOUT}") if about.stat().st_mtime < oldest]


def _save(model: openvino.Model, path: Path) -> dict[str, str]:
    openvino.save_model(model, path / _GRAPH, compress_to_fp16=False)
    return {name: download.sha256_file(path / name) for name in (_GRAPH, _WEIGHTS)}


def _read(place: Place) -> openvino.Model | None:
    """Read a network; None if it is not there or not what was written."""
    about = place.path / _ABOUT
    try:
        document = unseal(about.read_bytes(), str(about))
        if document.get("identity") != place.identity:
            raise IntegrityError(f"{about} is of another network")
        model = _checked(place.path, document["sha256"])
        with contextlib.suppress(OSError):
            os.utime(about)
        return model
    except FileNotFoundError:
        return None
    except (IntegrityError, KeyError) as error:
        _log.warning("%s; prepared again", error)
        return None


def _checked(path: Path, digests: dict[str, str]) -> openvino.Model:
    """Read files that have these hashes.

    The weights stay in the file, which is mapped: compiled networks hold on to them beside a copy
    in their own order, and so the first costs no memory that somebody else needs.
    """
    for name in (_GRAPH, _WEIGHTS):
        if download.sha256_file(path / name) != digests[name]:
            raise IntegrityError(f"{path / name} is damaged")
    return core().read_model(path / _GRAPH)
