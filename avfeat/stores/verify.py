"""Proving a store whole: every digest, every chunk's checksum, every row where it should be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from avfeat.errors import IntegrityError, StoreNotFoundError
from avfeat.manifests.clips import WITH_ROWS, Clip, Outcome
from avfeat.manifests.store import Layout, StoreManifest
from avfeat.stores.arrays import GROUP
from avfeat.stores.files import Files, sha256
from avfeat.stores.ledger import FOLDER, LedgerEntry, has_journal, is_entry, ledger_name
from avfeat.stores.rows import StoredRows
from avfeat.stores.state import CLIPS, MANIFEST, RUNS, peek, read_clips


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    store
        Path or URL of the store.
    units, clips, rows, files
        How much was checked: committed units, clips of the store, rows, files.
    problems
        What is wrong, one line each, naming unit and clip; empty if the store is sound.
    notes
        What is unfinished or foreign rather than wrong.
    entries
        Paths of the ledger entries of units with problems: without its entry a unit is done again.
    finished
        Whether every clip was extracted and no run is writing or was killed.
    """

    store: str
    units: int = 0
    clips: int = 0
    rows: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    finished: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(url: str) -> VerifyReport:
    """Check every byte of a store against the digests it was written with.

    Raises
    ------
    StoreNotFoundError, StoreError
        If there is no store. Damage is reported, not raised.
    """
    files, report = Files(url), VerifyReport(str(url))
    try:
        manifest = peek(files)
    except IntegrityError as error:
        report.problems.append(str(error))
        return report
    if manifest is None:
        raise StoreNotFoundError(f"there is no store at {url}")
    # While a run writes, clips.parquet may be ahead; its pages have checksums of their own.
    sound = {
        name: _check_file(report, files, name, expected, where="")
        for name, expected in manifest.files.items()
        if manifest.at_rest or name != CLIPS
    }
    table = read_clips(files)
    if table is None or len(table[0]) < manifest.layout.clips:
        report.problems.append(f"{CLIPS} cannot be read, so rows cannot be told by clip")
        return report
    clips = table[0]
    outcomes = [Outcome()] * len(clips)
    ledger = _check_ledger(report, files, manifest, clips)
    # Damaged metadata would be found again in every row; the shards' digests speak for the rows.
    arrays_sound = all(right for name, right in sound.items() if name.startswith(f"{GROUP}/"))
    rows = StoredRows(files) if arrays_sound else None
    for unit, entry in ledger.items():
        indices = manifest.layout.unit_range(unit)[: len(entry.clips)]
        for index, (_, outcome) in zip(indices, entry.clips, strict=True):
            outcomes[index] = outcome
        known = len(report.problems)
        _check_unit(report, files, manifest.layout, entry, indices, rows)
        if len(report.problems) > known:
            report.entries.append(files.path(entry.name))
    report.units, report.clips = len(ledger), len(clips)
    report.rows = sum(outcome.rows for outcome in outcomes)
    _note_unfinished(report, files, manifest, outcomes, ledger)
    return report


def _check_file(report: VerifyReport, files: Files, name: str, expected: str, where: str) -> bool:
    report.files += 1
    try:
        problem = None if sha256(files.read(name)) == expected else "was changed after writing"
    except FileNotFoundError:
        problem = "is gone"
    except OSError as error:
        problem = f"cannot be read: {error}"
    if problem:
        report.problems.append(f"{where}{name} {problem}")
    return problem is None


