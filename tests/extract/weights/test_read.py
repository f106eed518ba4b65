"""Files of every layout to named tensors, in the file's order; files that are none, refused."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from weightskit import Bomb, gzipped, keras, saved, zipped

from avfeat.errors import WeightsError
from avfeat.extract.weights.read import read_state

# Not in alphabetical order: the order must be the file's.
STATE = {
    "z.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.tensor([1.0, -2.0]),
    "m.num_batches_tracked": torch.tensor(7),
    "m.half": torch.tensor([0.5], dtype=torch.float16),
}
LAYERS = {
    "input_1": {},
    "conv2d_9": {"kernel:0": torch.arange(12.0).reshape(1, 2, 2, 3), "bias:0": torch.ones(3)},
    "pool": {},
    "batch_normalization_2": {"gamma:0": torch.tensor([2.0]), "beta:0": torch.tensor([3.0])},
}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zipped"])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_torch_files(tmp_path: Path, new_format: bool, packed: bool, kind: Any) -> None:
    path = tmp_path / "x.pth"
    torch.save(kind(STATE), path, _use_new_zipfile_serialization=new_format)
    same(read_state(zipped(path) if packed else path), STATE)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_arrays_of_floats_are_tensors(tmp_path: Path, new_format: bool) -> None:
    """As in torchvggish's PCA file. Arrays of objects could hold anything, and are refused."""
    arrays = {"pca_means": np.arange(3.0), "half": np.ones((2, 2), dtype=np.float32)}
    path = tmp_path / "x.pth"
    torch.save(arrays, path, _use_new_zipfile_serialization=new_format)
    same(read_state(path), {key: torch.from_numpy(value) for key, value in arrays.items()})
    torch.save({"odd": np.array([Bomb(tmp_path / "ran")], dtype=object)}, path)
    with pytest.raises(WeightsError):
        read_state(path)
    assert not (tmp_path / "ran").exists()


def test_numpy_archives(tmp_path: Path) -> None:
    arrays = {"pca_means": np.arange(3.0), "half": np.ones((2, 2), dtype=np.float32)}
    path = tmp_path / "x"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    same(read_state(path), {key: torch.from_numpy(value) for key, value in arrays.items()})
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    assert len(read_state(path)) == 2

    with path.open("wb") as file:
        np.savez(file, odd=np.array([Bomb(tmp_path / "ran")], dtype=object))
    with pytest.raises(WeightsError, match=r"more than plain tensors.*allow_pickle=False"):
        read_state(path)
    assert not (tmp_path / "ran").exists()
    with path.open("wb") as file:
        np.savez(file, names=np.array(["a"]))
    with pytest.raises(WeightsError, match="'names' is ndarray"):
        read_state(path)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    found = read_state(tmp_path / "x.safetensors")
    same({key: found[key] for key in STATE}, STATE)


@pytest.mark.parametrize("group", [None, "model_weights"], ids=["weights", "model"])
@pytest.mark.parametrize("packed", [False, True], ids=["h5", "h5.gz"])
def test_keras_files(tmp_path: Path, group: str | None, packed: bool) -> None:
    path = keras(tmp_path / "x.h5", LAYERS, group=group)
    same(
        read_state(gzipped(path) if packed else path),
        {
            "conv2d_9/conv2d_9/kernel:0": LAYERS["conv2d_9"]["kernel:0"],
            "conv2d_9/conv2d_9/bias:0": LAYERS["conv2d_9"]["bias:0"],
            "batch_normalization_2/batch_normalization_2/gamma:0": torch.tensor([2.0]),
            "batch_normalization_2/batch_normalization_2/beta:0": torch.tensor([3.0]),
        },
    )


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    path = keras(tmp_path / "downloaded (1).pth", LAYERS)
    assert len(read_state(path)) == 4
    torch.save(STATE, tmp_path / "model.h5")
    same(read_state(tmp_path / "model.h5"), STATE)


def test_keras_numbers_of_other_machines(tmp_path: Path) -> None:
    path = keras(tmp_path / "x.h5", {"one": {"k": torch.zeros(1)}})
    with h5py.File(path, "r+") as file:
        del file["one/one/k"]
        file["one/one/k"] = np.array([1.5, -2.0], dtype=">f4")
    (found,) = read_state(path).values()
    assert torch.equal(found, torch.tensor([1.5, -2.0]))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zipped"])
