"""Moments of stores, taken in one pass over their clips, many parts of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from avfeat.collocate.candidates import Candidate
from avfeat.collocate.scores.moments import ClassSums, CrossMoments, Moments
from avfeat.collocate.segments import blocks

# Clips that one task reads. Its result is [d, d]; of shorter parts merging would be most of it.
_CLIPS = 1024
# Clips held at a time: some thousand rows make products fast, and 2048 features of them 32 MB.
_BLOCK = 400

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips of one split, in an order, with what is known of their segments.

    Attributes
    ----------
    ids
        In order.
    segments
        Seconds per clip, T.
    labels
        bool [n, T, 2, C], audio 0 and visual 1; None where there are no dense labels.
    """

    ids: tuple[str, ...]
    segments: int
    labels: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, chosen: slice | NDArray[np.int64]) -> Clips:
        """Take some of them."""
        ids = tuple(np.array(self.ids, dtype=object)[chosen].tolist())
        return Clips(ids, self.segments, None if self.labels is None else self.labels[chosen])

    def rows(self, candidate: Candidate) -> Iterator[NDArray[np.float32]]:
        """Read a backbone's features, float32 [k, T, d]."""
        return blocks(candidate.store, self.ids, self.segments, size=_BLOCK)

    @property
    def either(self) -> NDArray[np.bool_] | None:
        """What is heard or seen, bool [n, T, C]."""
        return None if self.labels is None else np.logical_or.reduce(self.labels, axis=2)


@dataclass(slots=True, eq=False)
class Measured:
    """Moments of one backbone on one split, and its cross moments with others.

    Attributes
    ----------
    own
        Of its features.
    sums
        By class, of segments where it is heard or seen; None without dense labels.
    cross
        With each backbone of the other modality, by name: audio first.
    """

    own: Moments
    sums: ClassSums | None
    cross: dict[str, CrossMoments]

    def merge(self, other: Measured) -> Measured:
        """Add what another part of the split gave; returns itself."""
        self.own.merge(other.own)
        if self.sums is not None and other.sums is not None:
            self.sums.merge(other.sums)
        for name, cross in self.cross.items():
            cross.merge(other.cross[name])
        return self


def measure(
    candidate: Candidate, clips: Clips, *, beside: Sequence[Candidate] = (), workers: int
) -> Measured:
    """Take moments of a visual backbone and of its pairs with audio ones, or of one alone.

    Parameters
    ----------
    beside
        Audio backbones; their rows are read along.
    workers
        Threads, each with one part of the clips. Memory is O(d^2) for each, whatever the clips.

    Raises
    ------
    FeaturesError
        If a feature is not finite; store and clip are named.
    """
    parts = each_part(clips, lambda part: _measured(candidate, part, beside))
    total = reduce(lambda one, two: delayed(Measured.merge)(one, two), parts)
    measured: Measured = total.compute(scheduler="threads", num_workers=workers)
    return measured


def each_part(clips: Clips, work: Callable[[Clips], T]) -> list[Any]:
    """Delay work on every part of some clips."""
    return [
        delayed(work)(clips.part(slice(first, first + _CLIPS)))
        for first in range(0, len(clips), _CLIPS)
    ]


def _measured(candidate: Candidate, clips: Clips, beside: Sequence[Candidate]) -> Measured:
    labels = clips.either
    dim = candidate.store.dim
    found = Measured(
        Moments(dim),
        None if labels is None else ClassSums(dim, labels.shape[-1]),
        {one.name: CrossMoments(one.store.dim, dim) for one in beside},
    )
    at = 0
    others = [clips.rows(one) for one in beside]
    for rows, *beside_rows in zip(clips.rows(candidate), *others, strict=True):
        found.own.add(rows)
        if labels is not None and found.sums is not None:
            found.sums.add(rows, labels[at : at + len(rows)])
        for one, other in zip(beside, beside_rows, strict=True):
            found.cross[one.name].add(other, rows)
        at += len(rows)
    return found
