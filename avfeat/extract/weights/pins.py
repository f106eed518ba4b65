"""Pins: the full SHA-256 that a weights file had when it was first used.

Publishers state eight digits, or a digest of another kind, or nothing. From the first use on, the
full SHA-256 decides: a pin is a small JSON file under ``weights/pins`` of the cache, by name of the
weights and of the file. To accept other bytes on purpose, delete it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from avfeat import config
from avfeat.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Pin:
    """What was first used as the file ``file`` of the weights ``weights``.

    Parameters
    ----------
    weights, file
        Name of the entry, and of the file of one of its sources.
    url
        Where it can be had.
    sha256
        In full.
    size
        In bytes.
    place
        Folder and file under the cache's ``weights``.
    """

    weights: str
    file: str
    url: str
    sha256: str
    size: int
    place: str


def folder() -> Path:
    """Where all pins lie."""
    return config.cache_folder() / "weights" / "pins"


def path_of(weights: str, file: str) -> Path:
    """Where the pin of a file lies, if there is one."""
    # Quoted: names of plugins' weights may hold a slash.
    return folder() / quote(weights, safe="") / f"{quote(file, safe='')}.json"


def names() -> set[str]:
    """Names of all weights that have a pin, damaged or not."""
    return {unquote(path.parent.name) for path in folder().glob("*/*.json")}


def read(weights: str, file: str) -> Pin | None:
    """Return the pin of a file, None before its first use.

    Raises
    ------
    WeightsError
        The pin is there and is none: it was damaged, or cannot be read.
    """
    try:
        return load(path_of(weights, file))
    except (FileNotFoundError, NotADirectoryError):
        return None


def load(path: Path) -> Pin:
    """Read one pin.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is none at this path.
    WeightsError
        It is damaged, or cannot be read.
    """
    wrong = f"{path} is damaged; delete it to pin the file anew"
    try:
        pin = Pin(**json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise WeightsError(wrong) from error
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if not re.fullmatch(r"[0-9a-f]{64}", str(pin.sha256)):
        raise WeightsError(wrong)
    return pin


def write(pin: Pin) -> None:
    """Remember the hash of a file for good."""
    path = path_of(pin.weights, pin.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.part")
    new.write_text(json.dumps(asdict(pin), indent=1) + "\n")
    new.replace(path)
