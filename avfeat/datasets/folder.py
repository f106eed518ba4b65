"""Any folder of videos: one clip per file, the whole file long, without labels."""

from __future__ import annotations

from pathlib import Path

from avfeat.datasets.base import Dataset, register
from avfeat.datasets.mediafiles import is_media, scan
from avfeat.errors import MediaError
from avfeat.extract import media as mediafile
from avfeat.manifests.clips import Clip, ClipManifest

_UNKNOWN = float("nan")


@register
class Folder(Dataset):
    """Every video or audio file below a folder; clip ids are paths within it."""

    name = "folder"
    title = "any folder of videos: one clip per file, no labels"
    untrimmed = True
    naming = "any video or audio file, in subfolders too"

    def load(self, *, annotations: Path | None, data: Path) -> ClipManifest:
        """See `Dataset.load`. There are no annotations; durations are read from the files."""
        notes: list[str] = []
        clips, media = [], {}
        for path in scan(data, recursive=True, notes=notes):
            if is_media(path):
                # With its suffix: two files may differ in that alone, and one may come later.
                clip_id = path.relative_to(data).as_posix()
                media[clip_id] = path
                clips.append(Clip(clip_id, 0.0, _duration(path)))
        return ClipManifest(
            self.name, tuple(clips), media, data, notes=tuple(notes), annotated_times=False
        )

    def searched_names(self) -> str:
        """See `Dataset.searched_names`."""
        return "*.mp4, *.mkv, *.webm, *.avi, *.mov, *.wav, … (in subfolders too)"


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
