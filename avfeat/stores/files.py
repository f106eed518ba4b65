"""Whole-file reads and atomic whole-file writes below one root, local or any fsspec URL."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import fsspec

from avfeat.errors import ReadError, StoreError, WriteError

_SCRATCH = "runs/tmp"


class Files:
    """Files below `root`, named by ``/``-separated relative paths.

    On a local disk a write goes to a scratch file, is flushed to the device and renamed into
    place, so that no reader and no later run ever sees half a file. Object stores replace whole
    objects by themselves.

    Parameters
    ----------
    root
        A path or an fsspec URL.

    Raises
    ------
    StoreError
        If no file system is known for the URL, or the package for it is not installed.
    """

    def __init__(self, root: str | Path) -> None:
        self.url = str(root)
        try:
            filesystem, path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise StoreError(f"cannot open {self.url}: {error}") from error
        self._fs: Any = filesystem
        self._root = str(path).rstrip("/")
        self.local = Path(self._root) if "file" in _protocols(filesystem) else None

    def __str__(self) -> str:
        return self.url

    def path(self, name: str) -> str:
        """Full path of `name`, as the file system spells it."""
        return f"{self._root}/{name}" if name else self._root

    def exists(self, name: str = "") -> bool:
        """Whether the file or folder is there."""
        return bool(self._fs.exists(self.path(name)))

    def is_dir(self, name: str = "") -> bool:
        """Whether `name` is a folder."""
        return bool(self._fs.isdir(self.path(name)))

    def read(self, name: str) -> bytes:
        """Read a whole file; FileNotFoundError if it is not there, else ReadError."""
        try:
            return bytes(self._fs.cat_file(self.path(name)))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ReadError(f"cannot read {self.path(name)}: {error.strerror or error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically.

        Raises
        ------
        WriteError
            Disk full, read-only or not permitted; what was there before is untouched.
        """
        target = self.path(name)
        try:
            if self.local is None:
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(target, data)
            else:
                self._write_local(Path(target), data)
        except OSError as error:
            raise WriteError(explain(target, error)) from error

    def _write_local(self, target: Path, data: bytes) -> None:
        # Several threads, processes and machines may write to one store, each its own units.
        scratch = Path(self.path(f"{_SCRATCH}/{uuid.uuid4().hex}"))
        scratch.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def move(self, source: str, target: str) -> None:
        """Rename a file within the root, replacing what is there; WriteError if it cannot be."""
        if self.local is None:
            self._fs.mv(self.path(source), self.path(target))
            return
        destination = Path(self.path(target))
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            Path(self.path(source)).replace(destination)
        except OSError as error:
            raise WriteError(explain(str(destination), error)) from error

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all it holds; WriteError if it is there and stays."""
        try:
            if self.exists(name):
                self._fs.rm(self.path(name), recursive=True)
        except OSError as error:
            raise WriteError(explain(self.path(name), error)) from error

    def list(self, folder: str = "", *, depth: int | None = None) -> list[str]:
        """All files below `folder`, at any or at most `depth`, sorted, relative to the root.

        Raises
        ------
        ReadError
            If a folder cannot be read: what is in it must not pass for absent.
        """
        if not self.is_dir(folder):
            return []
        start = len(self._root) + 1
        options = {} if self.local is None else {"on_error": "raise"}
        try:
            found = self._fs.find(self.path(folder), maxdepth=depth, **options)
        except OSError as error:
            raise ReadError(f"cannot read {error.filename}: {error.strerror or error}") from error
        return sorted(str(path)[start:] for path in found)

    def clear_scratch(self) -> None:
        """Delete what killed writers left behind."""
        self.remove(_SCRATCH)


def sha256(data: bytes) -> str:
    """Return the sha256 (hex) of `data`."""
    return hashlib.sha256(data).hexdigest()


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def explain(target: str, error: OSError) -> str:
    """Say why something could not be written, and what to do about it."""
    hint = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again: "
        "what was committed is kept",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again: "
        "what was committed is kept",
        errno.EROFS: "the file system is read-only; choose another folder with --out",
        errno.EACCES: "no permission; choose another folder with --out",
        errno.EPERM: "no permission; choose another folder with --out",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another folder with --out",
        errno.EEXIST: "a file stands where a folder is needed; choose another folder with --out",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"cannot write {target}: {hint}"
