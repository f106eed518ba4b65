"""Fetch a file over HTTP: to a temporary name, hashed as it streams, renamed once it is right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
from filelock import FileLock

from avfeat.errors import AvfeatError, DownloadError, WriteError

CONNECT_SECONDS = 10.0
"""How long one host may take to answer: short, so that being offline fails quickly."""
READ_SECONDS = 60.0
"""How long a transfer may stand still."""

_CHUNK = 1 << 20

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all (None where the server does not say)."""


def sha256_file(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Make sure that ``path`` holds the file at one of ``urls``, and return its SHA-256.

    A file that is already there is hashed, not downloaded. Otherwise the URLs are tried in order.
    The body goes to ``<path>.part`` and is renamed only once its length and hash are right, so
    ``path`` never holds half a file. A lock beside it lets one process download while others wait.

    Parameters
    ----------
    urls
        Mirrors of the same bytes, tried in order.
    path
        Where the file goes; its folder is created.
    sha256
        Expected SHA-256 in lower-case hex, or a published prefix of it. None accepts any bytes.
    progress
        Called after every chunk (1 MiB).

    Raises
    ------
    DownloadError
        No URL gave the file (each is named with its reason), or the file at ``path`` has another
        hash. A wrong file is never overwritten: it may be somebody's.
    WriteError
        The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if path.exists():
                return _check_existing(path, sha256)
            return _first_that_works(urls, path, sha256, progress)
    except AvfeatError:
        raise
    except OSError as error:  # of files only: those of the network are DownloadErrors by now
        raise WriteError(f"cannot write {path}: {error}") from error


def _check_existing(path: Path, sha256: str | None) -> str:
    found = sha256_file(path)
    if sha256 is not None and not found.startswith(sha256):
        raise DownloadError(
            f"{path} is not the file it should be: its SHA-256 is {found}, expected {sha256}. "
            "Delete it to have it fetched again"
        )
    return found


def _first_that_works(
    urls: Sequence[str], path: Path, sha256: str | None, progress: Progress | None
) -> str:
    part = path.with_name(path.name + ".part")
    reasons = []
    for url in urls:
        try:
            found = _stream(url, part, sha256, progress)
        except DownloadError as error:
            part.unlink(missing_ok=True)
            reasons.append(f"  {url}: {error}")
        else:
            part.replace(path)
            return found
    raise DownloadError("\n".join([f"could not download {path.name}:", *reasons]))


def _stream(url: str, part: Path, sha256: str | None, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    done = 0
    try:
        # identity: Content-Length then counts the bytes that are written.
        with requests.get(
            url,
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != requests.codes.ok:
                raise DownloadError(f"HTTP {response.status_code} {response.reason}")
            length = response.headers.get("Content-Length")
            total = int(length) if length and "Content-Encoding" not in response.headers else None
            with part.open("wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except requests.ConnectTimeout as error:
        raise DownloadError(f"no answer within {CONNECT_SECONDS:g} s") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise DownloadError(f"broken off after {done} bytes") from error
    except requests.ConnectionError as error:
        # Also what requests makes of a read that stalls in mid-body.
        reason = "cannot connect" if done == 0 else f"broken off after {done} bytes"
        raise DownloadError(f"{reason} ({_root(error)})") from error
    except requests.RequestException as error:
        raise DownloadError(str(error)) from error
    if total is not None and done != total:
        raise DownloadError(f"truncated: {done} of {total} bytes")
    found = digest.hexdigest()
    if sha256 is not None and not found.startswith(sha256):
        raise DownloadError(f"SHA-256 is {found}, expected {sha256}")
    return found


def _root(error: BaseException) -> str:
    """Innermost cause in a word: requests wraps it three times, with addresses of objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
