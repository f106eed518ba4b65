"""Leading directions of backbones and of pairs, on the two splits that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.candidates import Candidate
from avfeat.collocate.scores.angles import LEAST_GROUPS, Angles, corresponding_angles
from avfeat.collocate.scores.spectra import Spectrum
from avfeat.collocate.streams import Clips, project


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Directions:
    """Directions of one backbone's features, or of a pair's joint ones.

    Attributes
    ----------
    members
        The backbone, or audio and visual; joint rows are theirs side by side.
    scales
        What the rows of each are multiplied by.
    source, target
        Spectra of both splits, both centred or both not.
    """

    members: tuple[Candidate, ...]
    scales: tuple[float, ...]
    source: Spectrum
    target: Spectrum

    def compare(self, *, resamples: int, seed: int) -> Angles:
        """Compare the splits; with an interval where there are groups to resample."""
        grouped = self.source.groups is not None and self.target.groups is not None
        return corresponding_angles(
            self.source, self.target, resamples=resamples if grouped else 0, seed=seed
        )

    def bases(self, spectrum: Spectrum) -> dict[str, NDArray[np.float64]]:
        """Cut vectors of joint rows into what each member's rows are multiplied by."""
        ends = np.cumsum([one.store.dim for one in self.members])[:-1]
        parts = np.split(spectrum.vectors, ends)
        return {
            one.name: scale * part
            for one, scale, part in zip(self.members, self.scales, parts, strict=True)
        }


def with_groups(
    directions: Sequence[Directions], source: Clips, target: Clips, *, workers: int
) -> list[Directions]:
    """Add what intervals need, in one more pass over the clips of each split.

    Where a split has too few clips for groups of them, or vectors are not there, nothing is added.
    """
    if min(len(source), len(target)) < LEAST_GROUPS:
        return list(directions)
    able = {
        number: one
        for number, one in enumerate(directions)
        if not (one.source.reason or one.target.reason)
    }
    if not able:
        return list(directions)
    members = list({one.name: one for each in able.values() for one in each.members}.values())
    heads, tails = (
        project(
            members,
            clips,
            {number: one.bases(getattr(one, split)) for number, one in able.items()},
            workers=workers,
        )
        for split, clips in (("source", source), ("target", target))
    )
    found = list(directions)
    for number, one in able.items():
        found[number] = replace(
            one,
            source=one.source.with_groups(heads[number]),
            target=one.target.with_groups(tails[number]),
        )
    return found
