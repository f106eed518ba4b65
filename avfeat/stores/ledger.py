"""The ledger: one small file per committed unit, written last. Its rename is the commit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from avfeat.errors import IntegrityError, StoreBusyError, StoreError, WriteError
from avfeat.manifests import jsonfile
from avfeat.manifests.clips import Outcome
from avfeat.stores.files import Files, sha256

FOLDER = "ledger"
_JOURNAL = "journal"
_ENTRY = "entry.json"
_TRIES = 5  # of two owners of a unit that get in each other's way


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What one unit holds.

    Attributes
    ----------
    unit
        Unit number.
    fingerprint
        Of the recipe the rows were made by.
    clips
        Clip id and outcome of each clip, in store order.
    files
        File name to sha256 of each shard of the unit.
    """

    unit: int
    fingerprint: str
    clips: tuple[tuple[str, Outcome], ...]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """File name of the entry, relative to the store."""
        return ledger_name(self.unit)

    def to_bytes(self) -> bytes:
        """Serialise, with a digest over the content."""
        return jsonfile.seal(
            {
                "unit": self.unit,
                "fingerprint": self.fingerprint,
                "clips": [{"id": clip_id, **outcome.to_dict()} for clip_id, outcome in self.clips],
                "files": dict(self.files),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, name: str, *, known: str | None = None) -> LedgerEntry:
        """Parse what `to_bytes` wrote; IntegrityError if it was changed.

        `known` is the sha256 (hex) of what the manifest was written with: of the same bytes nothing
        else is left to be looked at.
        """
        same = known is not None and sha256(data) == known
        try:
            document = json.loads(data) if same else jsonfile.unseal(data, name)
            clips = tuple(_clip(dict(record)) for record in document["clips"])
            return cls(document["unit"], document["fingerprint"], clips, document["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{name} is damaged: {error!r}") from error


def _clip(record: dict[str, Any]) -> tuple[str, Outcome]:
    return record.pop("id"), Outcome(**record)


def ledger_name(unit: int) -> str:
    """File name of a unit's ledger entry, relative to the store."""
    return f"{FOLDER}/{unit:06d}.json"


def is_entry(name: str) -> bool:
    """Whether a file of the ledger folder is named as entries are."""
    return re.fullmatch(rf"{FOLDER}/\d{{6,}}\.json", name) is not None


def read_ledger(files: Files, digests: Mapping[str, str] | None = None) -> dict[int, LedgerEntry]:
    """Read every ledger entry of a store.

    Parameters
    ----------
    files
        The store.
    digests
        Unit to sha256 (hex) of its entry, as the manifest has them: those are read twice as fast.

    Raises
    ------
    IntegrityError
        Naming the entry that was changed.
    """
    entries = {}
    for name in files.list(FOLDER):
        if not is_entry(name):  # what a file browser left there
            continue
        try:
            known = None if digests is None else digests.get(PurePosixPath(name).stem)
            entry = LedgerEntry.from_bytes(files.read(name), f"{files}/{name}", known=known)
        except IntegrityError as error:
            raise IntegrityError(
                f"{error}; delete that file and run the same command again: the clips of "
                "its unit are done again"
            ) from error
        if entry.name != name:
            raise IntegrityError(f"{files}/{name} is damaged: it is the entry of unit {entry.unit}")
        entries[entry.unit] = entry
    return entries


def read_entry(files: Files, unit: int) -> LedgerEntry | None:
    """Read the ledger entry of a unit; None if it is gone or damaged."""
    name = ledger_name(unit)
    try:
        return LedgerEntry.from_bytes(files.read(name), f"{files}/{name}")
    except (FileNotFoundError, IntegrityError):
        return None


def commit(
    files: Files,
    entry: LedgerEntry,
    shards: Iterable[tuple[str, bytes]],
    *,
    check: Callable[[], None] = lambda: None,
) -> LedgerEntry:
    """Commit a unit: lay its shards and its entry down in a journal, then copy them into place.

    The journal's last file, the entry, makes it complete; a later run carries a complete journal
    out if this one is killed. So a unit that was committed before (its media came later, or failed
    clips were retried) never loses its rows. A unit may have two owners (a worker that was thought
    lost works on): each has a journal of its own, and drops it when what is in place is whole,
    whoever put it there. The one that writes last sees what stays, so the unit ends whole.

    Parameters
    ----------
    files, entry, shards
        The store; the entry but for the shards' digests; file names and contents.
    check
        Called when all is laid down and nothing in place is touched yet; raises to give up.

    Returns
    -------
    LedgerEntry
        What is in place: `entry` with the shards' digests, or that of another owner.

    Raises
    ------
    StoreBusyError
        If another owner of the unit, or another run, is in the way.
    """
    digests = {}
    folder = f"{_JOURNAL}/{entry.unit:06d}-{_state(files, entry.name)}-{uuid.uuid4().hex}"
    try:
        for name, data in shards:
            files.write(f"{folder}/{name}", data)
            digests[name] = sha256(data)
        entry = dataclasses.replace(entry, files=digests)
        check()
        files.write(f"{folder}/{_ENTRY}", entry.to_bytes())
    except Exception:
        with contextlib.suppress(StoreError, WriteError):
            _discard(files, folder)
        raise
    return _apply(files, folder, entry, list(digests))


def recover(files: Files) -> None:
    """Finish or discard what a killed run left in hand.

    Raises
    ------
    IntegrityError
        If the entry of a journal was changed.
    """
    files.clear_scratch()
    for folder in sorted({"/".join(name.split("/")[:2]) for name in files.list(_JOURNAL)}):
        name = f"{folder}/{_ENTRY}"
        if files.exists(name):
            entry = LedgerEntry.from_bytes(files.read(name), f"{files}/{name}")
            # Shards may be in place already: deleting a journal may have been cut short.
            inside = [shard for shard in entry.files if files.exists(f"{folder}/{shard}")]
            sound = all(
                _digest(files, f"{folder}/{shard}" if shard in inside else shard) == digest
                for shard, digest in entry.files.items()
            )
            if sound and not _superseded(files, folder, entry):
                _apply(files, folder, entry, inside)
        _discard(files, folder)
    files.remove(_JOURNAL)


def has_journal(files: Files) -> bool:
    """Whether a killed run left a unit half copied into place; the next run finishes it."""
    return bool(files.list(_JOURNAL))


def _apply(files: Files, folder: str, entry: LedgerEntry, shards: Iterable[str]) -> LedgerEntry:
    """Copy a complete journal into place and drop it; return the entry that is there then."""
    busy = StoreBusyError(
        f"unit {entry.unit} of {files} is written by another process too; wait for it, or stop it, "
        "and run the same command again"
    )
    for _ in range(_TRIES):
        old = read_entry(files, entry.unit)
        try:
            for name in shards:
                files.copy(f"{folder}/{name}", name)
        except FileNotFoundError:  # a run that took over dealt with the journal
            whole = _whole(files, entry.unit)
            if whole is None:
                raise busy from None
            return whole
        files.write(entry.name, entry.to_bytes())
        for name in (old.files.keys() if old else set()) - entry.files.keys():
            files.remove(name)
        whole = _whole(files, entry.unit, folder, entry)
        if whole is not None:
            _discard(files, folder)
            return whole
    raise busy


def _discard(files: Files, folder: str) -> None:
    files.remove(f"{folder}/{_ENTRY}")  # first: without it the journal counts for nothing
    files.remove(folder)


def _state(files: Files, name: str) -> str:
    """What a journal's name says of the entry that it replaces."""
    digest = _digest(files, name)
    return "new" if digest is None else digest[:16]


def _superseded(files: Files, folder: str, entry: LedgerEntry) -> bool:
    """Whether the unit was committed by another owner since the journal was begun."""
    _, *begun = folder.removeprefix(f"{_JOURNAL}/").split("-")
    if not begun or not files.exists(entry.name):
        return False
    known = (begun[0], sha256(entry.to_bytes())[:16])
    return _state(files, entry.name) not in known and _whole(files, entry.unit) is not None


def _whole(
    files: Files, unit: int, folder: str = "", mine: LedgerEntry | None = None
) -> LedgerEntry | None:
    """The ledger entry that is there if every shard has the digest it lists."""
    entry = read_entry(files, unit)
    if entry is None:
        return None
    for shard, digest in entry.files.items():
        copied = entry == mine and files.same(f"{folder}/{shard}", shard)
        if not copied and _digest(files, shard) != digest:
            return None
    return entry


def _digest(files: Files, name: str) -> str | None:
    try:
        return sha256(files.read(name))
    except FileNotFoundError:
        return None
