"""LLP, Look, Listen and Parse (Tian, Li, Xu: Unified Multisensory Perception, ECCV 2020).

11 849 ten-second clips of 25 classes, weakly labelled; val and test also have audio and visual
events by the second. Files, counts and known defects: docs/datasets.md. Raw quirks of the official
files are kept, because published numbers contain them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from avfeat import config, download
from avfeat.datasets.base import Dataset, register
from avfeat.datasets.mediafiles import by_stem
from avfeat.errors import AnnotationError, DownloadError
from avfeat.manifests.clips import Clip, ClipManifest, Event
from avfeat.stores.files import sha256

_URL = "https://raw.githubusercontent.com/YapengTian/AVVP-ECCV20/master/data/"

#: Official files and their sha256 (the audio file as corrected in April 2024).
OFFICIAL_SHA256 = {
    "AVVP_train.csv": "bbeb83e8af46a85075216b213d3464f92dd4ab71468c852ae454b82cc745c0a4",
    "AVVP_val_pd.csv": "1811813b54c5f43c3be0a97bd0971cfb8a93818ca7b3ab96cdc7f4ac37ef37a6",
    "AVVP_test_pd.csv": "3f7a2b040e3b67c15d08efef25002bf8c5b2320f11049eb99ae0eb2d62f8eb9b",
    "AVVP_eval_audio.csv": "d5435664668bec6e7eafb39059d2f424ed2682f6b55395262fc3cb691b7d0778",
    "AVVP_eval_visual.csv": "e2274af694f3f27e38b840e0cd91a9d8d9ac85280f193e90828d26b22db69abe",
}
_SPLITS = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
_EVENTS = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
_WEAK_HEADER = ["filename", "event_labels"]
_EVENT_HEADER = ["filename", "onset", "offset", "event_labels"]

_ID_LENGTH = 11
_SECONDS = 10.0
_TIMES = re.compile(r"_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")


@register
class Llp(Dataset):
    """LLP; clip ids are the official ``<11-character YouTube id>_<start>_<end>``."""

    name = "llp"
    title = "LLP, audio-visual video parsing: 11 849 clips of 10 s, 25 classes"
    paper = "Tian, Li, Xu: Unified Multisensory Perception, ECCV 2020, arXiv 2007.10558"
    sampling = "avvp"
    naming = "<11-character id>.* or <filename column>.*"
    licence = "GPL-3.0 by its repository; labels derive from AudioSet (CC BY 4.0)"
    #: Canonical order of every published consumer.
    classes = (
        *("Speech", "Car", "Cheering", "Dog", "Cat", "Frying_(food)", "Basketball_bounce"),
        *("Fire_alarm", "Chainsaw", "Cello", "Banjo", "Singing", "Chicken_rooster"),
        *("Violin_fiddle", "Vacuum_cleaner", "Baby_laughter", "Accordion", "Lawn_mower"),
        *("Motorcycle", "Helicopter", "Acoustic_guitar", "Telephone_bell_ringing"),
        *("Baby_cry_infant_cry", "Blender", "Clapping"),
    )

    def load(self, *, annotations: Path | None, data: Path) -> ClipManifest:
        """See `Dataset.load`."""
        folder = annotations if annotations is not None else _fetch()
        files = _read_files(folder)
        clips: dict[str, Clip] = {}
        for split, name in _SPLITS.items():
            for clip in _clips(files[name], name, split, self.classes):
                if clip.id in clips:
                    raise AnnotationError(
                        f"{folder / name}: {clip.id} stands in two places of the split files; "
                        "ids must be unique"
                    )
                clips[clip.id] = clip
        notes = _add_events(clips, files, self.classes)
        stems = by_stem(data, notes=notes)
        media = {
            clip_id: path
            for clip_id in clips
            if (path := stems.get(clip_id[:_ID_LENGTH]) or stems.get(clip_id))
        }
        return ClipManifest(
            dataset=self.name,
            clips=tuple(clips.values()),
            media=media,
            data_root=data,
            classes=self.classes,
            provenance={
                "annotations": {name: sha256(content) for name, content in files.items()},
                "labels_version": _labels_version(files),
            },
            notes=tuple(notes),
        )

    def searched_names(self) -> str:
        """See `Dataset.searched_names`."""
        return "<11-character id>.* (such as BjCEufrlXm4.mp4) or <filename>.*"


def _fetch() -> Path:
    """Fetch the official files once into the cache."""
    folder = config.cache_folder() / "annotations" / "llp"
    for name, expected in OFFICIAL_SHA256.items():
        try:
            download.fetch([_URL + name], folder / name, sha256=expected)
        except DownloadError as error:
            raise AnnotationError(
                f"the LLP annotation file {name} is not at hand and could not be fetched: {error}\n"
                "Name a folder that holds the official CSV files with --annotations DIR "
                "(they are the data/ folder of https://github.com/YapengTian/AVVP-ECCV20)"
            ) from error
    return folder


def _read_files(folder: Path) -> dict[str, bytes]:
    files = {}
    for name in OFFICIAL_SHA256:
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise AnnotationError(
                f"cannot read {folder / name}: {error.strerror}; --annotations DIR must hold "
                f"{', '.join(OFFICIAL_SHA256)}"
            ) from error
    return files


def _labels_version(files: dict[str, bytes]) -> str:
    changed = [name for name, data in files.items() if sha256(data) != OFFICIAL_SHA256[name]]
    return f"other ({', '.join(changed)} differ)" if changed else "official, corrected 2024-04"


def _rows(content: bytes, name: str, header: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line number, columns)`` of a tab-separated file after checking its header."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{name} is not text: {error}") from error
    first, expected = "".join(lines[:1]), "\t".join(header)
    if first != expected:
        raise AnnotationError(
            f"{name} is not the official file: its first line is {first[:80]!r}, not {expected!r}"
        )
    for number, row in enumerate((line.split("\t") for line in lines[1:]), start=2):
        if row != [""]:
            yield number, row


def _clips(content: bytes, name: str, split: str, classes: tuple[str, ...]) -> Iterator[Clip]:
    for number, row in _rows(content, name, _WEAK_HEADER):
        where = f"{name} line {number}"
        if len(row) != len(_WEAK_HEADER):
            yield _bad_clip(row[0], split, f"{where}: {len(row)} columns instead of 2")
            continue
        labels = tuple(row[1].split(","))
        unknown = [label for label in labels if label not in classes]
        times = _TIMES.fullmatch(row[0][_ID_LENGTH:])
        # Binary fractions: 111.8 - 101.8 is not exactly 10.
        if times is None or abs(float(times[2]) - float(times[1]) - _SECONDS) > 1e-6:
            wanted = "<11-character id>_<start>_<start + 10>"
            yield _bad_clip(row[0], split, f"{where}: {row[0]!r} is not {wanted}")
            continue
        problem = f"{where}: unknown label {unknown[0]!r}" if unknown else None
        start = float(times[1])
        yield Clip(row[0], start, start + _SECONDS, split, labels, problem=problem)


def _bad_clip(clip_id: str, split: str, problem: str) -> Clip:
    return Clip(clip_id, float("nan"), float("nan"), split, problem=problem)


def _add_events(
    clips: dict[str, Clip], files: dict[str, bytes], classes: tuple[str, ...]
) -> list[str]:
    """Attach dense events to their clips, as annotated; return what did not fit."""
    events: dict[str, list[Event]] = {}
    problems: dict[str, str] = {}
    notes = []
    for modality, name in _EVENTS.items():
        unmatched = 0
        for number, row in _rows(files[name], name, _EVENT_HEADER):
            if row[0] not in clips:
                unmatched += 1
                continue
            try:
                _, onset, offset, label = row
                event = Event(modality, label, float(onset), float(offset))  # type: ignore[arg-type]
            except ValueError:
                problems[row[0]] = f"{name} line {number}: bad time or column in {row}"
                continue
            if label not in classes:
                problems[row[0]] = f"{name} line {number}: unknown label {label!r}"
            elif not (0 <= event.onset <= _SECONDS and 0 <= event.offset <= _SECONDS):
                problems[row[0]] = f"{name} line {number}: {onset}-{offset} s is outside the clip"
            else:
                # Zero-length and inverted rows of the official files stay: consumers ignore them.
                events.setdefault(row[0], []).append(event)
        if unmatched:
            official = sha256(files[name]) == OFFICIAL_SHA256[name]
            known = ", as the official file has them" if official else ""
            notes.append(f"{name}: {unmatched} rows name no clip (left out{known})")
    for clip_id in events.keys() | problems.keys():
        clip = clips[clip_id]
        clips[clip_id] = dataclasses.replace(
            clip,
            events=tuple(events.get(clip_id, ())),
            problem=clip.problem or problems.get(clip_id),
        )
    return notes
