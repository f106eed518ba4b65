"""Scores by name: which are asked for, and the table of what they gave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from avfeat.collocate.candidates import Pair
from avfeat.collocate.scores.angles import Angles
from avfeat.collocate.scores.result import Score
from avfeat.errors import UnknownNameError, UsageError

#: Name to what it says; greater is taken as better. Pairs are shown in the order of the first one
#: that applies, so those that know of labels come first.
SCORES: dict[str, str] = {
    "h-score": "regularised H-score of the segments' labels (Ibrahim et al. 2021)",
    "logme": "LogME of the segments' labels (You et al. 2021)",
    "svd": "cos psi_1 between source and target, uncentred as printed (Wu et al. 2022)",
    "svd-centred": "mean cos psi_i, centred, where gaps are open in every pair that has any",
    "subspace": "overlap of source's and target's leading k directions, centred, above chance",
    "bsp": "share of energy outside the first direction, centred (after Chen et al. 2019)",
    "cka": "linear CKA of audio with visual (Kornblith et al. 2019)",
    "mutual-knn": "mutual nearest neighbours of audio and visual, above chance (Huh et al. 2024)",
    "recall": "cross-modal recall@1 in a common space, above chance (after Wu et al. 2021)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of a pair, or of one backbone.

    Attributes
    ----------
    names
        Of the audio and the visual backbone; one name of a single.
    scores
        By name, see `SCORES`.
    angles, centred
        Corresponding angles behind ``svd`` and ``svd-centred``; None where not asked for.
    """

    names: tuple[str, ...]
    scores: dict[str, Score]
    angles: Angles | None = None
    centred: Angles | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All pairs and all singles, with what was compared.

    Attributes
    ----------
    pairs, singles
        In the order of the candidates.
    clips
        Split name to number of clips.
    segments
        Seconds per clip.
    sampled
        Segments of the target among which neighbours were sought.
    """

    pairs: list[Scored]
    singles: list[Scored]
    clips: dict[str, int]
    segments: int
    sampled: int

    def values(self, name: str) -> dict[Pair, float]:
        """Return a score of the pairs that have it."""
        return {
            (one.names[0], one.names[1]): value
            for one in self.pairs
            if (value := one.scores[name].value) is not None
        }


#: Parts of a store read at once, by default, each by one core. Each holds moments of its own, some
#: hundred MB of 4096 features: more would take more memory than the decompositions that follow.
_MOST_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How pairs are scored.

    Attributes
    ----------
    source, target
        Splits that angles compare, or ``all``; labels are those of `target`.
    names
        Scores to compute.
    k
        Directions compared.
    resamples
        Resamples of the bootstrap that gives angles their intervals; 0 for none, which spares the
        second pass over the stores.
    sampled
        Segments of `target` among which neighbours are sought.
    seed
        Of that sample and of the resamples.
    workers
        Threads that read and multiply. The numbers do not depend on them.

    Raises
    ------
    UnknownNameError
        If there is no such score.
    UsageError
        If none is asked for.
    """

    source: str = "train"
    target: str = "val"
    names: Sequence[str] = field(default_factory=lambda: tuple(SCORES))
    k: int = 5
    resamples: int = 0
    sampled: int = 2000
    seed: int = 0
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, _MOST_WORKERS))

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError(f"no score is asked for; there are {', '.join(SCORES)}")
        for name in self.names:
            if name not in SCORES:
                raise UnknownNameError("score", name, SCORES)

    def any_of(self, names: AbstractSet[str]) -> bool:
        """Whether one of some scores is asked for."""
        return not names.isdisjoint(self.names)
