"""Whole-file reads and atomic whole-file writes below one root, local or any fsspec URL."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from avfeat.errors import ReadError, StoreError, WriteError

_SCRATCH = "runs/tmp"
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


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
        protocol = fsspec.core.split_protocol(self.url)[0]
        self._has_buckets = protocol in _OBJECT_STORES
        # A listing that is remembered does not show what other processes wrote since.
        options = {"use_listings_cache": False} if self._has_buckets else {}
        try:
            filesystem, path = fsspec.core.url_to_fs(self.url, **options)
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
        with self._failing(name):
            return bool(self._fs.exists(self.path(name)))

    def is_dir(self, name: str = "") -> bool:
        """Whether `name` is a folder."""
        with self._failing(name):
            return bool(self._fs.isdir(self.path(name)))

    def read(self, name: str) -> bytes:
        """Read a whole file; FileNotFoundError if it is not there, else ReadError."""
        with self._failing(name):
            return bytes(self._fs.cat_file(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically.

        Raises
        ------
        WriteError
            Disk full, read-only or not permitted; what was there before is untouched.
        """
        with self._failing(name, write=True):
            if self.local is None:
                self._make_folder(name)
                self._fs.pipe_file(self.path(name), data)
            else:
                self._write_local(Path(self.path(name)), data)

    def _make_folder(self, name: str) -> None:
        # Object stores have no folders: fsspec would make the bucket that was misspelled.
        if not self._has_buckets:
            self._fs.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)

    @contextlib.contextmanager
    def _failing(self, name: str, *, write: bool = False) -> Iterator[None]:
        """Say what could not be read or written, and why, in avfeat's errors."""
        target = self.path(name)
        try:
            yield
        except FileNotFoundError as error:
            if not write:
                raise
            bucket = self._root.partition("/")[0]
            raise WriteError(
                f"cannot write {target}: there is no bucket {bucket!r}; create it, or choose "
                "another folder with --out"
                if self._has_buckets
                else explain(target, error)
            ) from error
        except OSError as error:
            if write:
                raise WriteError(explain(target, error)) from error
            raise ReadError(
                f"cannot read {error.filename or target}: {error.strerror or error}"
            ) from error
        except Exception as error:
            # Each remote file system has errors of its own for what is no answer, or no access.
            if self.local is not None:
                raise
            text = f"cannot {'write' if write else 'read'} {target}: {error}"
            raise (WriteError if write else ReadError)(text) from error

    def _write_local(self, target: Path, data: bytes) -> None:
        # Several threads, processes and machines may write to one store, each its own units.
        scratch = self._new_scratch()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def _new_scratch(self) -> Path:
        scratch = Path(self.path(f"{_SCRATCH}/{uuid.uuid4().hex}"))
        scratch.parent.mkdir(parents=True, exist_ok=True)
        return scratch

    def copy(self, source: str, target: str) -> None:
        """Copy a file within the root, atomically, replacing what is there.

        Raises
        ------
        FileNotFoundError
            If there is no `source`.
        WriteError
            If it cannot be copied.
        """
        if not self.exists(source):
            raise FileNotFoundError(self.path(source))
        with self._failing(target, write=True):
            if self.local is None:
                self._make_folder(target)
                self._fs.cp_file(self.path(source), self.path(target))
            else:
                self._copy_local(Path(self.path(source)), Path(self.path(target)))

    def _copy_local(self, source: Path, target: Path) -> None:
        scratch = self._new_scratch()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, scratch)
            scratch.replace(target)
        except OSError:  # a file system without links, or out of space: then this fails too
            self._write_local(target, source.read_bytes())
        finally:
            scratch.unlink(missing_ok=True)

    def same(self, one: str, other: str) -> bool:
        """Whether two files are known to have the same bytes, without reading them."""
        try:
            if self.local is not None:
                return Path(self.path(one)).samefile(self.path(other))
            with self._failing(other):
                tags = [self._fs.info(self.path(name)).get("ETag") for name in (one, other)]
        except OSError:
            return False
        return tags[0] is not None and tags[0] == tags[1]

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all it holds; WriteError if it is there and stays."""
        # Where another process deletes it at the same time, parts of it are gone before.
        with self._failing(name, write=True), contextlib.suppress(FileNotFoundError):
            if self._fs.exists(self.path(name)):
                self._fs.rm(self.path(name), recursive=True)

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
        with self._failing(folder):
            found = self._fs.find(self.path(folder), maxdepth=depth, **options)
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
