"""Do the audio and the visual features of the same segments tell the same things apart?

Both measures compare spaces of any widths without learning a map between them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.scores.moments import CrossMoments, Moments, check_finite
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


def mutual_neighbours(
    audio: NDArray[np.float32],
    visual: NDArray[np.float32],
    *,
    clips: NDArray[np.int64],
    k: int = 10,
) -> tuple[Score, Score]:
    """Mutual k-nearest-neighbour agreement of two spaces and its chance level, both in [0, 1].

    Huh, Cheung, Wang, Isola: The platonic representation hypothesis, ICML 2024: of a segment's k
    nearest neighbours by cosine in one space, the share that are among its k nearest in the other,
    mean over segments; k = 10 as there. Neighbours in the same clip do not count: those are near in
    any space, because a clip changes slowly.

    Parameters
    ----------
    audio, visual
        float32 [n, d_a] and [n, d_v], features of a sample of segments; it takes O(n) memory and
        O(n^2) time, so that n is better some thousands.
    clips
        Clip of each segment, int64 [n].

    Returns
    -------
    agreement, chance
        Chance is the expectation of spaces that have nothing to do with each other.
    """
    if not len(audio) == len(visual) == len(clips):
        raise FeaturesError(f"{len(audio)}, {len(visual)} and {len(clips)} segments do not fit")
    check_finite(audio)
    check_finite(visual)
    _, index, sizes = np.unique(clips, return_inverse=True, return_counts=True)
    others = len(clips) - sizes[index]
    if not len(clips) or int(others.min()) <= k:
        few = int(others.min()) if len(clips) else 0
        reason = f"{counted(few, 'segment')} of other clips are too few for {k} neighbours"
        return Score.not_applicable(reason), Score.not_applicable(reason)
    spaces = [unit_rows(audio), unit_rows(visual)]
    shared = 0
    for rows in slices(len(clips), len(clips)):
        near = []
        for space in spaces:
            likeness = space[rows] @ space.T
            likeness[index[rows, None] == index] = -np.inf
            chosen = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
            mask = np.zeros(likeness.shape, bool)
            np.put_along_axis(mask, chosen, True, axis=1)
            near.append(mask)
        shared += int((near[0] & near[1]).sum())
    return Score(shared / (k * len(clips))), Score(float((k / others).mean()))
