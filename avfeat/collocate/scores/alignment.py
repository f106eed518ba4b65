"""Do the audio and the visual features of the same segments tell the same things apart?

Both measures compare spaces of any widths without learning a map between them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from avfeat.collocate.scores.block import check_finite
from avfeat.collocate.scores.moments import CrossMoments, Moments
from avfeat.collocate.scores.neighbours import slices, unit_rows
from avfeat.collocate.scores.result import Score
from avfeat.errors import FeaturesError
from avfeat.words import counted

# Similarities that differ by less are equal: float32 knows no more of them.
_LEVEL = 1e-6


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
) -> csr_array | Score:
    """Find each segment's k nearest neighbours by cosine among the segments of other clips.

    Parameters
    ----------
    rows
        float32 [n, d], features of a sample of segments; it takes O(n^2) time, so that n is better
        some thousands, and O(n) memory unless most segments are alike.
    clips
        Clip of each segment, int64 [n].

    Returns
    -------
    csr_array or Score
        [n, n], how likely each segment is among the k nearest of each: 1, or less where several
        are level with the k-th, as silent seconds are; rows add up to k. Or why there are none:
        not more than k segments of other clips, or all segments are alike.
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
    if (unit == unit[0]).all():
        return Score.not_applicable("all segments are alike: none is nearer than another")
    found = []
    for part in slices(len(clips), len(clips)):
        likeness = unit[part] @ unit.T
        likeness[index[part, None] == index] = -np.inf
        last = np.partition(likeness, -k, axis=1)[:, -k, None]
        above = likeness > last + _LEVEL
        level = (likeness >= last - _LEVEL) & ~above
        # Of several that are level with the last, each is as likely.
        share = (k - above.sum(axis=1)) / level.sum(axis=1)
        found.append(csr_array(above + level * share[:, None].astype(np.float32)))
    return vstack(found, format="csr")


def mutual_neighbours(
    audio: csr_array | Score,
    visual: csr_array | Score,
    *,
    clips: NDArray[np.int64],
) -> tuple[Score, Score]:
    """Mutual k-nearest-neighbour agreement of two spaces and its chance level, both in [0, 1].

    Huh, Cheung, Wang, Isola: The platonic representation hypothesis, ICML 2024: of a segment's k
    nearest neighbours by cosine in one space, the share that are among its k nearest in the other,
    mean over segments; k = 10 as there. Of neighbours that are level, which is chance in either
    space, it is the expectation. Neighbours in the same clip do not count: those are near in
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
    counts = [round(float(one.sum(dtype=np.float64)) / one.shape[0]) for one in (audio, visual)]
    if audio.shape != visual.shape or audio.shape[0] != len(clips) or counts[0] != counts[1]:
        raise FeaturesError(
            f"{counts[0]} and {counts[1]} neighbours of {audio.shape[0]} and {visual.shape[0]} "
            f"segments and {len(clips)} segments do not fit"
        )
    k = counts[0]
    shared = float(audio.multiply(visual).sum(dtype=np.float64))
    _, others = _others(clips)
    return Score(shared / (k * len(clips))), Score(float((k / others).mean()))


def _others(clips: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the clips of segments, and count each segment's of other clips; int64 [n]."""
    _, index, sizes = np.unique(clips, return_inverse=True, return_counts=True)
    return index, len(clips) - sizes[index]
