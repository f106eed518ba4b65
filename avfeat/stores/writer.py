"""Writing a store: create or resume it, commit units, bring its manifest up to date."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection
from typing import Any

import filelock
import pyarrow.parquet as pq

from avfeat.errors import (
    IntegrityError,
    StoreBusyError,
    WriteError,
)
from avfeat.manifests.clips import Clip, ClipManifest, Outcome, count_statuses, to_table
from avfeat.manifests.recipe import Recipe
from avfeat.manifests.store import Layout, StoreManifest
from avfeat.stores import fence
from avfeat.stores.arrays import GROUP, metadata_files, plan_layout
from avfeat.stores.files import Files, explain, sha256
from avfeat.stores.ledger import (
    LedgerEntry,
    ledger_name,
    read_entry,
    read_ledger,
    recover,
)
from avfeat.stores.resume import check_content, check_recipe, merge_clips
from avfeat.stores.state import (
    CLIPS,
    MANIFEST,
    RUNS,
    StoreState,
    load_state,
    overlay,
    peek,
    read_clips,
)
from avfeat.stores.unit import UnitWriter


class StoreWriter:
    """The one writer of a store.

    `prepare` only reads: it says what the store would hold (for a dry run). `lock` keeps others
    out and finishes what a killed run left; `create` writes what is not there yet.

    Parameters
    ----------
    url
        Path or fsspec URL of the store.
    recipe
        How rows will be made; a store of another recipe is refused.
    sources
        Where weights and network come from, for people: licence, citation, url.
    manifest
        The data set's clips. Clips a store does not know yet are appended to it.
    rows
        Number of rows of a clip.
    dim, unit_clips
        Features per row, or channels of a map; clips per unit.
    map
        (height, width) of rows that are maps; None for rows of `dim` features.
    allow_drift
        Accept a store whose recipe differs in library versions alone, and record that.
    """

    def __init__(
        self,
        url: str,
        *,
        recipe: Recipe,
        sources: dict[str, Any],
        manifest: ClipManifest,
        rows: Callable[[Clip], int],
        dim: int,
        unit_clips: int,
        map: tuple[int, int] | None = None,
        allow_drift: bool = False,
    ) -> None:
        self.files = Files(url)
        self.recipe = recipe
        self.layout: Layout
        self.clips: tuple[Clip, ...] = ()
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        self._manifest = manifest
        self._sources = sources
        self._rows = rows
        self._dim = dim
        self._map = map
        self._unit_clips = unit_clips
        self._allow_drift = allow_drift
        self._drift: list[dict[str, str]] = []
        self._ledger: dict[int, LedgerEntry] = {}
        self._lost: set[int] = set()
        self._metadata: dict[str, bytes] = {}
        self._at_rest = True
        self._run: str | None = None
        self._units: set[int] = set()
        self._lock: filelock.FileLock | None = None

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, *, ignore_weights: bool = False) -> None:
        """Read what is there and merge the data set's clips into it; writes nothing.

        Parameters
        ----------
        ignore_weights
            Do not compare the weights: for a dry run that has not fetched them yet.

        Raises
        ------
        StoreError, RecipeMismatchError, IntegrityError
            If the folder is something else, of another recipe or data set, or damaged.
        """
        stored = peek(self.files)
        if stored is None:
            self.clips = self._manifest.clips
            self.outcomes = [Outcome()] * len(self.clips)
            self.layout = plan_layout(
                clips=len(self.clips),
                rows=max(map(self._rows, self.clips)),
                dim=self._dim,
                unit_clips=self._unit_clips,
                map=self._map,
            )
            return
        drift = check_recipe(
            self.files,
            stored,
            self.recipe,
            allow_drift=self._allow_drift,
            ignore_weights=ignore_weights,
        )
        if drift is not None:
            self._drift = [] if drift in stored.drift else [drift]
            self.recipe = stored.recipe
        check_content(
            self.files,
            stored,
            dataset=self._manifest.dataset,
            row_shape=(*(self._map or ()), self._dim),
        )
        state = self._load(stored)
        self.clips, self.notes = merge_clips(self.files, state, self._manifest)
        added = len(self.clips) - len(state.clips)
        self.outcomes = [*state.outcomes, *[Outcome()] * added]
        self._ledger = dict(state.ledger)
        self._lost = {unit for unit in map(int, stored.ledger) if unit not in state.ledger}
        self.notes += [
            f"{self.files}/{ledger_name(unit)} is gone: the clips of unit {unit} are done again"
            for unit in sorted(self._lost)
        ]
        self._drift = [*stored.drift, *self._drift]
        self.layout = stored.layout.model_copy(
            update={
                "clips": len(self.clips),
                "rows": max(stored.layout.rows, *map(self._rows, self.clips)),
            }
        )

    def _load(self, stored: StoreManifest) -> StoreState:
        if read_clips(self.files) is not None:
            return load_state(self.files, complete=False)
        # Deleted, damaged, or the run was killed while the store was created: the data set and
        # the ledger hold the same, and `overlay` refuses when they do not agree.
        clips = self._manifest.clips
        if len(clips) != stored.layout.clips:
            raise IntegrityError(
                f"{self.files}/{CLIPS} is gone or damaged, and the data set has other clips than "
                "the store; restore the file or start a new store with --out"
            )
        ledger = read_ledger(self.files)
        return StoreState(stored, clips, overlay(self.files, stored, clips, ledger), ledger)

    def open(self) -> None:
        """Lock the store and create what is missing: `lock`, then `create`."""
        self.lock()
        self.create()

    def lock(self) -> None:
        """Lock the store, finish what a killed run left, and `prepare`; creates nothing yet.

        Raises
        ------
        StoreBusyError
            If another process is writing to it.
        """
        peek(self.files)
        self._acquire()
        try:
            fence.withdraw(self.files)  # workers of an earlier run may still be at work
            recover(self.files)
            self.prepare()
        except BaseException:
            self.close()
            raise

    def create(self) -> None:
        """Write what is missing of a locked store, and delete what was never committed."""
        self._remove_orphans()
        self._write_metadata()

    def _acquire(self) -> None:
        if self.files.local is None:
            return
        path = self.files.local / RUNS / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(path)
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            self._lock = None
            raise StoreBusyError(
                f"another process is writing to {self.files}; wait for it, or stop it"
            ) from None
        except OSError as error:
            self._lock = None
            raise WriteError(explain(str(self.files), error)) from error

    def close(self) -> None:
        """Refuse what workers may still commit, and release the lock."""
        if self._run is not None:
            self._run = None
            with contextlib.suppress(WriteError):  # the next run does it
                fence.withdraw(self.files)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _remove_orphans(self) -> None:
        """Delete shards that were written but never committed."""
        committed = {name for entry in self._ledger.values() for name in entry.files}
        for array in ("features", "time", "length"):
            for name in self.files.list(f"{GROUP}/{array}/c"):
                # What lost its ledger entry alone stays until its unit is done again.
                if name not in committed and int(name.split("/")[3]) not in self._lost:
                    self.files.remove(name)

    def _write_metadata(self) -> None:
        self._metadata = metadata_files(
            self.layout,
            [clip.id for clip in self.clips],
            {
                "encoding-type": "avfeat.features",
                "encoding-version": "1",
                "dataset": self._manifest.dataset,
                "backbone": self.recipe.backbone["name"],
                "fingerprint": self.recipe.fingerprint,
                "weights": self.recipe.weights["source"],
            },
        )
        clips = self._clips_file()
        wanted = dict(self._metadata)
        table = read_clips(self.files)
        if table is None or len(table[0]) != len(self.clips):
            wanted[CLIPS] = clips
        stale = {name: data for name, data in wanted.items() if not self._holds(name, data)}
        stored = peek(self.files)
        if stored is not None and not stale and stored.layout == self.layout:
            return
        # The manifest comes first, so that a folder half made is known as a store, and last, so
        # that units may be committed in the layout it names. In between it vouches for no file
        # that is about to change.
        if stored is None:
            self._write_manifest(clips, at_rest=False, unwritten=stale.keys())
        else:
            self._leave_rest(unwritten=stale.keys())
        for name, data in stale.items():
            self.files.write(name, data)
        self._write_manifest(clips, at_rest=False)
        self._at_rest = False

    def unit(self, unit: int) -> UnitWriter:
        """Return what writes `unit`; from now on the manifest says that the store changes."""
        self._leave_rest()
        if self._run is None:
            self._run = fence.claim(self.files)
        self._units.add(unit)
        clips = tuple(
            (self.clips[index].id, self.outcomes[index]) for index in self.layout.unit_range(unit)
        )
        # Workers may have another working folder.
        url = str(self.files.local or self.files.url)
        return UnitWriter(url, self.layout, self.recipe.fingerprint, unit, clips, self._run)

    def adopt(self, entry: LedgerEntry) -> None:
        """Take note of a unit that was committed."""
        self._ledger[entry.unit] = entry
        for index, (_, outcome) in zip(
            self.layout.unit_range(entry.unit), entry.clips, strict=True
        ):
            self.outcomes[index] = outcome

    def finish(self) -> None:
        """Bring clips.parquet and manifest.json up to date with the ledger."""
        if self._run is not None:
            fence.withdraw(self.files)
            self._run = None
            recover(self.files)  # what a worker that died left half in place
        # A unit that two workers did may have been committed again after it was adopted.
        for unit in sorted(self._units):
            entry = read_entry(self.files, unit)
            if entry is not None and entry != self._ledger.get(unit):
                self.adopt(entry)
        self._units.clear()
        clips = self._clips_file()
        self._write_if_changed(CLIPS, clips)
        self._write_manifest(clips, at_rest=True)
        self._at_rest = True

    def _leave_rest(self, *, unwritten: Collection[str] = ()) -> None:
        """Say in manifest.json that the ledger, or the `unwritten` files, will differ from it."""
        if self._at_rest:
            stored = peek(self.files)
            if stored is not None:
                kept = {name: sha for name, sha in stored.files.items() if name not in unwritten}
                busy = stored.model_copy(
                    # Drift too: rows of this run are committed before it ends.
                    update={"at_rest": False, "files": kept, "drift": self._drift}
                )
                self.files.write(MANIFEST, busy.to_bytes())
            self._at_rest = False

    def _clips_file(self) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(to_table(self.clips, self.outcomes), buffer, write_page_checksum=True)
        return buffer.getvalue()

    def _write_manifest(
        self, clips: bytes, *, at_rest: bool, unwritten: Collection[str] = ()
    ) -> None:
        digests = {CLIPS: sha256(clips)}
        digests |= {name: sha256(data) for name, data in self._metadata.items()}
        counts = count_statuses(self.outcomes)
        manifest = StoreManifest(
            dataset={
                "name": self._manifest.dataset,
                "classes": list(self._manifest.classes),
                **self._manifest.provenance,
            },
            recipe=self.recipe,
            fingerprint=self.recipe.fingerprint,
            sources=self._sources,
            drift=self._drift,
            layout=self.layout,
            counts=counts,
            complete="pending" not in counts,
            at_rest=at_rest,
            files={name: sha for name, sha in digests.items() if name not in unwritten},
            ledger={
                f"{unit:06d}": sha256(entry.to_bytes())
                for unit, entry in sorted(self._ledger.items())
            },
        )
        self._write_if_changed(MANIFEST, manifest.to_bytes())

    def _write_if_changed(self, name: str, data: bytes) -> None:
        """Write a file unless it has these bytes already; first say that the store changes."""
        if self._holds(name, data):
            return
        if name != MANIFEST:
            self._leave_rest()
        self.files.write(name, data)

    def _holds(self, name: str, data: bytes) -> bool:
        return self.files.exists(name) and self.files.read(name) == data
