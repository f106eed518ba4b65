"""Published files, once read, are kept as safetensors beside the original and loaded from there.

A conversion holds the tensors as the file has them, under the file's own names: it does not depend
on which backbone reads it, nor on how that renames them. It is hashed before every use; one that is
damaged, or that another version made, is made anew from the original.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avfeat import download
from avfeat.extract.weights.read import is_safetensors, read_state

VERSION = 1
"""Of what is done below; a conversion by another one is made anew."""

SUFFIX = ".safetensors"
_NOTE = SUFFIX + ".json"
_METADATA = "avfeat"  # one key: the order of several is not fixed, and with it the bytes


def path_of(original: Path) -> Path:
    """Where the conversion of a file lies."""
    return original.with_name(original.name + SUFFIX)


def read_converted(original: Path, sha256: str, *, keep: bool = True) -> dict[str, Tensor]:
    """Read the tensors of a published file, by way of its conversion.

    Parameters
    ----------
    original
        A file that was verified, of any format that `read_state` knows.
    sha256
        Of that file, in full.
    keep
        Write a conversion if there is none; False writes nothing.

    Returns
    -------
    dict
        Name to tensor, in the order of the original.

    Raises
    ------
    WeightsError
        The original cannot be read.
    """
    if is_safetensors(original):
        return read_state(original)
    converted = path_of(original)
    if check(original, sha256) == "good":
        return _in_order(converted)
    state = read_state(original)
    if not keep:
        return state
    # A read-only cache or a full disk: then without it, the tensors are at hand.
    with contextlib.suppress(OSError, SafetensorError), download.alone(converted):
        if check(original, sha256) != "good":
            _write(state, converted, sha256)
    return state


def check(original: Path, sha256: str) -> str:
    """Compare a conversion with the digest it was written with.

    Returns
    -------
    str
        ``"good"``; ``"none"`` if there is none, or none by this version of this original;
        ``"damaged"``.
    """
    converted = path_of(original)
    note = _note(original)
    if (note.get("source"), note.get("version")) != (sha256, VERSION) or not converted.exists():
        return "none"
    return "good" if download.sha256_file(converted) == note.get("sha256") else "damaged"


def _note(original: Path) -> dict[str, Any]:
    try:
        note = json.loads(original.with_name(original.name + _NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write(state: Mapping[str, Tensor], converted: Path, source: str) -> None:
    part = converted.with_name(f"{converted.name}.{os.getpid()}.part")
    about = {"source": source, "version": VERSION, "keys": list(state)}
    try:
        save_file(_separate(state), part, {_METADATA: json.dumps(about, sort_keys=True)})
        note = {"sha256": download.sha256_file(part), "source": source, "version": VERSION}
        part.replace(converted)
    finally:
        part.unlink(missing_ok=True)
    # Last: without its note a conversion does not count.
    noted = converted.with_name(f"{converted.name}.json")
    part.write_text(json.dumps(note, indent=1) + "\n")
    part.replace(noted)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own: safetensors refuses to store shared bytes twice."""
    seen: set[int] = set()
    separate = {}
    for key, tensor in state.items():
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        plain = tensor.detach()
        separate[key] = plain.contiguous() if alone else plain.contiguous().clone()
    return separate


def _in_order(converted: Path) -> dict[str, Tensor]:
    """Read a conversion in the order of its original, which layouts without names go by."""
    with safe_open(converted, framework="pt") as file:
        keys = json.loads(file.metadata()[_METADATA])["keys"]
        return {key: file.get_tensor(key) for key in keys}
