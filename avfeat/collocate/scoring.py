"""Scores of every pair from stored features, without training: one pass over each store, or two.

What the numbers mean, and what not, is told in docs/collocation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from avfeat.collocate.candidates import Candidate, Candidates
from avfeat.collocate.directions import Directions, with_groups
from avfeat.collocate.score_table import Options, Scored, Table
from avfeat.collocate.scores.alignment import linear_cka, mutual_neighbours, nearest
from avfeat.collocate.scores.canonical import fit_common_space, whitener
from avfeat.collocate.scores.joint import Scale, equal_energy, joint, joint_sums
from avfeat.collocate.scores.moments import ClassSums, Moments
from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.retrieval import Reading, recall
from avfeat.collocate.scores.spectra import spectrum
from avfeat.collocate.scores.transferability import logme, regularised_h_score
from avfeat.collocate.streams import Clips, Measured, measure
from avfeat.errors import FeaturesError
from avfeat.words import counted

# What each kind of work is done for.
_PRINTED = frozenset({"svd"})
_CENTRED = frozenset({"svd-centred", "subspace", "bsp"})
_ANGLES = frozenset({"svd", "svd-centred", "subspace"})
_LABELLED = frozenset({"logme", "h-score"})
_PAIRED = frozenset({"cka", "mutual-knn", "recall"})
_SAMPLED = frozenset({"mutual-knn", "recall"})


def score(
    candidates: Candidates,
    options: Options,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Table:
    """Score every pair and every backbone alone.

    Reads each store once, and those of audio once more for each visual one; and all that again for
    intervals. Memory is O(d^2).

    Parameters
    ----------
    progress
        Told what is being read.

    Raises
    ------
    FeaturesError
        If a feature is not finite, or clips differ in length.
    CollocationError
        If a split has no clips.
    """
    work = _Work(candidates, options)
    heard: dict[str, _Both] = {}
    singles: list[Scored] = []
    pairs: dict[tuple[str, ...], Scored] = {}
    for audio in candidates.audio:
        progress(audio.name)
        heard[audio.name] = work.read(audio, ())
        singles += work.finished([work.single(heard[audio.name])])
    for visual in candidates.visual:
        progress(visual.name)
        seen = work.read(visual, candidates.audio)
        drafts = [
            work.single(seen),
            *(work.pair(heard[audio.name], seen) for audio in candidates.audio),
        ]
        single, *both = work.finished(drafts)
        singles.append(single)
        pairs |= {one.names: one for one in both}
    return Table(
        _over_same_angles([pairs[audio.name, visual.name] for audio, visual in candidates.pairs]),
        singles,
        {options.source: len(work.source), options.target: len(work.target)},
        work.target.segments,
        len(work.drawn) * work.drawn.segments,
    )


def _over_same_angles(pairs: list[Scored]) -> list[Scored]:
    """Average centred angles over those determined in every pair that has any, to rank pairs."""
    having = [
        one.centred.determined
        for one in pairs
        if one.centred is not None and one.centred.determined.any()
    ]
    if not having:
        return pairs
    common = np.logical_and.reduce(having)
    return [
        replace(one, scores=one.scores | {"svd-centred": one.centred.mean(common)})
        if one.centred is not None and "svd-centred" in one.scores
        else one
        for one in pairs
    ]


@dataclass(frozen=True, eq=False)
class _Both:
    """A backbone's moments on source and target, and its rows of the sampled clips.

    `places` are the clips of the sampled rows, by number.
    """

    candidate: Candidate
    source: Measured
    target: Measured
    rows: NDArray[np.float32] | None
    places: NDArray[np.int64]

    @cached_property
    def nearest(self) -> csr_array | Score:
        """Neighbours among the sampled rows; every pair with this backbone needs them."""
        assert self.rows is not None  # where a score needs them, all have them
        return nearest(self.rows, clips=self.places)

    @cached_property
    def whitener(self) -> NDArray[np.float64]:
        """Of the source's features; every pair with this backbone needs it."""
        return whitener(self.source.own)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """Scores but those of angles, and the directions that give these, by whether centred."""

    names: tuple[str, ...]
    scores: dict[str, Score]
    directions: dict[bool, Directions]


