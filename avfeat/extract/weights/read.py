"""Published files to named tensors: torch, safetensors, Keras, numpy; no code in them is ever run.

A file is recognised by its first bytes, not by its name, which a browser may have changed.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avfeat.errors import WeightsError

if TYPE_CHECKING:
    import h5py

# What the readers raise on bytes that are no such file, besides their own errors: torch's trusts
# the opcodes it meets.
_UNREADABLE = (
    pickle.UnpicklingError,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
# In torch's and numpy's messages on pickles that name code.
_BLOCKED = ("unsupported global", "unrecognized function", "can only build", "allow_pickle")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a weights file, in the order of the file.

    Read are torch files of both formats, also as the only file of a zip archive, safetensors,
    Keras' HDF5 files, also gzipped, and numpy's .npz with arrays of floats. Of Keras' files, names
    are ``<layer>/<weight name>`` and the order is that of the layers. Pickled code is refused,
    nothing is unpacked to disk.

    Raises
    ------
    WeightsError
        The file is none of these, is damaged, or holds anything but named tensors.
    """
    try:
        state = _read(path)
    except WeightsError:
        raise
    except _UNREADABLE as error:
        reason = _reason(error)
        if any(words in reason.lower() for words in _BLOCKED):
            raise WeightsError(
                f"{path} holds more than plain tensors and was not loaded (code in a weights file "
                f"is never run): {reason}"
            ) from error
        raise WeightsError(f"{path} is cut off or no weights file: {reason}") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} is no state dict: it holds {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} is no state dict: {key!r} is {type(value).__name__}")
        if value.layout != torch.strided or value.is_quantized:
            raise WeightsError(f"{path}: {key!r} is no plain tensor but {value.layout}")
    return dict(state)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and its brace."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(len(_HDF5))
        file.seek(0)
        if head.startswith(_GZIP):
            return _keras(io.BytesIO(gzip.GzipFile(fileobj=file).read()))
        if head == _HDF5:
            return _keras(file)
        if is_safetensors(path):
            return load_file(path)
        if head.startswith(_ZIP) and _is_npz(file):
            return _arrays(file)
        torch_file = _only_member(file) if head.startswith(_ZIP) else file
        with torch.serialization.safe_globals(_array_globals()):
            state = torch.load(torch_file, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            return state
        return {key: _as_tensor(value) for key, value in state.items()}


def _array_globals() -> list[Any]:
    """What numpy arrays of floats are pickled by, under its old name and its new one.

    torchvggish's PCA file holds arrays. None of these runs code of the file's.
    """
    import numpy as np

    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    kinds = (np.dtypes.Float32DType, np.dtypes.Float64DType)
    return [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *kinds]


def _as_tensor(value: Any) -> Any:
    """Turn an array of floats into a tensor, and leave the rest for the caller to judge."""
    import numpy as np

    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value


def _is_npz(file: IO[bytes]) -> bool:
    """Whether a zip archive holds nothing but numpy arrays."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    file.seek(0)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _arrays(file: IO[bytes]) -> dict[str, Any]:
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return {name: _as_tensor(arrays[name]) for name in arrays.files}


def _only_member(file: IO[bytes]) -> IO[bytes]:
    """Look into a zip archive for one torch file; the archive itself if it is one."""
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) == 1 and members[0].filename.endswith(".pth"):
            # Into memory: where the name would put it does not matter.
            return io.BytesIO(archive.read(members[0]))
    file.seek(0)
    return file


def _keras(file: IO[bytes]) -> dict[str, Tensor]:
    """Read layer by layer as Keras does; whole models keep their layers in ``model_weights``."""
    import h5py

    with h5py.File(file, "r") as root:
        group = root.get("model_weights", root)
        if "layer_names" not in group.attrs:
            raise ValueError("an HDF5 file without layer_names, so not of Keras' layout")
        return {
            f"{layer}/{name}": _array(group[layer], name)
            for layer in _texts(group.attrs["layer_names"])
            for name in _texts(group[layer].attrs["weight_names"])
        }


def _array(layer: h5py.Group, name: str) -> Tensor:
    import h5py
    import numpy as np

    found = layer[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name!r} is no array")
    # HDF5 can point out of the file, at any other file of this machine. Links of that kind are not
    # followed in a file that is open already; arrays of that kind would be.
    if found.external is not None or found.is_virtual:
        raise ValueError(f"{name!r} keeps its values in another file")
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{name!r} holds {found.dtype}, not numbers")
    values = np.asarray(found[()])
    return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _reason(error: BaseException) -> str:
    # torch wraps the cause in advice on how to run the code anyway, which is not passed on.
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].splitlines()
    causes = [line for line in lines if line and not line.startswith("Weights only load failed")]
    return causes[0] if causes else type(error).__name__
