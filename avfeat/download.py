"""Fetch a file over HTTP: resumed where it broke off, and renamed only once it is right."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import urllib3
from filelock import FileLock, Timeout

from avfeat.digest import ANY, Digest
from avfeat.errors import AvfeatError, DownloadError, OfflineError, WriteError

CONNECT_SECONDS = 10.0
"""How long one host may take to answer: short, so that being offline fails quickly."""
READ_SECONDS = 60.0
"""How long a transfer may stand still."""
ATTEMPTS = 4
"""How often one URL is tried in a row without getting further."""
LONGEST_WAIT_SECONDS = 60.0
"""A host that asks for more patience than this is left for the next one."""
OFFLINE = ("AVFEAT_OFFLINE", "HF_HUB_OFFLINE")
"""Environment variables that forbid every connection; the second is shared with Hugging Face."""

# What does not set a switch. Whatever else somebody writes there was meant to.
_UNSET = ("", "0", "false", "no", "off")
_CHUNK = 1 << 20
_WATCH_SECONDS = 1.0  # how often a waiting process looks how far the other one is
_AGAIN = {408, 425, 429, *range(500, 600)}  # statuses that may pass

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all (None where the server does not say)."""

sleep = time.sleep  # tests put a quicker one here


class _Fault(Exception):  # noqa: N818 - never leaves this module
    """Why one attempt failed.

    ``again`` is the least number of seconds to wait before another, None if that is no use;
    ``cost`` is how many of the `ATTEMPTS` it uses up.
    """

    def __init__(self, reason: str, *, again: float | None = None, cost: int = 1) -> None:
        super().__init__(reason)
        self.again = again
        self.cost = cost


def sha256_file(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def offline() -> str | None:
    """Name of the environment variable that forbids connections, None if none does."""
    for name in OFFLINE:
        if os.environ.get(name, "").strip().lower() not in _UNSET:
            return name
    return None


@contextmanager
def alone(path: Path, *, progress: Progress | None = None) -> Iterator[None]:
    """Let one process at a time work on what will be at ``path``.

    While another one works, ``progress`` is told how far it is. The lock is let go when its process
    dies.
    """
    lock = FileLock(_beside(path, ".lock"))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_WATCH_SECONDS)
        except Timeout:
            part = _beside(path, ".part")
            if progress is not None and part.exists():
                progress(part.stat().st_size, None)
    try:
        yield
    finally:
        lock.release()


def fetch(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None = None,
    digest: Digest | None = None,
    accept: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> str:
    """Make sure that ``path`` holds the file at one of ``urls``, and return its SHA-256.

    A file that is already there is hashed, not downloaded. Otherwise the URLs are tried in order:
    time-outs, bodies that break off and errors of a busy server up to `ATTEMPTS` times each with
    growing pauses, anything else once. The body goes to ``<path>.part`` and is renamed only once
    its length and digest are right, so ``path`` never holds half a file. A part that broke off is
    kept, and the next attempt, in this process or another, asks for the rest. A lock beside it lets
    one process download while others wait.

    Parameters
    ----------
    urls
        Mirrors of the same bytes, tried in order.
    path
        Where the file goes; its folder is created.
    sha256
        Expected SHA-256 in lower-case hex, or a published prefix of it.
    digest
        Expected digest of any kind, instead of ``sha256``. With neither, any bytes are accepted,
        unless ``accept`` refuses them.
    accept
        Called with a file that has arrived whole and with the right digest, before it is renamed.
        An `AvfeatError` from it says why the file will not do; the next URL is tried then.
    progress
        Called after every chunk (1 MiB), and every second while another process downloads.

    Raises
    ------
    OfflineError
        The file is not there and `offline` forbids connections; none is opened.
    DownloadError
        No URL gave the file (each is named with its reason), or the file at ``path`` has another
        hash. A wrong file is never overwritten: it may be somebody's.
    WriteError
        The folder cannot be written.
    """
    expected = Digest("sha256", sha256) if sha256 is not None else digest
    try:
        if path.exists():
            return _check_existing(path, expected)
        if variable := offline():
            raise OfflineError(
                f"{path.name} is wanted at {path} and was not downloaded from {' or '.join(urls)}: "
                f"{variable} is set, so no connection is opened"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path, progress=progress):
            if path.exists():
                return _check_existing(path, expected)
            return _first_that_works(urls, path, expected, accept, progress)
    except AvfeatError:
        raise
    except OSError as error:  # of files only: those of the network are faults by now
        raise WriteError(f"cannot write {path}: {error}") from error


def _check_existing(path: Path, expected: Digest | None) -> str:
    difference, sha256 = (expected or ANY).difference(path)
    if difference is not None:
        raise DownloadError(
            f"{path} is not the file it should be: {difference}. Delete it to have it fetched again"
        )
    return sha256


def _first_that_works(
    urls: Sequence[str],
    path: Path,
    expected: Digest | None,
    accept: Callable[[Path], None] | None,
    progress: Progress | None,
) -> str:
    part = _Part(path)
    reasons = []
    for url in urls:
        try:
            sha256 = _persist(url, part, expected, progress)
            if accept is not None:
                _judge(part, accept)
        except _Fault as fault:
            reasons.append(f"  {url}: {fault}")
        else:
            part.path.replace(path)
            part.drop()
            return sha256
    raise DownloadError("\n".join([f"could not download {path.name}:", *reasons]))


def _judge(part: _Part, accept: Callable[[Path], None]) -> None:
    try:
        accept(part.path)
    except AvfeatError as error:
        part.drop()
        raise _Fault(str(error)) from error


def _persist(url: str, part: _Part, expected: Digest | None, progress: Progress | None) -> str:
    """Get the whole file from one URL into the part, over several attempts if need be."""
    attempts, spent, doubted = 0, 0, False
    while True:
        attempts += 1
        before = part.size()
        try:
            resumed = _transfer(url, part, expected is not None, progress)
        except _Fault as fault:
            if fault.again is None:
                raise
            # A download that gets on may break off any number of times.
            spent = fault.cost if part.size() >= before + _CHUNK else spent + fault.cost
            if spent >= ATTEMPTS:
                raise _Fault(f"{fault}, at attempt {attempts}") from fault
            # Jitter, so that the processes of a cluster do not all come back at once.
            sleep(max(fault.again, 2.0 ** (spent - 1) * random.uniform(0.5, 1.5)))
            continue
        difference, sha256 = (expected or ANY).difference(part.path)
        if difference is None:
            return sha256
        part.drop()
        if not resumed or doubted:
            raise _Fault(f"not the file it should be: {difference}")
        doubted = True  # the kept part may have been to blame, so once more from the start


def _transfer(url: str, part: _Part, hash_known: bool, progress: Progress | None) -> bool:
    """Make one request for what the part lacks; True if bytes of an earlier request were kept."""
    start, validator, total = part.resumable(url, hash_known)
    if start and start == total:
        return True  # whole: only the rename was missing
    # identity: Content-Length then counts the bytes that are written.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    done = start
    try:
        with requests.get(
            url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), headers=headers
        ) as response:
            if start and response.status_code in (206, 416) and not part.goes_on(response):
                part.drop()
                raise _Fault("the file has changed since its first part came", again=0)
            resumed = response.status_code == 206 and start > 0
            if not resumed and response.status_code != requests.codes.ok:
                raise _refused(response)
            if not resumed:
                done = 0
                part.begin(url, response)
            length = response.headers.get("Content-Length")
            sized = length is not None and "Content-Encoding" not in response.headers
            total = done + int(length) if length is not None and sized else None
            with part.path.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except requests.RequestException as error:
        raise _explained(error, done) from error
    if total is not None and done != total:
        raise _Fault(f"truncated: {done} of {total} bytes", again=0)
    return resumed


