"""Do nearest segments carry the same labels? Recall@1, precision and distinguish.

The diagnostics of Wu et al. (Rethinking the constraints of multimodal fusion, 2021, Table 2, and
its successor's Table 1, Information Sciences 2022). Their texts leave open what "the same labels"
means where a segment's labels are a set, whether segments without labels take part, and which
segments may be found; every reading is computed, each beside the level that chance reaches. The
default, under which a unimodal 0.97 is possible at all, is: at least one label in common, only
segments that have labels, any segment but the query's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.scores.block import check_finite
from avfeat.collocate.scores.neighbours import slices, unit_rows
from avfeat.collocate.scores.result import Score
from avfeat.errors import FeaturesError

Bools = NDArray[np.bool_]

Match = Literal["share", "equal"]
Among = Literal["labelled", "all"]
Except = Literal["segment", "clip", "nothing"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning of "the nearest segment has the same labels".

    Attributes
    ----------
    match
        ``share``: at least one label in common; ``equal``: the same set of labels, also if empty.
    among
        ``labelled``: queries and candidates have labels; ``all``: background takes part.
    besides
        What a query may not find: its own ``segment``, its whole ``clip``, or ``nothing`` of it is
        barred. Of one modality, the last finds the query itself.
    """

    match: Match = "share"
    among: Among = "labelled"
    besides: Except = "segment"


READINGS: tuple[Reading, ...] = tuple(
    Reading(match, among, besides)
    for match, among, besides in product(get_args(Match), get_args(Among), get_args(Except))
)


@dataclass(frozen=True, slots=True)
class Level:
    """A value in [0, 1] and what random features reach, in expectation."""

    value: Score
    chance: Score


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What nearest neighbours of queries among candidates have to say.

    Attributes
    ----------
    recall
        Share of the queries whose nearest candidate matches, by reading.
    precision
        R-precision by reading: of a query's M nearest candidates the share that match, M being the
        number of all its matches; mean over the queries that have any.
    distinguish
        Share of all queries that have labels and whose nearest candidate, another segment, has
        some: features that do not tell background apart reach the chance level.
    """

    recall: dict[Reading, Level]
    precision: dict[Reading, Level]
    distinguish: Level


def retrieval(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    *,
    query_labels: Bools,
    candidate_labels: Bools,
    clips: NDArray[np.int64],
) -> Retrieval:
    """Find each query's nearest candidates by cosine and compare their labels.

    Row i of both is the same segment; they may be the same array. Of candidates equally near, each
    is as likely to be found, so that features that are all alike reach the chance level. It takes
    O(n) memory and O(n^2) time: some thousands of segments take seconds.

    Parameters
    ----------
    queries, candidates
        float32 [n, q] in one space: of one backbone, or of two in a `CommonSpace`.
    query_labels, candidate_labels
        bool [n, C] of the modality that each is of.
    clips
        Clip of each segment, int64 [n].

    Raises
    ------
    FeaturesError
        If shapes do not fit or a feature is not finite.
    """
    queries, candidates = _unit(queries, candidates, clips)
    sums = {reading: _Sums() for reading in READINGS}
    distinguish = _Sums()
    asked, labelled = query_labels.sum(axis=1) > 0, candidate_labels.sum(axis=1) > 0
    for rows, allowed, matching in _tables(query_labels, candidate_labels, clips):
        likeness = queries[rows] @ candidates.T
        for (among, besides), table in allowed.items():
            masked = np.where(table, likeness, -np.inf)
            ranked = np.sort(masked, axis=1)
            for match, pairs in matching.items():
                total = sums[Reading(match, among, besides)]
                total.add_recall(pairs & table, table, masked >= ranked[:, -1:])
                total.add_precision(pairs & table, table, masked, ranked)
            if (among, besides) == ("all", "segment"):
                own = asked[rows, None] & labelled & table
                distinguish.add_recall(own, table, masked >= ranked[:, -1:])
    return Retrieval(
        recall={reading: total.recall() for reading, total in sums.items()},
        precision={reading: total.precision() for reading, total in sums.items()},
        distinguish=distinguish.recall(),
    )


def recall(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    reading: Reading,
    *,
    query_labels: Bools,
    candidate_labels: Bools,
    clips: NDArray[np.int64],
) -> Level:
    """Give the recall of one reading, as `retrieval` does, without the others."""
    queries, candidates = _unit(queries, candidates, clips)
    total = _Sums()
    for rows, allowed, matching in _tables(query_labels, candidate_labels, clips):
        table = allowed[reading.among, reading.besides]
        masked = np.where(table, queries[rows] @ candidates.T, -np.inf)
        nearest = masked >= masked.max(axis=1, keepdims=True)
        total.add_recall(matching[reading.match] & table, table, nearest)
    return total.recall()


def chance(
    query_labels: Bools, candidate_labels: Bools, *, clips: NDArray[np.int64]
) -> dict[Reading, Score]:
    """Expected recall@1 of features that know nothing, by reading, from labels alone."""
    sums = {reading: _Sums() for reading in READINGS}
    for _, allowed, matching in _tables(query_labels, candidate_labels, clips):
        for reading, total in sums.items():
            table = allowed[reading.among, reading.besides]
            total.add_chance(matching[reading.match] & table, table)
    return {reading: total.recall().chance for reading, total in sums.items()}


def _unit(
    queries: NDArray[np.float32], candidates: NDArray[np.float32], clips: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Check both and bring their rows to unit length."""
    if queries.shape != candidates.shape or len(queries) != len(clips):
        raise FeaturesError(
            f"queries {list(queries.shape)}, candidates {list(candidates.shape)} and {len(clips)} "
            "segments do not fit"
        )
    check_finite(queries)
    check_finite(candidates)
    return unit_rows(queries), unit_rows(candidates)


