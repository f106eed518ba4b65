"""SVD transferability: do two splits' features lie along the same directions?

Corresponding angles are those of Chen, Wang, Long, Wang (Transferability vs. discriminability:
batch spectral penalization, ICML 2019), by which Wu et al. (Toward a perceptive pretraining
framework for audio-visual video parsing, Information Sciences 2022) choose collocations:
cos psi_i = |<u_s,i, u_t,i>| of the i-th left singular vectors of a source's and a target's feature
matrix. Neither centres its features; for non-negative ones psi_1 then is nearly the angle between
the mean directions, close to 0 for anything, so that the centred form should stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svdvals

from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.spectra import Resampled, Spectrum
from avfeat.errors import FeaturesError
from avfeat.words import counted

Float64s = NDArray[np.float64]

_COVERAGE = (97.5, 2.5)  # percent, of the ends of a 95 % interval that is reflected
#: Of fewer groups, a resample is often one group alone.
LEAST_GROUPS = 5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Angles:
    """Cosines between the leading directions of two feature matrices; arrays are float64 [k].

    Attributes
    ----------
    cosines
        cos psi_i in [0, 1], i = 1...k. The sign of a singular vector is arbitrary and taken off.
    determined
        bool [k]. Where False the angle means nothing: a gap is closed, and the data could as well
        have had its neighbour, or any mixture, as the i-th vector.
    gaps
        The smaller of both spectra's relative gaps; see `Spectrum.gaps`.
    thresholds
        Of source and target: a gap below its spectrum's is closed; see `Spectrum.threshold`.
    principal
        Cosines of the principal angles between the spans of the first k vectors, descending. They
        do not depend on gaps within the k, only on the one behind the k-th.
    last_gaps
        Of source and target: the relative gap behind the k-th; see `Spectrum.last_gap`.
    dim
        Features.
    energy
        Of source and target: the shares of spectral energy in the first 1...k singular values; see
        `Spectrum.energy_ratio`.
    interval
        95 % intervals of `cosines`, float64 [k, 2]; None if they were not asked for. They are basic
        bootstrap intervals, twice the cosine less the percentiles of resamples, within [0, 1]
        (Davison, Hinkley: Bootstrap methods and their application, 1997, section 5.2): sampling
        turns vectors away from each other, and a resample once more, so that percentiles
        themselves would nearly always lie below the truth.
    reason
        Why there are no angles, or empty. Arrays are empty then.
    """

    cosines: Float64s
    determined: NDArray[np.bool_]
    gaps: Float64s
    thresholds: tuple[float, float]
    principal: Float64s
    last_gaps: tuple[float, float]
    dim: int
    energy: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    interval: Float64s | None = None
    reason: str = ""

    def first(self) -> Score:
        """Give cos psi_1, which the papers interpret."""
        if self.reason:
            return Score.not_applicable(self.reason)
        if not self.determined[0]:
            return Score.not_applicable(
                f"the first singular vector is not determined: relative gap {self.gaps[0]:.2g}"
            )
        return Score(float(self.cosines[0]))

    def mean(self, among: NDArray[np.bool_] | None = None) -> Score:
        """Mean of the cosines that are determined; only of those `among`, bool [k], if given.

        Cosines fall with i, so that means compare over the same ones alone.
        """
        if self.reason:
            return Score.not_applicable(self.reason)
        if not self.determined.any():
            return Score.not_applicable(
                f"none of {counted(len(self.gaps), 'singular vector')} is determined: "
                f"relative gaps are up to {self.gaps.max():.2g}"
            )
        chosen = self.determined if among is None else self.determined & among
        if not chosen.any():
            return Score.not_applicable(
                "no singular vector is determined in all that have a determined one"
            )
        return Score(float(self.cosines[chosen].mean()))

    def overlap(self) -> Score:
        """Mean square of the principal cosines, the shared part of the spans, above chance.

        Spans of k random directions among d share k / d on average: 0 stands for that, 1 for one
        span.
        """
        if self.reason:
            return Score.not_applicable(self.reason)
        k = len(self.principal)
        if k == self.dim:
            return Score.not_applicable(f"{k} directions are all of {counted(k, 'feature')}")
        for name, gap, least in zip(
            ("source", "target"), self.last_gaps, self.thresholds, strict=True
        ):
            if gap < least:
                return Score.not_applicable(
                    f"{name}: the span of {counted(k, 'singular vector')} is not determined: "
                    f"relative gap {gap:.2g} behind them"
                )
        chance = k / self.dim
        return Score((float(np.square(self.principal).mean()) - chance) / (1 - chance))


def corresponding_angles(
    source: Spectrum, target: Spectrum, *, resamples: int = 0, seed: int = 0
) -> Angles:
    """Compare the leading singular vectors of two splits of one backbone or collocation.

    Parameters
    ----------
    source, target
        Spectra of the same features, both centred or both not, of one k.
    resamples
        Resamples of the bootstrap; 0 for no interval, 200 and more for one. Both spectra need
        groups then, see `Spectrum.with_groups`. A resample draws as many groups as there are, with
        replacement, from source and target alike, so that it costs k^3 and no memory beyond the
        groups'. Its vectors are sought within the span of those that the spectrum keeps, 4 k or
        more.
    seed
        Of the draws.

    Raises
    ------
    FeaturesError
        If the spectra are not of the same features, form and k.
    """
    for name in ("k", "centred"):
        if getattr(source, name) != getattr(target, name):
            raise FeaturesError(f"source and target spectra differ in {name}")
    if len(source.vectors) != len(target.vectors):
        raise FeaturesError(
            f"source has {len(source.vectors)} features and target {len(target.vectors)}: "
            "corresponding angles need one backbone"
        )
    reasons = [
        f"{name}: {each.reason}"
        for name, each in (("source", source), ("target", target))
        if each.reason
    ]
    thresholds = (source.threshold, target.threshold)
    if reasons:
        return Angles(
            cosines=np.zeros(0),
            determined=np.zeros(0, bool),
            gaps=np.zeros(0),
            thresholds=thresholds,
            principal=np.zeros(0),
            last_gaps=(0.0, 0.0),
            dim=len(source.vectors),
            reason="; ".join(reasons),
        )
    k = source.k
    between = source.vectors.T @ target.vectors
    cosines = np.minimum(np.abs(np.diagonal(between)[:k]), 1.0)
    interval = None
    if resamples:
        drawn = _resampled(source, target, between, resamples, seed)
        interval = np.clip(2 * cosines - np.percentile(drawn, _COVERAGE, axis=0), 0.0, 1.0).T
    return Angles(
        cosines=cosines,
        determined=(source.gaps >= source.threshold) & (target.gaps >= target.threshold),
        gaps=np.minimum(source.gaps, target.gaps),
        thresholds=thresholds,
        principal=np.minimum(svdvals(between[:k, :k]), 1.0),
        last_gaps=(source.last_gap, target.last_gap),
        dim=len(source.vectors),
        energy=(_energy(source), _energy(target)),
        interval=interval,
    )


def _energy(spectrum: Spectrum) -> list[float]:
    ratios = (spectrum.energy_ratio(first).value for first in range(1, spectrum.k + 1))
    return [ratio for ratio in ratios if ratio is not None]


def _resampled(
    source: Spectrum, target: Spectrum, between: Float64s, resamples: int, seed: int
) -> Float64s:
    """Cosines of resamples, float64 [resamples, k]."""
    rng = np.random.default_rng(seed)
    drawn = []
    for spectrum in (source, target):
        groups = spectrum.groups
        if groups is None or len(groups.counts) < LEAST_GROUPS:
            found = 0 if groups is None else len(groups.counts)
            raise FeaturesError(
                f"a bootstrap needs {LEAST_GROUPS} groups of clips or more, not {found}"
            )
        number = len(groups.counts)
        weights = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
        drawn.append(_vectors(groups, weights.astype(np.float64), spectrum))
    cosines = np.einsum("rik,ij,rjk->rk", drawn[0], between, drawn[1], optimize=True)
    absolute: Float64s = np.minimum(np.abs(cosines), 1.0)
    return absolute


def _vectors(groups: Resampled, weights: Float64s, spectrum: Spectrum) -> Float64s:
    """Leading vectors of each resample, in coordinates of the spectrum's: float64 [B, m, k]."""
    seconds = np.einsum("rg,gij->rij", weights, groups.seconds, optimize=True)
    if spectrum.centred:
        counts = weights @ groups.counts
        sums = (weights * groups.counts) @ groups.means
        seconds -= np.einsum("ri,rj->rij", sums, sums / counts[:, None])
    _, vectors = np.linalg.eigh(seconds)
    return np.ascontiguousarray(vectors[:, :, ::-1][:, :, : spectrum.k])