@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_code_does_not_run(tmp_path: Path, new_format: bool, packed: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bomb.pth"
    saved({**STATE, "x": Bomb(mark)}, path, _use_new_zipfile_serialization=new_format)
    path = zipped(path) if packed else path
    with pytest.raises(
        WeightsError, match=rf"{re.escape(str(path))} holds more than plain tensors.*mkdir"
    ):
        read_state(path)
    assert not mark.exists()


def test_nothing_is_unpacked_wherever_a_name_leads(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pth")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    archive = zipped(tmp_path / "x.pth", "../../escaped.pth").rename(folder / "x.pth.zip")
    before = sorted(tmp_path.rglob("*"))
    same(read_state(archive), STATE)
    assert sorted(tmp_path.rglob("*")) == before


def two_members(path: Path) -> None:
    torch.save(STATE, path)
    archive = zipped(path)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("second.pth", path.read_bytes())
    archive.rename(path)


def cut(share: float, make: Any) -> Any:
    def write(path: Path) -> None:
        make(path)
        body = path.read_bytes()
        path.write_bytes(body[: int(len(body) * share)])

    return write


def gz(path: Path) -> None:
    gzipped(keras(path, LAYERS)).rename(path)


def gz_flipped(path: Path) -> None:
    gz(path)
    body = bytearray(path.read_bytes())
    body[-6] ^= 1  # of the checksum
    path.write_bytes(body)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"some text\n" * 50),
        lambda path: path.write_bytes(bytes(99)),
        lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
        lambda path: path.write_bytes(b"\x80\x02}q\x00."),
        lambda path: path.write_bytes(b"\x1f\x8b\x08\x00 no gzip"),
        lambda path: path.write_bytes(gzip.compress(b"no HDF5")),
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)),
        lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{no safetensors, a brace only"),
        lambda path: path.write_bytes(b"<!doctype html><title>Sign in</title>"),
        cut(0.7, lambda path: torch.save({"w": torch.ones(999)}, path)),
        cut(0.7, lambda path: keras(path, {"one": {"k": torch.ones(9999)}})),
        cut(0.7, gz),
        cut(0.9, lambda path: save_file({"w": torch.ones(99)}, path)),
        gz_flipped,
        two_members,
        lambda path: h5py.File(path, "w").close(),
    ],
    ids=[
        *("empty", "text", "zeros", "broken-zip", "pickle", "broken-gzip", "gzip-of-text"),
        *("broken-hdf5", "brace", "html", "cut-torch", "cut-keras", "cut-gzip"),
        *("cut-safetensors", "flipped-gzip", "two-members", "no-keras"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "f")
    with pytest.raises(WeightsError, match=r"/f is cut off or no weights file: "):
        read_state(tmp_path / "f")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "it holds list"),
        (torch.zeros(2), "it holds Tensor"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is int"),
        ({"state_dict": dict(STATE)}, "'state_dict' is dict"),
        ({3: torch.zeros(1)}, "3 is Tensor"),
    ],
)
def test_only_named_tensors_are_read(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "f")
    with pytest.raises(WeightsError, match=f"is no state dict: {re.escape(reason)}"):
        read_state(tmp_path / "f")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "f")
    with pytest.raises(WeightsError, match=r"'w' is no plain tensor but torch\.sparse_coo"):
        read_state(tmp_path / "f")


def elsewhere(folder: Path) -> tuple[Path, Path]:
    """A Keras file whose array is to be put into another file, which is the second path."""
    path = keras(folder / "f", {"one": {"k": torch.zeros(4)}})
    with h5py.File(path, "r+") as file:
        del file["one/one/k"]
    return path, folder / "secret"


def test_keras_files_do_not_reach_into_others(tmp_path: Path) -> None:
    path, secret = elsewhere(tmp_path)
    secret.write_bytes(bytes(16))
    with h5py.File(path, "r+") as file:
        file.create_dataset("one/one/k", (4,), "f4", external=[(str(secret), 0, 16)])
    with pytest.raises(WeightsError, match="'one/k' keeps its values in another file"):
        read_state(path)

    path, secret = elsewhere(tmp_path)
    with h5py.File(secret, "w") as file:
        file["k"] = np.zeros(4, "f4")
    with h5py.File(path, "r+") as file:
        file["one/one/k"] = h5py.ExternalLink(str(secret), "k")
    with pytest.raises(WeightsError, match=r"no weights file: .*Unable to"):
        read_state(path)

    path, secret = elsewhere(tmp_path)
    with h5py.File(path, "r+") as file:
        file["one/one/k/is/a/group"] = np.zeros(4, "f4")
    with pytest.raises(WeightsError, match="'one/k' is no array"):
        read_state(path)

    path, secret = elsewhere(tmp_path)
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "k", (4,))
        file.create_virtual_dataset("one/one/k", layout)
    with pytest.raises(WeightsError, match="'one/k' keeps its values in another file"):
        read_state(path)


@pytest.mark.parametrize("values", [["a", "b"], [b"bytes"], [1 + 2j]])
def test_keras_arrays_of_no_numbers(tmp_path: Path, values: Any) -> None:
    path, _ = elsewhere(tmp_path)
    with h5py.File(path, "r+") as file:
        file["one/one/k"] = values
    with pytest.raises(WeightsError, match=r"'one/k' holds .*, not numbers"):
        read_state(path)
