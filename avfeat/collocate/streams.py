"""Moments of stores, taken in one pass over their clips, many parts of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from avfeat.collocate.candidates import Candidate, Candidates
from avfeat.collocate.scores.block import Block
from avfeat.collocate.scores.moments import ClassSums, CrossMoments, Moments
from avfeat.collocate.scores.neighbours import sample
from avfeat.collocate.segments import blocks, even_spans, read_all, segment_count
from avfeat.metrics import avvp

# Clips that one task reads. Its result is [d, d]; of shorter parts merging would be most of it.
_CLIPS = 1024
# Features held at a time, 69 MB: 8400 segments of 2048. Adding up a product of so many is little
# beside making it.
_BLOCK = 8400 * 2048

#: Groups of clips that a bootstrap draws from.
GROUPS = 20

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


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

    @classmethod
    def of(cls, candidates: Candidates, split: str) -> Clips:
        """Take the common clips of a split, or of all.

        Raises
        ------
        FeaturesError
            If clips differ in length.
        CollocationError
            If there are none.
        """
        store = candidates.all[0].store
        ids = tuple(candidates.split(split))
        segments = segment_count([store], ids)
        clips = [store.clip(clip_id) for clip_id in ids]
        # Of a split with weak labels alone, as LLP's train, they would say that nothing happens.
        if {clip.split for clip in clips} != {clip.split for clip in clips if clip.events}:
            return cls(ids, segments, None)
        return cls(ids, segments, avvp.dense_labels(clips, store.classes, segments=segments))

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, chosen: slice | NDArray[np.int64]) -> Clips:
        """Take some of them."""
        ids = tuple(np.array(self.ids, dtype=object)[chosen].tolist())
        return Clips(ids, self.segments, None if self.labels is None else self.labels[chosen])

    def sampled(self, segments: int, *, seed: int) -> Clips:
        """Draw whole clips, of so many segments at most but one clip at least."""
        return self.part(sample(len(self), max(1, segments // self.segments), seed=seed))

    def blocks(self, candidates: Sequence[Candidate]) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Read backbones side by side, float32 [k, T, d] each, in place of the block before."""
        size = max(1, _BLOCK // (self.segments * max(one.store.dim for one in candidates)))
        each = (blocks(one.store, self.ids, self.segments, size=size) for one in candidates)
        return zip(*each, strict=True)

    def features(self, candidate: Candidate) -> NDArray[np.float32]:
        """Read all of a backbone's features, float32 [n, T, d]."""
        return read_all(candidate.store, self.ids, self.segments)

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
    return _over_parts(
        clips, lambda part, _: _measured(candidate, part, beside), Measured.merge, workers=workers
    )


def project(
    candidates: Sequence[Candidate],
    clips: Clips,
    bases: Mapping[K, Mapping[str, NDArray[np.float64]]],
    *,
    workers: int,
) -> dict[K, list[Moments]]:
    """Read clips once, and take moments of groups of them in the coordinates of some vectors.

    Parameters
    ----------
    candidates
        Backbones whose rows are read.
    bases
        By any key, backbone name to float64 [d, m]: a row's coordinates are the sum over these
        backbones of ``row @ basis``, so that a joint row of two has them too.
    workers
        Threads, each with one part of the clips.

    Returns
    -------
    dict
        By key, moments of m numbers of at most `GROUPS` groups; clips are dealt out in turn.
    """
    ends = np.cumsum([0, *(next(iter(each.values())).shape[1] for each in bases.values())])
    spans = {key: slice(*ends[place : place + 2]) for place, key in enumerate(bases)}
    # One product for all of them. In float32, as features are.
    stacked = {one.name: np.zeros((one.store.dim, ends[-1]), np.float32) for one in candidates}
    for key, each in bases.items():
        for name, basis in each.items():
            stacked[name][:, spans[key]] = basis
    groups = min(GROUPS, len(clips))
    return _over_parts(
        clips,
        lambda part, first: _projected(candidates, part, stacked, spans, groups, first),
        _merge_groups,
        workers=workers,
    )


def _over_parts(
    clips: Clips, work: Callable[[Clips, int], T], merge: Callable[[T, T], T], *, workers: int
) -> T:
    """Do work on parts of clips, each with the number of its first clip, and merge in order."""
    # As many for each of two or four workers; the same ones however many there are.
    number = min(4 * -(-len(clips) // (4 * _CLIPS)), len(clips))
    parts = [
        delayed(work)(clips.part(slice(first, end)), first)
        for first, end in even_spans(len(clips), number)
    ]
    total: Any = reduce(lambda one, two: delayed(merge)(one, two), parts)
    # Workers that multiply by one library's threads would wait for each other; and products of
    # several threads differ in their last bits.
    with threadpool_limits(1, "blas"):
        found: T = total.compute(scheduler="threads", num_workers=workers)
    return found


def _measured(candidate: Candidate, clips: Clips, beside: Sequence[Candidate]) -> Measured:
    labels = clips.either
    dim = candidate.store.dim
    found = Measured(
        Moments(dim),
        None if labels is None else ClassSums(dim, labels.shape[-1]),
        {one.name: CrossMoments(one.store.dim, dim) for one in beside},
    )
    at = 0
    both = [candidate, *beside]
    held = {one.name: Block(one.store.dim) for one in both}
    for each in clips.blocks(both):
        for block, rows in zip(held.values(), each, strict=True):
            block.hold(rows)
        own = held[candidate.name]
        found.own.add_block(own)
        for name, cross in found.cross.items():
            cross.add_block(held[name], own)
        if labels is not None and found.sums is not None:
            found.sums.add(each[0], labels[at : at + len(each[0])])
        at += len(each[0])
    return found


def _projected(
    candidates: Sequence[Candidate],
    clips: Clips,
    stacked: Mapping[str, NDArray[np.float32]],
    spans: Mapping[K, slice],
    groups: int,
    first: int,
) -> dict[K, list[Moments]]:
    found = {
        key: [Moments(span.stop - span.start) for _ in range(groups)] for key, span in spans.items()
    }
    for each in clips.blocks(candidates):
        part, *others = (
            rows @ stacked[one.name] for one, rows in zip(candidates, each, strict=True)
        )
        coordinates = sum(others, start=part)
        for key, span in spans.items():
            for place in range(groups):
                # What is in group 0 of all clips need not be the first one of this block.
                group = found[key][(first + place) % groups]
                group.add(coordinates[place::groups, :, span])
        first += len(each[0])
    return found


def _merge_groups(
    one: dict[K, list[Moments]], other: dict[K, list[Moments]]
) -> dict[K, list[Moments]]:
    for key, groups in one.items():
        for group, more in zip(groups, other[key], strict=True):
            group.merge(more)
    return one
