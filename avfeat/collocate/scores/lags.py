"""Similarity and label agreement against time lag (Wu et al., Information Sciences 2022, Fig. 8).

Lag delta, 0...T-1, compares all segments of the first with those of the second that are delta
seconds before or after; in one direction only, audio before visual differs by up to 0.01 on LLP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.scores.block import check_finite
from avfeat.collocate.scores.neighbours import unit_rows
from avfeat.errors import FeaturesError

Float64s = NDArray[np.float64]

_CLIPS = 1024  # at a time


def similarity_by_lag(first: NDArray[np.float32], second: NDArray[np.float32]) -> Float64s:
    """Mean cosine within clips by lag, float64 [T].

    Parameters
    ----------
    first, second
        float32 [n, T, q] in one space; the same array within a modality.

    Raises
    ------
    FeaturesError
        If shapes differ, there is no segment, or a feature is not finite.
    """
    clips, steps = _shape(first, second)
    sums = np.zeros((steps, steps))
    for start in range(0, clips, _CLIPS):
        one, two = first[start : start + _CLIPS], second[start : start + _CLIPS]
        for each in (one, two):
            check_finite(each.reshape(-1, each.shape[-1]))
        sums += np.einsum("ntq,nsq->ts", unit_rows(one), unit_rows(two), optimize=True)
    sums = (sums + sums.T) / 2
    return np.array([np.diagonal(sums, lag).mean() / clips for lag in range(steps)])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelLags:
    """Agreement of labels by lag, each float64 [T].

    Attributes
    ----------
    equal
        Share of the segment pairs that have the same set of labels.
    per_class
        Share of the pairs that agree on a class, mean over classes.
    conditional
        Share of the pairs whose second has a class among those whose first has it, mean over
        classes that some first has. NaN where no first has any.
    """

    equal: Float64s
    per_class: Float64s
    conditional: Float64s


def labels_by_lag(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> LabelLags:
    """Compare labels, bool [n, T, C], within clips by lag.

    Raises
    ------
    FeaturesError
        If shapes differ or there is no segment.
    """
    _, steps = _shape(first, second)
    equal, per_class, conditional = [], [], []
    for lag in range(steps):
        early, late = slice(None, steps - lag), slice(lag, None)
        one = np.concatenate([first[:, early], first[:, late]], axis=1)
        two = np.concatenate([second[:, late], second[:, early]], axis=1)
        same = one == two
        equal.append(same.all(axis=2).mean())
        per_class.append(same.mean())
        has = one.sum(axis=(0, 1))
        both = (one & two).sum(axis=(0, 1))
        seen = has > 0
        conditional.append((both[seen] / has[seen]).mean() if seen.any() else np.nan)
    return LabelLags(
        equal=np.array(equal), per_class=np.array(per_class), conditional=np.array(conditional)
    )


def _shape(first: NDArray[np.generic], second: NDArray[np.generic]) -> tuple[int, int]:
    if first.shape != second.shape or first.ndim != 3 or 0 in first.shape:
        raise FeaturesError(
            f"{list(first.shape)} and {list(second.shape)} are not segments of the same clips"
        )
    return first.shape[0], first.shape[1]
