"""Published weights for the tests' tiny network: made, served, saved in every layout."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from avfeat.extract.weights.random import calibrate
from avfeat.extract.weights.registry import Source, WeightsEntry

CPU = torch.device("cpu")


def state_of(tiny: Any, seed: int = 3) -> dict[str, Tensor]:
    """Random weights with the classifier that published files carry."""
    net = tiny().build()
    calibrate(net, tiny(), seed=seed)
    return {**net.state_dict(), "5.weight": torch.zeros(10, 4), "5.bias": torch.zeros(10)}


def publish(tiny: Any, *sources: Source, tag: str = "v1") -> WeightsEntry:
    """Make ``tiny.<tag>`` known."""
    tiny.published[tag] = WeightsEntry(
        name=f"tiny.{tag}",
        sources=sources,
        trained_on="nothing",
        licence="CC0-1.0",
        citation="none",
        drop=("5.*",),
    )
    entry: WeightsEntry = tiny.published[tag]
    return entry


def saved(state: Any, path: Path, **options: Any) -> tuple[bytes, str]:
    """Save as torch does; the bytes and their SHA-256."""
    torch.save(state, path, **options)
    body = path.read_bytes()
    return body, hashlib.sha256(body).hexdigest()


def zipped(path: Path, name: str = "inner.pth") -> Path:
    """Put a file into a zip archive under a name of any kind."""
    archive = path.with_name(path.name + ".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, path.read_bytes())
    return archive


def keras(path: Path, layers: dict[str, dict[str, Tensor]], *, group: str | None = None) -> Path:
    """Write the HDF5 layout of Keras' ``save_weights``, or of ``save`` with ``group``."""
    with h5py.File(path, "w") as file:
        root = file if group is None else file.create_group(group)
        root.attrs["layer_names"] = [name.encode() for name in layers]
        root.attrs["backend"] = b"tensorflow"
        for layer, weights in layers.items():
            made = root.create_group(layer)
            made.attrs["weight_names"] = [f"{layer}/{name}".encode() for name in weights]
            for name, value in weights.items():
                made[f"{layer}/{name}"] = value.numpy()
    return path


def gzipped(path: Path) -> Path:
    """Compress a file as gzip does."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


class Bomb:
    """Pickles to a call that makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def flip(path: Path, at: int = 900) -> None:
    """Flip one bit."""
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)
