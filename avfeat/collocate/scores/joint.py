"""Two modalities as one: moments of their joint features, from those of each and of the pair."""

from __future__ import annotations

import numpy as np

from avfeat.collocate.scores.moments import ClassSums, CrossMoments, Moments
from avfeat.errors import FeaturesError

Scale = tuple[float, float]
"""What audio and visual features are multiplied by before they are joined."""

# Means of the same rows by two ways differ by float64's rounding.
_SAME_MEAN = 1e-9


def equal_energy(audio: Moments, visual: Moments, *, centred: bool) -> Scale:
    """Find the scale that gives both feature matrices equal Frobenius norms, of one per row.

    Parameters
    ----------
    centred
        Of the features less their mean. A modality of no energy keeps its scale.
    """

    def factor(moments: Moments) -> float:
        energy = moments.energy(centred=centred)
        return float(np.sqrt(moments.count / energy)) if energy > 0 else 1.0

    return factor(audio), factor(visual)


def joint(audio: Moments, visual: Moments, cross: CrossMoments, *, scale: Scale) -> Moments:
    """Moments of the rows [scale_a * audio, scale_v * visual], of d_a + d_v features.

    Parameters
    ----------
    audio, visual, cross
        Moments of the same rows; `cross` of audio with visual.

    Raises
    ------
    FeaturesError
        If they are not of the same rows.
    """
    counts = (audio.count, visual.count, cross.count)
    if len(set(counts)) > 1 or cross.scatter.shape != (audio.dim, visual.dim):
        raise FeaturesError(
            f"moments of {audio.dim} and {visual.dim} features and their cross moments "
            f"{list(cross.scatter.shape)} are of {', '.join(map(str, counts))} rows: not of a pair"
        )
    for moments, mean, energy in zip((audio, visual), cross.means, cross.energies, strict=True):
        spread = np.sqrt(max(energy, 0.0) / max(cross.count, 1)) + np.linalg.norm(mean)
        if np.linalg.norm(moments.mean - mean) > _SAME_MEAN * spread:
            raise FeaturesError("moments of a pair are not of the same segments: means differ")
    a, v = scale
    found = Moments(audio.dim + visual.dim)
    own = found.own
    own.count = cross.count
    mean = np.concatenate([a * audio.mean, v * visual.mean])
    own.means = (mean, mean)
    block = own.scatter
    first, second = slice(audio.dim), slice(audio.dim, None)
    for place, factor, part in (
        ((first, first), a * a, audio.scatter),
        ((second, second), v * v, visual.scatter),
        ((first, second), a * v, cross.scatter),
        ((second, first), a * v, cross.scatter.T),
    ):
        np.multiply(part, factor, out=block[place])
    energy = a * a * audio.own.energies[0] + v * v * visual.own.energies[0]
    own.energies = (energy, energy)
    # |row|^2 is the sum of both modalities' squared norms.
    third = np.concatenate(
        [
            a * (a * a * audio.own.thirds[0] + v * v * cross.thirds[0]),
            v * (v * v * visual.own.thirds[0] + a * a * cross.thirds[1]),
        ]
    )
    own.thirds = (third, third)
    fourths = (audio.own.fourth, cross.fourth, visual.own.fourth)
    own.fourth = float(np.dot([a**4, 2 * a * a * v * v, v**4], fourths))
    own.precision = max(audio.own.precision, visual.own.precision, cross.precision)
    return found


def joint_sums(audio: ClassSums, visual: ClassSums, *, scale: Scale) -> ClassSums:
    """Class sums of the joint rows.

    Raises
    ------
    FeaturesError
        If they are not of the same rows.
    """
    if audio.count != visual.count or not np.array_equal(audio.positives, visual.positives):
        raise FeaturesError(
            f"class sums of {audio.count} and {visual.count} rows are not of the same labels"
        )
    found = ClassSums(audio.sums.shape[1] + visual.sums.shape[1], len(audio.sums))
    found.count, found.positives = audio.count, audio.positives.copy()
    found.sums = np.concatenate([scale[0] * audio.sums, scale[1] * visual.sums], axis=1)
    return found
