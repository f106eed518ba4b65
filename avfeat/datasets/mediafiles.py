"""Finding media files in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from avfeat.errors import MediaNotFoundError

#: Suffixes taken for video, then audio; of several files for one clip the first listed wins.
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".wmv", ".ts", ".mts", ".m2ts"),
    *(".mpg", ".mpeg", ".vob", ".3gp", ".3g2", ".ogv", ".asf", ".gif"),
)
AUDIO_SUFFIXES = (".wav", ".flac", ".m4a", ".mp3", ".aac", ".ogg", ".opus", ".wma")
_RANK = {suffix: rank for rank, suffix in enumerate(VIDEO_SUFFIXES + AUDIO_SUFFIXES)}

#: What lies beside videos without being one.
_SIDECARS = frozenset(
    {".json", ".txt", ".csv", ".srt", ".vtt", ".jpg", ".jpeg", ".png", ".webp", ".npy", ".h5"}
    | {".part", ".ytdl", ".tmp", ".description", ".nfo", ".md", ".xml", ".zip", ".gz"}
)


def is_media(path: Path) -> bool:
    """Whether the suffix is one of a known video or audio format."""
    return path.suffix.lower() in _RANK


def scan(folder: Path, *, recursive: bool = False, notes: list[str]) -> Iterator[Path]:
    """Yield the files in `folder`, sorted; hidden ones, pipes and devices are left out.

    Links are followed, but into no folder on the way to them. A link to nothing is yielded:
    opening it says what is wrong. Folders below that cannot be read, and names that are not UTF-8
    (no manifest could hold them), are left out with a word in `notes`.

    Raises
    ------
    MediaNotFoundError
        If `folder` itself is not there or cannot be read.
    """
    try:
        yield from _scan(folder, _way(folder.resolve()), recursive, notes)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MediaNotFoundError(
            f"cannot read the media folder {folder}: {reason}; name it with --data DIR"
        ) from error


def _scan(
    folder: Path, above: frozenset[Path], recursive: bool, notes: list[str]
) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            mode = path.stat().st_mode
        except OSError:
            mode = stat.S_IFREG  # opening it will say what is wrong
        if stat.S_ISREG(mode):
            if _is_utf8(entry.name):
                yield path
            else:
                notes.append(f"{os.fsencode(path)!r} is left out: its name is not UTF-8; rename it")
        elif stat.S_ISDIR(mode) and recursive and (real := path.resolve()) not in above:
            try:
                yield from _scan(path, above | _way(real), recursive, notes)
            except OSError as error:
                notes.append(f"the folder {path} is left out: {error.strerror or error}")


def _way(folder: Path) -> frozenset[Path]:
    """Return a resolved folder and all that it lies in."""
    return frozenset({folder, *folder.parents})


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def by_stem(folder: Path, *, notes: list[str]) -> dict[str, Path]:
    """Map the name without suffix to the file, for the files in `folder` that may be media.

    Of several files with one stem the one with the likeliest suffix is taken.
    """
    best: dict[str, tuple[int, Path]] = {}
    for path in scan(folder, notes=notes):
        suffix = path.suffix.lower()
        if suffix in _SIDECARS:
            continue
        rank = _RANK.get(suffix, len(_RANK))
        if path.stem not in best or rank < best[path.stem][0]:
            best[path.stem] = (rank, path)
    return {stem: path for stem, (_, path) in best.items()}