def _check_ledger(
    report: VerifyReport, files: Files, manifest: StoreManifest, clips: tuple[Clip, ...]
) -> dict[int, LedgerEntry]:
    """Read the ledger entry by entry; return the sound ones."""
    ledger: dict[int, LedgerEntry] = {}
    present = set(files.list(FOLDER))
    for unit in range(manifest.layout.units):
        name = ledger_name(unit)
        listed = manifest.ledger.get(f"{unit:06d}")
        ids = [clips[index].id for index in manifest.layout.unit_range(unit)]
        where = f"unit {unit} (clips {ids[0]} to {ids[-1]}): {name}"
        if name not in present:
            if listed is not None or (manifest.complete and manifest.at_rest):
                report.problems.append(f"{where} is gone")
            continue
        report.files += 1
        try:
            data = files.read(name)
            entry = LedgerEntry.from_bytes(data, name)
        except (IntegrityError, OSError) as error:
            report.problems.append(f"{where}: {error}")
            report.entries.append(files.path(name))
            continue
        known = len(report.problems)
        if entry.unit != unit or [clip_id for clip_id, _ in entry.clips] != ids[: len(entry.clips)]:
            report.problems.append(f"{where} lists other clips than {CLIPS}")
        elif entry.fingerprint != manifest.fingerprint:
            report.problems.append(f"{where} is of another recipe than {MANIFEST}")
        elif manifest.at_rest and sha256(data) != listed:
            report.problems.append(f"{where} is not the entry that {MANIFEST} lists")
        else:
            ledger[unit] = entry
        if len(report.problems) > known:
            report.entries.append(files.path(name))
    beyond = present - {ledger_name(unit) for unit in range(manifest.layout.units)}
    report.problems += [
        f"{name} is the entry of no unit of the store" for name in sorted(filter(is_entry, beyond))
    ]
    return ledger


def _check_unit(
    report: VerifyReport,
    files: Files,
    layout: Layout,
    entry: LedgerEntry,
    indices: range,
    rows: StoredRows | None,
) -> None:
    """Check a unit's shards, then read every row back so that each inner checksum is tested."""
    with_rows = [clip_id for clip_id, outcome in entry.clips if outcome.status in WITH_ROWS]
    where = f"unit {entry.unit} (rows of {', '.join(with_rows)}): "
    for name, expected in entry.files.items():
        _check_file(report, files, name, expected, where)
    for index, (clip_id, outcome) in zip(indices, entry.clips, strict=True):
        if rows is None or outcome.status not in WITH_ROWS:
            continue
        try:
            # By the shard, not by the clip: an hour of maps is larger than memory.
            pieces = rows.pieces(index, outcome.rows, size=layout.shard_rows, clip_id=clip_id)
            plausible = _plausible(outcome, pieces)
        except IntegrityError as error:
            reason = str(error).partition(f": clip {clip_id}: ")[2]
            report.problems.append(f"unit {entry.unit}, clip {clip_id}: {reason}")
            continue
        if not plausible:
            report.problems.append(
                f"unit {entry.unit}, clip {clip_id}: rows are not finite, or not in order of time"
            )


def _plausible(outcome: Outcome, pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    count, last, finite, ordered = 0, -np.inf, True, True
    # To the end even where rows are not plausible: each inner checksum is to be tested.
    for features, times in pieces:
        count += len(features) if len(features) == len(times) else 0
        finite = finite and bool(np.isfinite(features).all())
        ordered = ordered and bool((np.diff(times) >= 0).all()) and bool(times[0] >= last)
        last = times[-1]
    return finite and ordered and count == outcome.rows


def _note_unfinished(
    report: VerifyReport,
    files: Files,
    manifest: StoreManifest,
    outcomes: list[Outcome],
    ledger: dict[int, LedgerEntry],
) -> None:
    pending = sum(outcome.status == "pending" for outcome in outcomes)
    report.finished = manifest.at_rest and not pending
    if pending:
        report.notes.append(f"{pending} of {len(outcomes)} clips are not extracted yet")
    if not manifest.at_rest:
        report.notes.append("a run is writing, or was killed; the same command again finishes it")
    if has_journal(files):
        report.notes.append("a killed run left a unit in the journal; the next run finishes it")
    known = {MANIFEST, *manifest.files}
    for entry in ledger.values():
        known.update(entry.files)
    shards = tuple(f"{GROUP}/{array}/c/" for array in ("features", "time", "length"))
    for name in files.list():
        if name in known or name.startswith((f"{RUNS}/", "journal/")) or is_entry(name):
            continue
        if name.startswith(shards):
            report.notes.append(f"{name} belongs to no committed unit")
        elif manifest.at_rest or not name.startswith(f"{GROUP}/"):
            report.notes.append(f"{name} is not part of the store")
