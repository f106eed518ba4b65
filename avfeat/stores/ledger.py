"""The ledger: one small file per committed unit, written last. Its rename is the commit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from avfeat.errors import IntegrityError
from avfeat.manifests import jsonfile
from avfeat.manifests.clips import Outcome
from avfeat.stores.files import Files, sha256

FOLDER = "ledger"
_JOURNAL = "journal"


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
    def from_bytes(cls, data: bytes, name: str) -> LedgerEntry:
        """Parse what `to_bytes` wrote; IntegrityError if it was changed."""
        document = jsonfile.unseal(data, name)
        try:
            clips = tuple(_clip(dict(record)) for record in document["clips"])
            return cls(document["unit"], document["fingerprint"], clips, document["files"])
        except (KeyError, TypeError) as error:
            raise IntegrityError(f"{name} is damaged: {error!r}") from error


def _clip(record: dict[str, Any]) -> tuple[str, Outcome]:
    return record.pop("id"), Outcome(**record)


def ledger_name(unit: int) -> str:
    """File name of a unit's ledger entry, relative to the store."""
    return f"{FOLDER}/{unit:06d}.json"


def is_entry(name: str) -> bool:
    """Whether a file of the ledger folder is named as entries are."""
    return re.fullmatch(rf"{FOLDER}/\d{{6,}}\.json", name) is not None


def read_ledger(files: Files) -> dict[int, LedgerEntry]:
    """Read every ledger entry of a store.

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
            entry = LedgerEntry.from_bytes(files.read(name), f"{files}/{name}")
        except IntegrityError as error:
            raise IntegrityError(
                f"{error}; delete that file and run the same extract command again: the clips of "
                "its unit are done again"
            ) from error
        if entry.name != name:
            raise IntegrityError(f"{files}/{name} is damaged: it is the entry of unit {entry.unit}")
        entries[entry.unit] = entry
    return entries


def commit(files: Files, entry: LedgerEntry, shards: Iterable[tuple[str, bytes]]) -> LedgerEntry:
    """Commit a unit: its shards one by one, then its ledger entry.

    A unit that was committed before (its media came later, or failed clips were retried) must not
    be without its old rows at any instant: the new files are first laid down in a journal, whose
    last file, the new entry, is the commit; then they are moved into place, by a later run if this
    one is killed.

    Returns
    -------
    LedgerEntry
        `entry` with the shards' digests.
    """
    rewriting = files.exists(entry.name)
    folder = f"{_JOURNAL}/{entry.unit:06d}"
    if rewriting:
        files.remove(folder)
    digests = {}
    for name, data in shards:
        files.write(f"{folder}/{name}" if rewriting else name, data)
        digests[name] = sha256(data)
    entry = dataclasses.replace(entry, files=digests)
    files.write(f"{folder}/entry.json" if rewriting else entry.name, entry.to_bytes())
    if rewriting:
        _apply(files, folder)
    return entry


def recover(files: Files) -> None:
    """Finish or discard what a killed run left in hand."""
    files.clear_scratch()
    for folder in sorted({"/".join(name.split("/")[:2]) for name in files.list(_JOURNAL)}):
        if files.exists(f"{folder}/entry.json"):
            _apply(files, folder)
        else:
            files.remove(folder)
    files.remove(_JOURNAL)


def has_journal(files: Files) -> bool:
    """Whether a killed run left a unit half moved into place; the next run finishes it."""
    return bool(files.list(_JOURNAL))


def _apply(files: Files, folder: str) -> None:
    data = files.read(f"{folder}/entry.json")
    entry = LedgerEntry.from_bytes(data, f"{files}/{folder}/entry.json")
    for name in entry.files:
        if files.exists(f"{folder}/{name}"):
            files.move(f"{folder}/{name}", name)
    if files.exists(entry.name):
        old = LedgerEntry.from_bytes(files.read(entry.name), f"{files}/{entry.name}")
        for name in old.files.keys() - entry.files.keys():
            files.remove(name)
    files.write(entry.name, data)
    files.remove(folder)