#: Why a score that needs labels has no value, and one that needs a common space.
NO_LABELS = "not all target clips have labels by the second"


def no_common_space(shared: int) -> str:
    """Say why a space fitted on the source is not used on a target that shares clips with it."""
    return (
        f"the common space would be fitted on {counted(shared, 'clip')} that it is asked about: "
        "source and target overlap"
    )


_NO_LABELS = Score.not_applicable(NO_LABELS)
_LONE = Score.not_applicable("it compares two modalities")


class _Work:
    """What all pairs share: the clips, the sample of them, and the options."""

    def __init__(self, candidates: Candidates, options: Options) -> None:
        self.options = options
        self.source = Clips.of(candidates, options.source)
        self.target = Clips.of(candidates, options.target)
        self.shared = len(set(self.source.ids) & set(self.target.ids))
        self.drawn = self.target.sampled(options.sampled, seed=options.seed)
        self.places = np.repeat(np.arange(len(self.drawn)), self.drawn.segments)

    def read(self, candidate: Candidate, beside: Sequence[Candidate]) -> _Both:
        """Take moments of a backbone, and its cross moments with others."""
        source, target = (
            measure(candidate, clips, beside=beside, workers=self.options.workers)
            for clips in (self.source, self.target)
        )
        rows = None
        if self.options.any_of(_SAMPLED):
            rows = self.drawn.features(candidate).reshape(-1, candidate.store.dim)
        return _Both(candidate, source, target, rows, self.places)

    def single(self, one: _Both) -> _Draft:
        """Score one backbone; what compares modalities does not apply."""
        scores = dict.fromkeys(_PAIRED, _LONE)
        directions = {}
        for centred in self._forms():
            moments = (one.source.own, one.target.own)
            directions[centred] = self._directions((one,), (1.0,), moments, centred=centred)
        scores |= self._label_scores(one.target.own, one.target.sums)
        return _Draft((one.candidate.name,), scores, directions)

    def pair(self, audio: _Both, visual: _Both) -> _Draft:
        """Score a pair: its joint features, and how its modalities go together."""
        name, options = audio.candidate.name, self.options
        scores: dict[str, Score] = {}
        directions = {}
        forms, labelled = self._forms(), options.any_of(_LABELLED)
        for centred in (False, True):
            if centred not in forms and not (centred and labelled):
                continue
            # One scale for both splits: theirs would turn the joint space.
            scale = equal_energy(audio.source.own, visual.source.own, centred=centred)
            target = self._joint(audio.target, visual.target, name, scale)
            if centred and labelled:
                scores |= self._joint_label_scores(audio.target, visual.target, target, scale)
            if centred in forms:
                source = self._joint(audio.source, visual.source, name, scale)
                directions[centred] = self._directions(
                    (audio, visual), scale, (source, target), centred=centred
                )
        cross = visual.target.cross[name]
        if "cka" in options.names:
            scores["cka"] = linear_cka(audio.target.own, visual.target.own, cross)
        if "mutual-knn" in options.names:
            scores["mutual-knn"] = _above(
                *mutual_neighbours(audio.nearest, visual.nearest, clips=self.places)
            )
        if "recall" in options.names:
            scores["recall"] = self._recall(audio, visual)
        return _Draft((name, visual.candidate.name), scores, directions)

    def finished(self, drafts: Sequence[_Draft]) -> list[Scored]:
        """Compare the directions, with intervals if asked for."""
        flat = [one for draft in drafts for one in draft.directions.values()]
        if self.options.resamples and not self.shared:
            flat = with_groups(flat, self.source, self.target, workers=self.options.workers)
        found = iter(flat)
        return [
            self._finish(draft, {centred: next(found) for centred in draft.directions})
            for draft in drafts
        ]

    def _finish(self, draft: _Draft, directions: dict[bool, Directions]) -> Scored:
        options, scores = self.options, dict(draft.scores)
        angles = {}
        if self.shared:
            scores |= dict.fromkeys(_ANGLES, self._same_clips())
        else:
            angles = {
                centred: one.compare(resamples=options.resamples, seed=options.seed)
                for centred, one in directions.items()
            }
        printed, centred = angles.get(False), angles.get(True)
        if printed is not None:
            scores["svd"] = printed.first()
        if centred is not None:
            scores["svd-centred"] = centred.mean()
            scores["subspace"] = centred.overlap()
        if True in directions:
            ratio = directions[True].target.energy_ratio()
            scores["bsp"] = ratio if ratio.value is None else Score(1 - ratio.value)
        wanted = {name: scores[name] for name in options.names}
        return Scored(draft.names, wanted, printed, centred)

    def _same_clips(self) -> Score:
        return Score.not_applicable(
            f"source and target have {counted(self.shared, 'clip')} in common: their directions "
            "agree whatever the features"
        )

    def _forms(self) -> list[bool]:
        """Say which forms of angles are needed: printed, centred."""
        wanted = self.options.any_of
        return [form for form, names in ((False, _PRINTED), (True, _CENTRED)) if wanted(names)]

    def _directions(
        self,
        members: tuple[_Both, ...],
        scales: tuple[float, ...],
        moments: tuple[Moments, Moments],
        *,
        centred: bool,
    ) -> Directions:
        source, target = (
            spectrum(one, k=self.options.k, clips=len(clips), centred=centred)
            for one, clips in zip(moments, (self.source, self.target), strict=True)
        )
        return Directions(
            members=tuple(one.candidate for one in members),
            scales=scales,
            source=source,
            target=target,
        )

    def _label_scores(self, moments: Moments, sums: ClassSums | None) -> dict[str, Score]:
        if sums is None:
            return dict.fromkeys(_LABELLED, _NO_LABELS)
        found = {}
        if "logme" in self.options.names:
            found["logme"] = logme(moments, sums)
        if "h-score" in self.options.names:
            found["h-score"] = regularised_h_score(moments, sums)
        return found

    @staticmethod
    def _joint(audio: Measured, visual: Measured, name: str, scale: Scale) -> Moments:
        return joint(audio.own, visual.own, visual.cross[name], scale=scale)

    def _joint_label_scores(
        self, audio: Measured, visual: Measured, both: Moments, scale: Scale
    ) -> dict[str, Score]:
        if audio.sums is None or visual.sums is None:
            return self._label_scores(both, None)
        return self._label_scores(both, joint_sums(audio.sums, visual.sums, scale=scale))

    def _recall(self, audio: _Both, visual: _Both) -> Score:
        """Find visual segments by audio ones in the space that the source's correlations span."""
        drawn = self.drawn
        if drawn.labels is None:
            return _NO_LABELS
        if self.shared:
            return Score.not_applicable(no_common_space(self.shared))
        cross = visual.source.cross[audio.candidate.name]
        try:
            space = fit_common_space(
                audio.source.own,
                visual.source.own,
                cross,
                whiteners=(audio.whitener, visual.whitener),
            )
        except FeaturesError as error:
            return Score.not_applicable(str(error))
        assert audio.rows is not None  # where a score needs them, all have them
        assert visual.rows is not None
        flat = drawn.labels.reshape(len(self.places), 2, -1)
        found = recall(
            space.audio(audio.rows),
            space.visual(visual.rows),
            Reading(besides="clip"),
            query_labels=flat[:, 0],
            candidate_labels=flat[:, 1],
            clips=self.places,
        )
        return _above(found.value, found.chance)


def _above(value: Score, chance: Score) -> Score:
    """Give what is above chance, as a share of what could be."""
    if value.value is None or chance.value is None:
        return value
    if chance.value >= 1:
        return Score.not_applicable("chance alone is always right")
    return Score((value.value - chance.value) / (1 - chance.value))
