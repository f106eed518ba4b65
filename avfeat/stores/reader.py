"""Reading a store: `open_store` and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from avfeat.errors import RandomWeightsError, StoreError, UnknownClipError
from avfeat.manifests.clips import WITH_ROWS, Clip, Outcome
from avfeat.manifests.jsonfile import digest
from avfeat.manifests.recipe import Recipe
from avfeat.manifests.store import StoreManifest
from avfeat.stores.files import Files
from avfeat.stores.rows import StoredRows
from avfeat.stores.state import load_state
from avfeat.words import counted


class FeatureStore(Mapping[str, np.ndarray]):
    """Features of one data set by one recipe, by clip id.

    As a mapping it holds the clips that have rows: ``store[clip_id]`` is float32 [rows, dim], or
    [rows, height, width, dim] where rows are maps; iteration yields their ids in store order.
    Picklable, so that it can be handed to the worker processes of a data loader.

    Example::

        store = avfeat.open_store("features/llp/resnet152")
        for clip_id in store.ids(split="train"):
            rows, labels = store[clip_id], store.clip(clip_id).labels
    """

    def __init__(self, url: str | Path, *, allow_random: bool = False) -> None:
        files = Files(url)
        state = load_state(files)
        self.url = str(url)
        self.manifest: StoreManifest = state.manifest
        if self.recipe.weights["source"] == "random" and not allow_random:
            raise RandomWeightsError(
                f"{url} was made with random weights (--weights random): its numbers mean nothing. "
                "Pass allow_random=True where that is wanted, in tests and demos"
            )
        self._clips = {clip.id: clip for clip in state.clips}
        self._outcomes = {
            clip.id: outcome for clip, outcome in zip(state.clips, state.outcomes, strict=True)
        }
        self._index = {clip.id: index for index, clip in enumerate(state.clips)}
        self._rows = StoredRows(files)
        self._shards = {unit: dict(entry.files) for unit, entry in state.ledger.items()}

    # As a mapping it would compare every row; a store is itself, and can be a key.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.row_shape))
        clips = counted(len(self), "clip")
        return f"<FeatureStore {self.url}: {clips} with rows of {shape} features>"

    @property
    def recipe(self) -> Recipe:
        """How every row was made."""
        return self.manifest.recipe

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the recipe: rows of equal fingerprints can be compared."""
        return self.manifest.fingerprint

    @property
    def dim(self) -> int:
        """Features per row, or channels where rows are maps."""
        return self.manifest.layout.dim

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row: (dim,), or (height, width, dim) of a map."""
        return self.manifest.layout.row_shape

    @property
    def complete(self) -> bool:
        """Whether no clip is left to be extracted."""
        return all(outcome.status != "pending" for outcome in self._outcomes.values())

    @property
    def classes(self) -> tuple[str, ...]:
        """The data set's classes in canonical order; empty if it has none."""
        return tuple(self.manifest.dataset["classes"])

    def __getitem__(self, clip_id: str) -> np.ndarray:
        """Rows of a clip: float32 [rows, dim], or [rows, height, width, dim] of maps.

        Raises
        ------
        KeyError
            If the store does not know the clip, or it has no rows; the message says why.
        IntegrityError
            If stored bytes are damaged.
        """
        index, outcome = self._locate(clip_id)
        return self._rows.features(index, (0, outcome.rows), clip_id=clip_id)

    def times(self, clip_id: str) -> np.ndarray:
        """Times of a clip's rows: float64 [rows], seconds in the clip.

        The time of the source frame for images, the mean over a snippet's frames, the centre of an
        audio window.
        """
        index, outcome = self._locate(clip_id)
        return self._rows.times(index, (0, outcome.rows), clip_id=clip_id)

    def each(self, clip_ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and times of clips, in the order given.

        As ``store[clip_id], store.times(clip_id)`` for each, and several times faster where clips
        follow each other as in the store: neighbours within a unit are read together.

        Raises
        ------
        KeyError, IntegrityError
            As for a single clip.
        """
        for rows, times in self.together(clip_ids):
            yield from zip(rows, times, strict=True)

    def together(
        self, clip_ids: Sequence[str], *, reuse: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what `each` does, clips that were read together in one array.

        Parameters
        ----------
        reuse
            Read into the same memory again, as fresh memory takes longer to come by than reading:
            copy what is kept when the next ones come. Otherwise all of it is the caller's.

        Raises
        ------
        KeyError, IntegrityError
            As for a single clip.

        Yields
        ------
        rows, times
            float32 [n, rows, *row_shape] and float64 [n, rows] of the next n clips, n >= 1, which
            have equally many rows.
        """
        layout = self.manifest.layout
        # Clips of more than one chunk differ in length too much to be read side by side.
        most = layout.unit_clips if layout.rows <= layout.chunk_rows else 1
        spare = None
        for run in _runs([(*self._locate(clip_id), clip_id) for clip_id in clip_ids], most):
            found = None
            counts = [outcome.rows for _, outcome, _ in run]
            if len(run) > 1:
                indexes = range(run[0][0], run[-1][0] + 1)
                found = self._rows.neighbours(indexes, max(counts), out=spare)
            if found is not None:
                if reuse and (spare is None or spare[0].size < found[0].size):
                    spare = found
                if len(set(counts)) == 1 and not _any_nan(*found):
                    yield found
                    continue
            for number, (rows, (_, _, clip_id)) in enumerate(zip(counts, run, strict=True)):
                if found is not None:
                    one = slice(number, number + 1)
                    rows_times = (found[0][one, :rows], found[1][one, :rows])
                    if not _any_nan(*rows_times):
                        yield rows_times
                        continue
                yield self[clip_id][None], self.times(clip_id)[None]  # says what is wrong

    def _locate(self, clip_id: str) -> tuple[int, Outcome]:
        outcome = self.outcome(clip_id)
        if outcome.status not in WITH_ROWS:
            reason = f"{outcome.status}({outcome.kind})" if outcome.kind else outcome.status
            raise KeyError(f"clip {clip_id} has no rows: {reason} {outcome.message}".rstrip())
        return self._index[clip_id], outcome

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids())

    def __len__(self) -> int:
        return len(self.ids())

    def __contains__(self, clip_id: object) -> bool:
        outcome = self._outcomes.get(clip_id) if isinstance(clip_id, str) else None
        return outcome is not None and outcome.status in WITH_ROWS

    def ids(self, *, split: str | None = None) -> list[str]:
        """Ids of the clips that have rows, in store order.

        Parameters
        ----------
        split
            Only those of this split; StoreError if no clip of the store is in it.
        """
        if split is not None and split not in self.splits:
            raise StoreError(f"{self.url} has no split {split!r}; it has {', '.join(self.splits)}")
        return [
            clip_id
            for clip_id, outcome in self._outcomes.items()
            if outcome.status in WITH_ROWS and split in (None, self._clips[clip_id].split)
        ]

    def content(self, clip_ids: Iterable[str]) -> str:
        """sha256 (hex) over the digests of the shards that hold these clips: of equal ones, equal.

        Where a recipe stays and media change, so does this; and where a neighbour in a clip's unit
        was extracted again.
        """
        size = self.manifest.layout.unit_clips
        units = sorted({self._index[clip_id] // size for clip_id in clip_ids})
        return digest([self._shards.get(unit, {}) for unit in units])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits the store's clips are in."""
        return tuple(dict.fromkeys(clip.split for clip in self._clips.values()))

    def clip(self, clip_id: str) -> Clip:
        """What the annotations say of a clip (also of one without rows)."""
        if clip_id not in self._clips:
            raise UnknownClipError(clip_id, self._clips)
        return self._clips[clip_id]

    def outcome(self, clip_id: str) -> Outcome:
        """What became of a clip: status, reason, source media."""
        if clip_id not in self._outcomes:
            raise UnknownClipError(clip_id, self._outcomes)
        return self._outcomes[clip_id]


_Placed = tuple[int, Outcome, str]


def _any_nan(*arrays: np.ndarray) -> bool:
    return any(bool(np.isnan(values).any()) for values in arrays)


def _runs(clips: Sequence[_Placed], size: int) -> Iterator[list[_Placed]]:
    """Cut clips into runs of neighbours within one unit of `size` clips."""
    run: list[_Placed] = []
    for clip in clips:
        if run and (clip[0] != run[-1][0] + 1 or clip[0] // size != run[-1][0] // size):
            yield run
            run = []
        run.append(clip)
    if run:
        yield run


def open_store(url: str | Path, *, allow_random: bool = False) -> FeatureStore:
    """Open a feature store for reading.

    Parameters
    ----------
    url
        Path or fsspec URL of the store, such as ``features/llp/resnet152``.
    allow_random
        Also open a store made with random weights, whose numbers mean nothing.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    RandomWeightsError
        If it was made with random weights and `allow_random` is False.
    IntegrityError
        If its manifest, clip table or ledger is damaged.
    """
    return FeatureStore(url, allow_random=allow_random)
