"""Weights on disk: find, download.

A file is hashed before every use, and a wrong one is refused by name, never loaded.

A file lies under ``weights/<its hash or published prefix>/<its name>`` of the cache: files of two
models can share a name without one being taken for the other.
"""

from __future__ import annotations

from pathlib import Path

from avfeat import config, download
from avfeat.errors import DownloadError, WeightsError
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import Source, WeightsEntry


def path_of(source: Source) -> Path:
    """Say where the cache keeps the file of a source."""
    return config.cache_folder() / "weights" / source.sha256 / source.file


def find(entry: WeightsEntry) -> WeightsInfo | None:
    """Verified weights from the cache, or None if no source of the entry is there.

    Raises
    ------
    WeightsError
        A cached file is truncated, changed or another file.
    """
    for source in entry.sources:
        path = path_of(source)
        if path.exists():
            found = download.sha256_file(path)
            if not found.startswith(source.sha256):
                raise WeightsError(
                    f"{path} is not {source.file} of {entry.name}: its SHA-256 is {found}, "
                    f"expected {source.sha256}, {path.stat().st_size} bytes. It was damaged or "
                    "replaced; delete it to have it downloaded again"
                )
            return _info(entry, source, path, found)
    return None


def obtain(entry: WeightsEntry, *, progress: download.Progress | None = None) -> WeightsInfo:
    """Verified weights from the cache, downloaded first if need be.

    Sources are tried in the order of the entry.

    Raises
    ------
    WeightsError
        The cached file is wrong, or no source gave the file: each URL is named with its reason,
        and so are the path where the file is wanted and the ways to go on without the network.
    """
    cached = find(entry)
    if cached is not None:
        return cached
    reasons = []
    for source in entry.sources:
        path = path_of(source)
        try:
            found = download.fetch(source.urls, path, sha256=source.sha256, progress=progress)
        except DownloadError as error:
            reasons.append(str(error))
        else:
            return _info(entry, source, path, found)
    wanted = entry.sources[0]
    raise WeightsError(
        "\n".join(
            [
                f"weights {entry.name} are not in the cache and cannot be downloaded.",
                *reasons,
                f"Put {wanted.file} from elsewhere at {path_of(wanted)} (the next version does "
                f"that by `avfeat weights import {entry.name} FILE`). "
                "To try things out without real features, use `--weights random`.",
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
