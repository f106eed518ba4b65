"""Any folder of videos: one clip per file, the whole file long, without labels."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from avfeat.datasets.base import Dataset, register
from avfeat.datasets.mediafiles import is_media, scan
from avfeat.errors import MediaError
from avfeat.extract import media as mediafile
from avfeat.manifests.clips import Clip, ClipManifest

_UNKNOWN = float("nan")


@register
class Folder(Dataset):
    """Every video or audio file below a folder; clip ids are file names without suffix."""

    name = "folder"
    title = "any folder of videos: one clip per file, no labels"
    naming = "any video or audio file, in subfolders too"

    def load(self, *, annotations: Path | None, data: Path) -> ClipManifest:
        """See `Dataset.load`. There are no annotations; durations are read from the files."""
        found = [path for path in scan(data, recursive=True) if is_media(path)]
        paths = [path for path in found if _is_utf8(path)]
        notes = [
            f"{os.fsencode(path.relative_to(data))!r} is left out: its name is not UTF-8; rename it"
            for path in found
            if not _is_utf8(path)
        ]
        taken = Counter([*paths, *(path.with_suffix("") for path in paths)])
        clips, media = [], {}
        for path in paths:
            # Files that differ in suffix alone keep it in their ids.
            named = path if taken[path.with_suffix("")] > 1 else path.with_suffix("")
            clip_id = named.relative_to(data).as_posix()
            media[clip_id] = path
            clips.append(Clip(clip_id, 0.0, _duration(path)))
        return ClipManifest(self.name, tuple(clips), media, data, notes=tuple(notes))

    def searched_names(self) -> str:
        """See `Dataset.searched_names`."""
        return "*.mp4, *.mkv, *.webm, *.avi, *.mov, *.wav, … (in subfolders too)"


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _duration(path: Path) -> float:
    """Length of the first video stream, or of the audio where there is none; NaN if unknown.

    A file that cannot be opened still becomes a clip: extraction then says what is wrong with it.
    """
    try:
        info = mediafile.probe(path)
    except MediaError:
        return _UNKNOWN
    streams = [stream.duration for stream in (info.video, info.audio) if stream is not None]
    return next((seconds for seconds in (*streams, info.duration) if seconds), _UNKNOWN)
