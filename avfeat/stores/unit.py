"""Writing one unit of a store: all that a worker needs, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from avfeat.manifests.clips import WITH_ROWS, Outcome
from avfeat.manifests.store import Layout
from avfeat.stores import fence
from avfeat.stores.arrays import encode_lengths, encode_unit_block
from avfeat.stores.files import Files
from avfeat.stores.ledger import LedgerEntry, commit
from avfeat.stores.rows import StoredRows
from avfeat.stores.state import RUNS
from avfeat.stores.unitrows import UnitRows


@dataclass(frozen=True, slots=True)
class UnitWriter:
    """One unit of a store as it stands, made by `StoreWriter.unit`; it can be sent to a worker.

    Its store is locked by whoever made it, and units have files of their own, so units may be
    written side by side.

    Attributes
    ----------
    url
        Of the store.
    layout, fingerprint
        Of the store, and of its recipe.
    unit
        Number of the unit.
    clips
        Clip id and outcome so far of each clip of the unit, in order.
    run
        Id of the run that the unit belongs to; `commit` refuses when that run is over.
    """

    url: str
    layout: Layout
    fingerprint: str
    unit: int
    clips: tuple[tuple[str, Outcome], ...]
    run: str

    def rows(self) -> UnitRows:
        """Start collecting the unit's rows; those it already holds are there from the start.

        Returns
        -------
        UnitRows
            Clips that have rows keep them, byte for byte.
        """
        files = Files(self.url)
        rows = UnitRows(self.layout, self.unit, scratch=files.local / RUNS if files.local else None)
        stored = StoredRows(files)
        first = self.layout.unit_range(self.unit).start
        try:
            for position, (clip_id, outcome) in enumerate(self.clips):
                if outcome.status in WITH_ROWS:
                    size = self.layout.chunk_rows
                    for features, times in stored.pieces(
                        first + position, outcome.rows, size=size, clip_id=clip_id
                    ):
                        rows.append(position, features, times)
        except BaseException:
            rows.close()
            raise
        return rows

    def commit(self, rows: UnitRows, outcomes: Mapping[int, Outcome]) -> LedgerEntry:
        """Commit the unit: its shards, then its ledger entry.

        Parameters
        ----------
        rows
            The unit's rows; clips without rows have length 0.
        outcomes
            Position in the unit to outcome, for the clips that were settled now.

        Returns
        -------
        LedgerEntry
            What was committed; that of another owner of the unit if that came later.

        Raises
        ------
        WriteError
            If the store cannot be written; the unit is then as it was before, or the next run
            finishes it.
        StoreBusyError
            If the run is over, or another one has taken over.
        """
        clips = tuple(
            (clip_id, outcomes.get(position, outcome))
            for position, (clip_id, outcome) in enumerate(self.clips)
        )
        files = Files(self.url)
        return commit(
            files,
            LedgerEntry(self.unit, self.fingerprint, clips, files={}),
            self._shards(rows),
            check=lambda: fence.check(files, self.run),
        )

    def _shards(self, rows: UnitRows) -> Iterator[tuple[str, bytes]]:
        """Encode the unit shard by shard, so that a long clip is never in memory whole."""
        for block, features, times in rows.blocks():
            yield from encode_unit_block(self.layout, self.unit, block, features, times).items()
        yield from encode_lengths(self.layout, self.unit, rows.lengths).items()
