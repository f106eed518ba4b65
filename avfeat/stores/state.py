"""What a store on disk holds, as its ledger proves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from avfeat.errors import IntegrityError, StoreError, StoreNotFoundError
from avfeat.manifests.clips import SCHEMA, Clip, Outcome, clips_of
from avfeat.manifests.store import StoreManifest
from avfeat.stores.files import Files, sha256
from avfeat.stores.ledger import LedgerEntry, ledger_name, read_ledger

MANIFEST = "manifest.json"
CLIPS = "clips.parquet"
RUNS = "runs"


@dataclasses.dataclass(frozen=True, slots=True)
class StoreState:
    """A store's manifest, its clips, what became of each, and the ledger that proves it.

    The manifest is written when a run ends; after a killed run the ledger is ahead of it, and
    `outcomes` follows the ledger.
    """

    manifest: StoreManifest
    clips: tuple[Clip, ...]
    outcomes: tuple[Outcome, ...]
    ledger: Mapping[int, LedgerEntry]


def peek(files: Files) -> StoreManifest | None:
    """Read manifest.json; None where a store can be created.

    Raises
    ------
    StoreError
        If the folder holds something else, or is a file.
    IntegrityError
        If manifest.json is damaged, or gone from a store.
    """
    if files.exists(MANIFEST):
        return StoreManifest.from_bytes(files.read(MANIFEST), f"{files}/{MANIFEST}")
    if files.exists() and not files.is_dir():
        raise StoreError(f"{files} is a file, not a store; choose another folder with --out")
    if files.exists(CLIPS):
        raise IntegrityError(
            f"{files}/{MANIFEST} is gone, and with it how the rows were made; restore it, or "
            "choose another folder with --out"
        )
    other = [name for name in files.list() if not name.startswith(f"{RUNS}/")]
    if other:
        raise StoreError(
            f"{files} is not an avfeat store (no {MANIFEST}) and is not empty "
            f"(it holds {other[0]}); name a store, or choose another folder with --out"
        )
    return None


def load_state(files: Files, *, complete: bool = True) -> StoreState:
    """Load a store's state.

    Parameters
    ----------
    files
        The store.
    complete
        Refuse a store of which a ledger entry is gone, or whose clips.parquet is not the one
        manifest.json was written with. (The latter not while the manifest is not at rest: a run
        may have been killed between writing the two.) A writer mends both.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    IntegrityError
        If a file is damaged or gone.
    """
    manifest = peek(files)
    if manifest is None:
        raise StoreNotFoundError(f"there is no store at {files}; `avfeat extract` makes one")
    table = read_clips(files)
    if table is None:
        raise IntegrityError(
            f"{files}/{CLIPS} is gone or damaged; run the same command again: "
            "it is rebuilt from annotations and ledger"
        )
    clips, digest = table
    if complete and manifest.at_rest and digest != manifest.files.get(CLIPS):
        raise IntegrityError(
            f"{files}/{CLIPS} was changed: it is not the file that {MANIFEST} was written with; "
            "run the same command again: it is rebuilt from annotations and ledger"
        )
    ledger = read_ledger(files, manifest.ledger)
    gone = [unit for unit in map(int, manifest.ledger) if unit not in ledger]
    if complete and gone:
        raise IntegrityError(
            f"{files}/{ledger_name(gone[0])} is gone; run the same command again: "
            "the clips of its unit are done again"
        )
    return StoreState(manifest, clips, overlay(files, manifest, clips, ledger), ledger)


def read_clips(files: Files) -> tuple[tuple[Clip, ...], str] | None:
    """Read clips.parquet: clips and the file's sha256; None if it is gone or damaged."""
    if not files.exists(CLIPS):
        return None
    data = files.read(CLIPS)
    try:
        # Not read_table: its scanner threads may outlive the interpreter and abort it at exit.
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError):
        return None
    if table.schema != SCHEMA:
        return None
    return clips_of(table), sha256(data)


def overlay(
    files: Files,
    manifest: StoreManifest,
    clips: tuple[Clip, ...],
    ledger: Mapping[int, LedgerEntry],
) -> tuple[Outcome, ...]:
    """Say what became of each clip: what the ledger says, else ``pending``.

    The outcomes in clips.parquet are a copy for readers without avfeat; a unit whose ledger entry
    is gone is not committed, whatever they say.

    Raises
    ------
    IntegrityError
        If a ledger entry is of another recipe or lists other clips than the store does.
    """
    result = [Outcome()] * len(clips)
    for unit, entry in ledger.items():
        if entry.fingerprint != manifest.fingerprint:
            raise IntegrityError(f"{files}/{entry.name} is of another recipe than the store")
        indices = manifest.layout.unit_range(unit)[: len(entry.clips)]
        expected = [clips[index].id for index in indices]
        if expected != [clip_id for clip_id, _ in entry.clips]:
            raise IntegrityError(f"{files}/{entry.name} lists other clips than {CLIPS}")
        for index, (_, outcome) in zip(indices, entry.clips, strict=True):
            result[index] = outcome
    return tuple(result)
