"""The clip manifest: what a data set says of each clip, and what became of it in a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["pending", "ok", "degraded", "missing", "no_audio", "no_video", "failed"]

#: Every status a clip may have. All but ``pending`` are final for a run; ``ok`` and ``degraded``
#: have rows, the others have none.
STATUSES: tuple[Status, ...] = (
    "ok",
    "degraded",
    "missing",
    "no_audio",
    "no_video",
    "failed",
    "pending",
)
WITH_ROWS: frozenset[Status] = frozenset({"ok", "degraded"})


@dataclass(frozen=True, slots=True)
class Event:
    """One annotated event: half-open [onset, offset) in seconds from the clip's start."""

    modality: Literal["audio", "visual"]
    label: str
    onset: float
    offset: float


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a data set, as its annotations give it.

    Attributes
    ----------
    id
        Unique within the data set; the key of every store made from it.
    start, end
        Half-open window in seconds of the source media. NaN where it could not be known
        (a file that cannot be opened).
    split
        ``train``, ``val`` or ``test``; ``all`` where the data set has none.
    labels
        Weak (clip-level) labels, as annotated.
    events
        Dense labels where the data set has them, as annotated.
    problem
        What is wrong with the annotation; such a clip ends as ``failed(bad_annotation)``.
    """

    id: str
    start: float
    end: float
    split: str = "all"
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    problem: str | None = None

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one clip in one store. Holds nothing that depends on when or where.

    Attributes
    ----------
    status, kind, message
        See `STATUSES`; ``kind`` and ``message`` say why where the status is not ``ok``.
    rows
        Valid feature rows; 0 unless the status is ``ok`` or ``degraded``.
    media, media_bytes, media_sha256, media_duration
        The file the rows were made from: name within the data folder, size, digest, seconds.
    corrupt_frames
        Frames (or audio packets) the decoder could not restore.
    short
        Seconds of the clip that the stream does not cover.
    """

    status: Status = "pending"
    kind: str = ""
    message: str = ""
    rows: int = 0
    media: str = ""
    media_bytes: int = 0
    media_sha256: str = ""
    media_duration: float = 0.0
    corrupt_frames: int = 0
    short: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults (what the ledger stores)."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


@dataclass(frozen=True, slots=True)
class ClipManifest:
    """All clips of a data set, where their media lies, and what the annotations were.

    Attributes
    ----------
    dataset
        Name of the data set.
    clips
        In the data set's own order, ids unique.
    media
        Clip id to media file, for the clips whose media was found.
    data_root
        Folder that `media` lies in.
    classes
        Canonical class order; empty where the data set has no labels.
    provenance
        What identifies the annotations (file digests, version); stored in manifest.json.
    notes
        Things worth telling the user about annotations and media.
    annotated_times
        Whether windows come from annotations, or else from the files' own lengths.
    """

    dataset: str
    clips: tuple[Clip, ...]
    media: Mapping[str, Path]
    data_root: Path
    classes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    annotated_times: bool = True


_EVENT = pa.struct(
    [
        ("modality", pa.string()),
        ("label", pa.string()),
        ("onset", pa.float64()),
        ("offset", pa.float64()),
    ]
)

#: Columns of clips.parquet (store format 1).
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("index", pa.int64()),
        ("split", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("labels", pa.list_(pa.string())),
        ("events", pa.list_(_EVENT)),
        ("problem", pa.string()),
        ("status", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("rows", pa.int64()),
        ("media", pa.string()),
        ("media_bytes", pa.int64()),
        ("media_sha256", pa.string()),
        ("media_duration", pa.float64()),
        ("corrupt_frames", pa.int64()),
        ("short", pa.float64()),
    ],
    metadata={"encoding-type": "avfeat.clips", "encoding-version": "1"},
)


def to_table(clips: Sequence[Clip], outcomes: Sequence[Outcome]) -> pa.Table:
    """Build the clips.parquet table: one row per clip, in store order."""
    rows = [
        {**dataclasses.asdict(clip), "index": index, **dataclasses.asdict(outcome)}
        for index, (clip, outcome) in enumerate(zip(clips, outcomes, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> tuple[tuple[Clip, ...], tuple[Outcome, ...]]:
    """Read back what `to_table` built."""
    names = [field.name for field in dataclasses.fields(Outcome)]
    outcomes = zip(*(table[name].to_pylist() for name in names), strict=True)
    return clips_of(table), tuple(Outcome(*one) for one in outcomes)


def clips_of(table: pa.Table) -> tuple[Clip, ...]:
    """Read back the clips of what `to_table` built, without what became of them."""
    columns = [table[field.name].to_pylist() for field in dataclasses.fields(Clip)]
    return tuple(
        Clip(id_, start, end, split, tuple(labels), tuple(Event(**one) for one in events), problem)
        for id_, start, end, split, labels, events, problem in zip(*columns, strict=True)
    )


def count_statuses(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Count outcomes by status, in the order of `STATUSES`, zero counts left out."""
    found = [outcome.status for outcome in outcomes]
    return {status: found.count(status) for status in STATUSES if status in found}
