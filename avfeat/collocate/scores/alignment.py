"""Do the audio and the visual features of the same segments tell the same things apart?

Both measures compare spaces of any widths without learning a map between them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.scores.block import check_finite
from avfeat.collocate.scores.moments import CrossMoments, Moments
from avfeat.collocate.scores.neighbours import slices, unit_rows
from avfeat.collocate.scores.result import Score
from avfeat.errors import FeaturesError
from avfeat.words import counted


def linear_cka(audio: Moments, visual: Moments, cross: CrossMoments) -> Score:
    """Linear centred kernel alignment, in [0, 1].

    Kornblith, Norouzi, Lee, Hinton: Similarity of neural network representations revisited, ICML
    2019: |X^T Y|^2 / (|X^T X| |Y^T Y|) in Frobenius norms of centred features. It does not depend
    on rotation or scale of either space; of few rows beside the features it is too high, and for
    independent spaces not 0.

    Parameters
    ----------
    audio, visual, cross
        Moments of the same rows.
    """
    if cross.count < 2:
        return Score.not_applicable(f"{counted(cross.count, 'row')} cannot be compared")
    size = float(np.linalg.norm(audio.scatter) * np.linalg.norm(visual.scatter))
    if size <= 0:
        return Score.not_applicable("the features of a modality are constant")
    return Score(min(float(np.vdot(cross.scatter, cross.scatter)) / size, 1.0))


def nearest(
    rows: NDArray[np.float32], *, clips: NDArray[np.int64], k: int = 10
) -> NDArray[np.int64] | Score:
    """Find each segment's k nearest neighbours by cosine among the segments of other clips.

    Parameters
    ----------
    rows
        float32 [n, d], features of a sample of segments; it takes O(n) memory and O(n^2) time, so
        that n is better some thousands.
    clips
        Clip of each segment, int64 [n].

    Returns
    -------
    ndarray or Score
        int64 [n, k], in no order; or why there are none: not more than k segments of other clips.
    """
    if len(rows) != len(clips):
        raise FeaturesError(f"{len(rows)} rows and {len(clips)} segments do not fit")
    check_finite(rows)
    index, others = _others(clips)
    few = int(others.min()) if len(clips) else 0
    if few <= k:
        return Score.not_applicable(
            f"{counted(few, 'segment')} of other clips are too few for {k} neighbours"
        )
    unit = unit_rows(rows)
    found = np.empty((len(clips), k), np.int64)
    for part in slices(len(clips), len(clips)):
        likeness = unit[part] @ unit.T
        likeness[index[part, None] == index] = -np.inf
        found[part] = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
    return found


def mutual_neighbours(
    audio: NDArray[np.int64] | Score,
    visual: NDArray[np.int64] | Score,
    *,
    clips: NDArray[np.int64],
) -> tuple[Score, Score]:
    """Mutual k-nearest-neighbour agreement of two spaces and its chance level, both in [0, 1].

    Huh, Cheung, Wang, Isola: The platonic representation hypothesis, ICML 2024: of a segment's k
    nearest neighbours by cosine in one space, the share that are among its k nearest in the other,
    mean over segments; k = 10 as there. Neighbours in the same clip do not count: those are near in
    any space, because a clip changes slowly.

    Parameters
    ----------
    audio, visual
        What `nearest` finds among features of the same segments.
    clips
        Clip of each segment, int64 [n].

    Returns
    -------
    agreement, chance
        Chance is the expectation of spaces that have nothing to do with each other.
    """
    if isinstance(audio, Score):
        return audio, audio
    if isinstance(visual, Score):
        return visual, visual
    if audio.shape != visual.shape or len(audio) != len(clips):
        raise FeaturesError(
            f"neighbours {list(audio.shape)} and {list(visual.shape)} of {len(clips)} segments do "
            "not fit"
        )
    shared = int((audio[:, :, None] == visual[:, None, :]).sum())
    k = audio.shape[1]
    _, others = _others(clips)
    return Score(shared / (k * len(clips))), Score(float((k / others).mean()))


def _others(clips: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the clips of segments, and count each segment's of other clips; int64 [n]."""
    _, index, sizes = np.unique(clips, return_inverse=True, return_counts=True)
    return index, len(clips) - sizes[index]