def _tables(
    query_labels: Bools, candidate_labels: Bools, clips: NDArray[np.int64]
) -> Iterator[tuple[slice, dict[tuple[Among, Except], Bools], dict[Match, Bools]]]:
    """Give, for some queries at a time, which candidates are allowed and which match: [k, n]."""
    count = len(clips)
    if query_labels.shape != candidate_labels.shape or len(query_labels) != count:
        raise FeaturesError(
            f"labels {list(query_labels.shape)} and {list(candidate_labels.shape)} do not fit "
            f"{count} segments"
        )
    ours, theirs = query_labels.astype(np.float32), candidate_labels.astype(np.float32)
    sizes = theirs.sum(axis=1)
    places = np.arange(count)
    for rows in slices(count, count):
        common = ours[rows] @ theirs.T
        own_sizes = ours[rows].sum(axis=1)[:, None]
        matching: dict[Match, Bools] = {
            "share": common > 0,
            "equal": (common == sizes) & (common == own_sizes),
        }
        besides: dict[Except, Bools] = {
            "segment": places != places[rows, None],
            "clip": clips != clips[rows, None],
            "nothing": np.ones(common.shape, bool),
        }
        among: dict[Among, Bools] = {
            "labelled": (own_sizes > 0) & (sizes > 0),
            "all": np.ones(common.shape, bool),
        }
        allowed = {
            (name, other): one & two
            for (name, one), (other, two) in product(among.items(), besides.items())
        }
        yield rows, allowed, matching


class _Sums:
    """Sums over queries of one reading."""

    def __init__(self) -> None:
        self.queries = 0
        self.hits = 0.0
        self.hit_chance = 0.0
        self.with_matches = 0
        self.shares = 0.0
        self.share_chance = 0.0

    def add_recall(self, relevant: Bools, allowed: Bools, nearest: Bools) -> None:
        """Add queries, tables [k, n]; of several nearest candidates each is as likely."""
        self.add_chance(relevant, allowed)
        # Where nothing is allowed nothing is relevant, and all are equally near.
        self.hits += float(((relevant & nearest).sum(axis=1) / nearest.sum(axis=1)).sum())

    def add_chance(self, relevant: Bools, allowed: Bools) -> None:
        """Add queries that find any candidate as likely as another."""
        choices = allowed.sum(axis=1)
        asked = choices > 0
        self.queries += int(asked.sum())
        self.hit_chance += float((relevant.sum(axis=1)[asked] / choices[asked]).sum())

    def add_precision(
        self,
        relevant: Bools,
        allowed: Bools,
        likeness: NDArray[np.float32],
        ranked: NDArray[np.float32],
    ) -> None:
        """Add queries, tables [k, n]; `ranked` is each query's likeness, ascending."""
        counts = relevant.sum(axis=1)
        matched = np.flatnonzero(counts)
        counts, relevant, likeness = counts[matched], relevant[matched], likeness[matched]
        last = ranked[matched, -counts][:, None]
        above, level = likeness > last, likeness == last
        # Of several that are level with the last, each is as likely.
        left = (counts - above.sum(axis=1)) / level.sum(axis=1)
        found = (relevant & above).sum(axis=1) + left * (relevant & level).sum(axis=1)
        self.shares += float((found / counts).sum())
        self.share_chance += float((counts / allowed[matched].sum(axis=1)).sum())
        self.with_matches += len(matched)

    def recall(self) -> Level:
        return _level(self.hits, self.hit_chance, self.queries, "no segment can be a query")

    def precision(self) -> Level:
        return _level(
            self.shares, self.share_chance, self.with_matches, "no segment has a match to be found"
        )


def _level(total: float, chance: float, count: int, reason: str) -> Level:
    if count == 0:
        return Level(Score.not_applicable(reason), Score.not_applicable(reason))
    return Level(Score(total / count), Score(chance / count))
