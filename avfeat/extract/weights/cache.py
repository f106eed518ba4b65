"""Weights on disk: find, download, bring in.

A file is hashed before every use, and a wrong one is refused by name, never loaded.

A file lies under ``weights/<its published digest>/<its name>`` of the cache, or, where its
publisher states none, under its full SHA-256: files of two models can share a name without one
being taken for the other. What it was at first use is pinned, see `avfeat.extract.weights.pins`.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avfeat import config, download
from avfeat.digest import Digest
from avfeat.errors import DownloadError, WeightsError, WriteError
from avfeat.extract.weights import pins
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import Source, WeightsEntry

_log = logging.getLogger(__name__)


def folder() -> Path:
    """Where the cache keeps weights."""
    return config.cache_folder() / "weights"


def path_of(entry: WeightsEntry, source: Source) -> Path | None:
    """Say where the cache keeps the file of a source.

    None if that depends on a hash which its publisher does not state and nobody has seen yet.
    """
    if source.digest is not None:
        return folder() / place_of(source)
    pin = pins.read(entry.name, source.file)
    return None if pin is None else folder() / place_of(source, pin.sha256)


def place_of(source: Source, sha256: str = "") -> str:
    """Folder and file of a source under `folder`; the hash matters where no digest is published."""
    value = sha256 if source.digest is None else Digest.parse(source.digest).value
    return f"{value}/{source.file}"


def is_cached(entry: WeightsEntry) -> bool:
    """Whether all files of an entry are there; whether they are right shows when they are used.

    A file whose pin is damaged does not count: it is refused when it is used.
    """
    return all(any(_is_there(leaf, source) for source in leaf.sources) for leaf in entry.leaves)


def _is_there(entry: WeightsEntry, source: Source) -> bool:
    try:
        pins.read(entry.name, source.file)
        path = path_of(entry, source)
    except WeightsError:
        return False
    return path is not None and path.exists()


def wanted(entry: WeightsEntry) -> dict[str, Any]:
    """Say what would be fetched, from where to where: ``url``, ``path``, ``size_mib``, for a plan.

    Those of the first source, of each part if there are several; the size is None where a publisher
    does not state it.
    """
    firsts = [(leaf, leaf.sources[0]) for leaf in entry.leaves]
    sizes = [source.size_mib for _, source in firsts]
    return {
        "url": " + ".join(source.urls[0] for _, source in firsts),
        "path": " + ".join(
            str(path_of(leaf, source) or folder() / "<its SHA-256>" / source.file)
            for leaf, source in firsts
        ),
        "size_mib": None if None in sizes else sum(size for size in sizes if size is not None),
    }


def expected(entry: WeightsEntry, source: Source) -> Digest | None:
    """Say what a file has to come to: its pinned hash, else what is published, else nothing."""
    if (pin := pins.read(entry.name, source.file)) is not None:
        return Digest("sha256", pin.sha256)
    return None if source.digest is None else Digest.parse(source.digest)


def size_of(entry: WeightsEntry, source: Source) -> float | None:
    """Bytes of a file at least, None where nobody has stated its size or seen it."""
    if (pin := pins.read(entry.name, source.file)) is not None:
        return pin.size
    return source.least_bytes


def shortfall(path: Path, whole: float | None) -> str | None:
    """Say how much of a file is there, if it is smaller than the `whole`, as `size_of` has it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     shortfall(Path(file.name), 241.6e6)
    '0.0 MB of 241.6 MB'
    """
    size = path.stat().st_size
    if whole is None or size >= whole:
        return None
    if whole < 1e6:
        return f"{size} of {whole:.0f} bytes"
    return f"{size / 1e6:.1f} MB of {whole / 1e6:.1f} MB"


def find(entry: WeightsEntry) -> WeightsInfo | None:
    """Verified weights from the cache, or None if no source of the entry is there.

    Raises
    ------
    WeightsError
        A cached file is truncated, changed or another file.
    """
    if entry.parts:
        infos = [(name, find(part)) for name, part in entry.parts]
        whole = [(name, info) for name, info in infos if info is not None]
        return _together(entry, whole) if len(whole) == len(infos) else None
    for source in entry.sources:
        path = path_of(entry, source)
        if path is not None and path.exists():
            digest = expected(entry, source)
            assert digest is not None  # its path comes from a digest or a pin
            difference, sha256 = digest.difference(path)
            if difference is not None:
                short = shortfall(path, size_of(entry, source))
                reason = (
                    f"{short}: the download broke off"
                    if short
                    else f"{difference}. It was damaged or replaced"
                )
                raise WeightsError(
                    f"{path} is not {source.file} of {entry.name}: {reason}; delete it to have it "
                    "downloaded again"
                )
            return _info(entry, source, path, sha256)
    return None


def obtain(entry: WeightsEntry, *, progress: download.Progress | None = None) -> WeightsInfo:
    """Verified weights from the cache, downloaded first if need be.

    Sources are tried in the order of the entry, and the URLs of each in theirs. Of processes that
    start together one downloads. The full hash is pinned.

    Raises
    ------
    WeightsError
        The cached file is wrong, or no source gave the file: each URL is named with its reason,
        and so are the path where the file is wanted and the ways to go on without the network. Of
        weights of several parts, all that cannot be had are named.
    """
    if entry.parts:
        return _obtain_parts(entry, progress)
    found = find(entry)
    if found is None:
        reasons = []
        for source in entry.sources:
            try:
                found = _download(entry, source, progress)
                break
            except DownloadError as error:
                reasons.append(str(error))
        else:
            raise _unavailable(entry, reasons)
    with contextlib.suppress(OSError):  # a cache that others share may be read-only
        _pin(entry, found)
    return found


def _obtain_parts(entry: WeightsEntry, progress: download.Progress | None) -> WeightsInfo:
    infos, errors = [], []
    for name, part in entry.parts:
        try:
            infos.append((name, obtain(part, progress=progress)))
        except WeightsError as error:
            errors.append(error)
    if errors:  # of all parts: whoever brings one by hand wants to know of the others
        raise WeightsError("\n".join(map(str, errors))) from errors[0]
    return _together(entry, infos)


def adopt(entry: WeightsEntry, source: Source, file: Path, sha256: str) -> WeightsInfo:
    """Copy a file that is known to be that of a source into the cache, and pin it.

    Parameters
    ----------
    sha256
        Of the file, in full: the copy is hashed again.

    Raises
    ------
    WeightsError
        The file changed while it was copied.
    WriteError
        The cache cannot be written.
    """
    path = folder() / place_of(source, sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with download.alone(path):
            part = path.with_name(path.name + ".import")
            shutil.copyfile(file, part)
            if download.sha256_file(part) != sha256:
                part.unlink()
                raise WeightsError(f"{file} changed while it was read; nothing was imported")
            part.replace(path)
        info = _info(entry, source, path, sha256)
        _pin(entry, info)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error}") from error
    return info


def _download(
    entry: WeightsEntry, source: Source, progress: download.Progress | None
) -> WeightsInfo:
    digest = expected(entry, source)
    if source.digest is not None:
        path = folder() / place_of(source)
        sha256 = download.fetch(source.urls, path, digest=digest, progress=progress)
        return _info(entry, source, path, sha256)
    # Its place is known once its bytes are; until then it goes by the names of entry and file.
    arrival = folder() / "incoming" / quote(entry.name, safe="") / source.file
    try:
        if not download.offline():
            arrival.parent.mkdir(parents=True, exist_ok=True)
            with download.alone(arrival.parent, progress=progress):
                return find(entry) or _arrive(entry, source, arrival, digest, progress)
        return _arrive(entry, source, arrival, digest, progress)
    except OSError as error:
        if isinstance(error, DownloadError | WriteError):
            raise
        raise WriteError(f"cannot write {arrival}: {error}") from error


def _arrive(
    entry: WeightsEntry,
    source: Source,
    arrival: Path,
    digest: Digest | None,
    progress: download.Progress | None,
) -> WeightsInfo:
    from avfeat.extract.weights.read import read_state

    def readable(file: Path) -> None:
        read_state(file)

    # Read before it counts, or a hotel's sign-in page would be pinned as the weights.
    sha256 = download.fetch(source.urls, arrival, digest=digest, accept=readable, progress=progress)
    path = folder() / place_of(source, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrival.replace(path)
    info = _info(entry, source, path, sha256)
    _pin(entry, info)  # before the lock is let go: the pin alone says where the file lies
    return info


def _pin(entry: WeightsEntry, info: WeightsInfo) -> None:
    assert info.file is not None and info.url is not None  # published weights have both
    assert info.sha256 is not None and info.path is not None
    if pins.read(entry.name, info.file) is None:
        pins.write(
            pins.Pin(
                weights=entry.name,
                file=info.file,
                url=info.url,
                sha256=info.sha256,
                size=info.path.stat().st_size,
                place=info.path.relative_to(folder()).as_posix(),
            )
        )
        if any(source.file == info.file and source.digest is None for source in entry.sources):
            # Without any handler this goes to stderr: nobody but the user can judge the hash.
            _log.warning(
                "%s: %s states no digest of %s; its SHA-256 is pinned from now on: %s",
                *(entry.name, info.url, info.file, info.sha256),
            )


def _unavailable(entry: WeightsEntry, reasons: Sequence[str]) -> WeightsError:
    first = entry.sources[0]
    path = path_of(entry, first)
    pinned = [
        f"{pin.file} must have the SHA-256 {pin.sha256}, as when it was first used; delete "
        f"{pins.path_of(pin.weights, pin.file)} to accept another one"
        for source in entry.sources
        if (pin := pins.read(entry.name, source.file)) is not None
    ]
    return WeightsError(
        "\n".join(
            [
                f"weights {entry.name} are not in the cache and cannot be downloaded.",
                *reasons,
                *pinned,
                f"Get {first.file} in another way and run `avfeat weights import FILE "
                f"--as {entry.name}`{f', which puts it at {path}' if path else ''}. "
                "To try things out without real features, run `avfeat extract --weights random`.",
            ]
        )
    )


def _info(entry: WeightsEntry, source: Source, path: Path, sha256: str) -> WeightsInfo:
    return WeightsInfo(
        source="published",
        tag=entry.tag,
        file=source.file,
        sha256=sha256,
        url=source.urls[0],
        licence=entry.licence,
        citation=entry.citation,
        path=path,
    )


def _together(entry: WeightsEntry, parts: Sequence[tuple[str, WeightsInfo]]) -> WeightsInfo:
    infos = [info for _, info in parts]
    return WeightsInfo(
        source="published",
        tag=entry.tag,
        file=" + ".join(str(info.file) for info in infos),
        sha256="+".join(str(info.sha256) for info in infos),
        url=" + ".join(str(info.url) for info in infos),
        licence=entry.licence,
        citation=entry.citation,
        parts=tuple(parts),
    )