def _refused(response: requests.Response) -> _Fault:
    reason = f"HTTP {response.status_code} {response.reason}"
    if response.status_code not in _AGAIN:
        return _Fault(reason)
    wait = _retry_after(response.headers.get("Retry-After"))
    if wait > LONGEST_WAIT_SECONDS:
        return _Fault(f"{reason}, asks to wait {wait:.0f} s")
    return _Fault(reason, again=wait)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: it holds these, or a date."""
    if value is None:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _explained(error: requests.RequestException, done: int) -> _Fault:
    """Say what a failure of the network was, and whether it may pass."""
    if isinstance(error, requests.ConnectTimeout):
        # Costs double: a firewall that drops everything does so four times as well as two.
        return _Fault(f"no answer within {CONNECT_SECONDS:g} s", again=0, cost=2)
    if isinstance(error, requests.ReadTimeout):
        return _Fault(f"no answer within {READ_SECONDS:g} s of asking", again=0)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _Fault(f"broken off after {done} bytes", again=0)
    if isinstance(error, requests.ConnectionError):
        inner = getattr(error.args[0] if error.args else None, "reason", None)
        never = isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError)
        if never or isinstance(inner, urllib3.exceptions.NewConnectionError):
            return _Fault(f"cannot connect ({_root(error)})")
        # Also what requests makes of a read that stalls in mid-body.
        return _Fault(f"broken off after {done} bytes ({_root(error)})", again=0)
    return _Fault(str(error))


def _root(error: BaseException) -> str:
    """Innermost cause in a word: requests wraps it three times, with addresses of objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


class _Part:
    """``<path>.part`` and, beside it, where its bytes came from, without which none are kept."""

    def __init__(self, path: Path) -> None:
        self.path = _beside(path, ".part")
        self._note = _beside(path, ".part.json")

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, url: str, response: requests.Response) -> None:
        """Empty the part for a body that starts with byte 0."""
        # The part is emptied before the note changes: a kill in between leaves nothing to resume.
        self.path.open("wb").close()
        etag = response.headers.get("ETag")
        length = response.headers.get("Content-Length")
        note = {
            "url": url,
            "etag": etag,
            # A weak ETag does not promise equal bytes, so If-Range must not carry one (RFC 9110).
            "validator": etag
            if etag and not etag.startswith("W/")
            else response.headers.get("Last-Modified"),
            "total": int(length) if length and length.isdigit() else None,
        }
        if "Content-Encoding" in response.headers:  # offsets then count other bytes
            self._note.unlink(missing_ok=True)
        else:
            self._note.write_text(json.dumps(note))

    def resumable(self, url: str, hash_known: bool) -> tuple[int, str | None, int | None]:
        """Bytes to keep, what proves that the file is the same, and its length; 0 starts over."""
        note = self._read()
        validator, total = note.get("validator"), note.get("total")
        size = self.size()
        # Without a validator only the digest can show that two halves do not fit.
        if note.get("url") != url or not (validator or hash_known) or (total and size > total):
            return 0, None, None
        return size, validator, total

    def goes_on(self, response: requests.Response) -> bool:
        """Whether a partial answer starts where the part ends and is of the same file."""
        etag = response.headers.get("ETag")
        known = self._read().get("etag")
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        return (
            match is not None
            and int(match[1]) == self.size()
            and (etag is None or known is None or etag == known)
        )

    def drop(self) -> None:
        """Delete the part and its note."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
