"""Weights files in the layouts of their publishers, and a registry that knows them.

The names and shapes are stated here a second time, from what the publishers' own code builds or
writes, so that a network whose keys drift from its published file is found out.
"""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pytorchcv.models.polynet import polynet
from torch import Tensor

from avfeat.digest import Digest
from avfeat.extract.weights import cache, registry

State = Mapping[str, Tensor]

KERAS_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Layout:
    """The file of an entry of registry.yaml: which, with which tensors, in which format.

    ``tensors`` turns a network's state dict into what the file holds, under the file's names.
    """

    entry: str
    file: str
    tensors: Callable[[State], dict[str, Tensor]]
    save: Callable[[State, Path], None]


def torch_file(state: State, path: Path) -> None:
    torch.save(OrderedDict(state), path)


def array_file(state: State, path: Path) -> None:
    """torchvggish's PCA file: numpy arrays, not tensors."""
    torch.save({key: value.numpy() for key, value in state.items()}, path)


def zipped_torch_file(state: State, path: Path) -> None:
    inner = path.with_suffix("")
    torch_file(state, inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)
    inner.unlink()


def keras_file(state: State, path: Path) -> None:
    """As ``Model.save_weights`` of Keras 2 writes; layers without weights have a group as well."""
    layers: dict[str, list[str]] = {"input_1": []}
    for key in state:
        layer, _, weight = key.partition("/")
        layers.setdefault(layer, []).append(weight)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            names = np.array([name.encode() for name in weights])
            group.attrs["weight_names"] = names
            for name in weights:
                group[name] = state[f"{layer}/{name}"].contiguous().numpy()


def zipped_keras_file(state: State, path: Path) -> None:
    inner = path.with_suffix("")
    keras_file(state, inner)
    gzipped(inner, path)


def gzipped(source: Path, path: Path) -> None:
    with source.open("rb") as plain, gzip.open(path, "wb", compresslevel=1) as file:
        shutil.copyfileobj(plain, file)
    source.unlink()


def with_classifier(**shapes: tuple[int, ...]) -> Callable[[State], dict[str, Tensor]]:
    """The network's own names, and what lies behind the feature layer: ``fc__weight=(1000, 2048)``.

    Zeros: were they loaded anywhere, the rows would show it.
    """
    return lambda state: {
        **state,
        **{key.replace("__", "."): torch.zeros(shape) for key, shape in shapes.items()},
    }


def as_it_is(state: State) -> dict[str, Tensor]:
    return dict(state)


def pytorchcv(state: State) -> dict[str, Tensor]:
    """pytorchcv's names: the same tensors as pretrainedmodels', in the same order."""
    with torch.device("meta"):
        own = polynet(pretrained=False).state_dict()
    values = [*state.values(), torch.zeros(1000, 2048), torch.zeros(1000)]
    for value, wanted in zip(values, own.values(), strict=True):
        assert value.shape == wanted.shape
    return dict(zip(own, values, strict=True))


def pgi3d(state: State) -> dict[str, Tensor]:
    """Classifier first, and no ``num_batches_tracked``, which torch 0.3 did not have."""
    logits = {
        "logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1),
        "logits.conv3d.bias": torch.zeros(400),
    }
    return logits | {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def keras_openl3(last: str) -> Callable[[State], dict[str, Tensor]]:
    """48 arrays, batch norm and convolution in turn, under the names of one Keras session."""

    def tensors(state: State) -> dict[str, Tensor]:
        found = {}
        for number in range(1, 9):
            norm, conv = f"batch_normalization_{number}", f"conv2d_{number}"
            name = last if number == 8 else conv
            for role, kind in KERAS_NORM.items():
                found[f"{norm}/{norm}/{role}:0"] = state[f"{norm}.{kind}"]
            found[f"{name}/{name}/kernel:0"] = to_keras(state[f"{name}.weight"])
            found[f"{name}/{name}/bias:0"] = state[f"{name}.bias"]
        return found

    return tensors


def keras_vgg19(state: State) -> dict[str, Tensor]:
    """32 arrays of the file without the dense layers, with the names of Keras 1."""
    keys = iter(key for key in state if key.endswith(".weight"))
    found = {}
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, convolutions + 1):
            name, key = f"block{block}_conv{number}", next(keys)
            found[f"{name}/{name}_W_1:0"] = to_keras(state[key])
            found[f"{name}/{name}_b_1:0"] = state[key.replace("weight", "bias")]
    assert next(keys, None) is None
    return found


def random_pca(_: State) -> dict[str, Tensor]:
    """A whitening that spreads the embeddings of a random network over the 256 levels."""
    generator = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(128, 128, generator=generator))[0]
    return {
        "pca_eigen_vectors": rotation * torch.linspace(3.0, 0.5, 128)[:, None],
        "pca_means": torch.rand(128, generator=generator) * 0.2,
    }


def to_keras(kernel: Tensor) -> Tensor:
    """[out, in, height, width] to [height, width, in, out]."""
    return kernel.permute(2, 3, 1, 0)


@contextmanager
def published(files: Mapping[str, Path], folder: Path) -> Iterator[None]:
    """Let the registry's entries be of these files, and have them in a cache in ``folder``.

    ``files`` are by name of the entry, and called as one of its sources; they are moved. What the
    publisher states of the file, with its kind of digest, is stated of these.
    """
    entries = dict(registry.entries())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVFEAT_CACHE", str(folder / "cache"))
        for name, path in files.items():
            entry = entries[name]
            (source,) = (source for source in entry.sources if source.file == path.name)
            assert source.digest is not None
            kind, _, digits = source.digest.partition(":")
            value = Digest(kind, "").of(path)[0][: len(digits)]
            source = replace(source, digest=f"{kind}:{value}")
            entries[name] = replace(entry, sources=(source,))
            place = cache.path_of(entries[name], source)
            assert place is not None
            place.parent.mkdir(parents=True)
            path.rename(place)
        for name, entry in entries.items():
            if entry.parts:
                parts = {part: entries[leaf.name] for part, leaf in entry.parts}
                entries[name] = registry.compose(name, parts)
        patch.setattr(registry, "entries", lambda: entries)
        yield
    shutil.rmtree(folder / "cache")  # a gigabyte, of some
