"""Scores of every pair from stored features, without training: one pass over each store.

What the numbers mean, and what not, is told in docs/collocation.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.candidates import Candidate, Candidates
from avfeat.collocate.scores.alignment import linear_cka, mutual_neighbours
from avfeat.collocate.scores.angles import Angles, corresponding_angles
from avfeat.collocate.scores.canonical import fit_common_space
from avfeat.collocate.scores.joint import equal_energy, joint, joint_sums
from avfeat.collocate.scores.moments import ClassSums, Moments
from avfeat.collocate.scores.neighbours import sample
from avfeat.collocate.scores.result import Score
from avfeat.collocate.scores.retrieval import Reading, retrieval
from avfeat.collocate.scores.spectra import spectrum
from avfeat.collocate.scores.transferability import logme, regularised_h_score
from avfeat.collocate.segments import segment_count
from avfeat.collocate.streams import Clips, Measured, measure
from avfeat.errors import FeaturesError, UnknownNameError
from avfeat.metrics import avvp

#: Name to what it says; greater is taken as better.
SCORES: dict[str, str] = {
    "svd": "cos psi_1 between source and target, uncentred as printed (Wu et al. 2022)",
    "svd-centred": "mean cos psi_i of centred features, where spectral gaps are open",
    "subspace": "overlap of source's and target's leading k dimensions, centred",
    "bsp": "share of energy outside the first direction, centred (after Chen et al. 2019)",
    "logme": "LogME of the segments' labels (You et al. 2021)",
    "h-score": "regularised H-score of the segments' labels (Ibrahim et al. 2021)",
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
        Corresponding angles behind ``svd`` and ``svd-centred``.
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
    """

    pairs: list[Scored]
    singles: list[Scored]
    clips: dict[str, int]
    segments: int

    def ranking(self, score: str) -> list[Scored]:
        """Pairs by a score, the best first; those without it at the end."""
        return sorted(self.pairs, key=lambda one: _order(one.scores[score]))


def _order(score: Score) -> float:
    return float("inf") if score.value is None else -score.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How pairs are scored.

    Attributes
    ----------
    source, target
        Splits that angles compare; labels are those of `target`.
    names
        Scores to compute.
    k
        Directions compared.
    sampled
        Segments of `target` among which neighbours are sought.
    seed
        Of that sample.
    workers
        Threads.
    """

    source: str = "train"
    target: str = "val"
    names: Sequence[str] = field(default_factory=lambda: tuple(SCORES))
    k: int = 5
    sampled: int = 2000
    seed: int = 0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in SCORES:
                raise UnknownNameError("score", name, SCORES)


def score(
    candidates: Candidates,
    options: Options,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Table:
    """Score every pair and every backbone alone.

    Reads each store once, and those of audio once more for each visual one. Memory is O(d^2).

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
    splits = {name: _clips(candidates, name) for name in (options.source, options.target)}
    found: dict[str, _Both] = {}
    for audio in candidates.audio:
        progress(audio.name)
        found[audio.name] = _both(audio, splits, options, ())
    drawn = _draw(splits[options.target], options)
    segments = drawn.segments
    singles = [_single(one.name, found[one.name], segments, options) for one in candidates.audio]
    pairs: dict[tuple[str, str], Scored] = {}
    heard = {one.name: _read(one, drawn) for one in candidates.audio}
    for visual in candidates.visual:
        progress(visual.name)
        measured = _both(visual, splits, options, candidates.audio)
        singles.append(_single(visual.name, measured, segments, options))
        seen = _read(visual, drawn)
        for audio in candidates.audio:
            names = (audio.name, visual.name)
            rows = (heard[audio.name], seen)
            pairs[names] = _pair(names, found[audio.name], measured, rows, drawn, options)
    return Table(
        [pairs[audio.name, visual.name] for audio, visual in candidates.pairs],
        singles,
        {name: len(clips) for name, clips in splits.items()},
        segments,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Both:
    """Moments of a backbone on source and target; the same where those are one split."""

    source: Measured
    target: Measured


def _both(
    candidate: Candidate, splits: dict[str, Clips], options: Options, beside: Sequence[Candidate]
) -> _Both:
    measured = {
        name: measure(candidate, clips, beside=beside, workers=options.workers)
        for name, clips in splits.items()
    }
    return _Both(measured[options.source], measured[options.target])


def _clips(candidates: Candidates, split: str) -> Clips:
    store = candidates.all[0].store
    ids = tuple(candidates.split(split))
    segments = segment_count([store], ids)
    clips = [store.clip(clip_id) for clip_id in ids]
    dense = None
    if any(clip.events for clip in clips):
        dense = avvp.dense_labels(clips, store.classes, segments=segments)
    return Clips(ids, segments, dense)


def _draw(clips: Clips, options: Options) -> Clips:
    limit = max(1, options.sampled // clips.segments)
    return clips.part(sample(len(clips), limit, seed=options.seed))


def _read(candidate: Candidate, clips: Clips) -> NDArray[np.float32]:
    """Read features of a few clips, float32 [n * T, d]."""
    return np.concatenate(list(clips.rows(candidate))).reshape(-1, candidate.store.dim)


_NO_LABELS = Score.not_applicable("the target split has no labels by the second")
_LONE = Score.not_applicable("it compares two modalities")


def _single(name: str, both: _Both, segments: int, options: Options) -> Scored:
    """Score one backbone; what compares modalities does not apply."""
    target = both.target
    printed, centred, scores = _angles(both.source.own, target.own, segments, options)
    scores |= _label_scores(target.own, target.sums)
    scores |= dict.fromkeys(("cka", "mutual-knn", "recall"), _LONE)
    return Scored((name,), {one: scores[one] for one in options.names}, printed, centred)


def _pair(
    names: tuple[str, str],
    audio: _Both,
    visual: _Both,
    rows: tuple[NDArray[np.float32], NDArray[np.float32]],
    drawn: Clips,
    options: Options,
) -> Scored:
    """Score a pair: its joint features, and how its modalities go together.

    `rows` are those of the clips `drawn`, of audio and of visual.
    """
    forms = []
    for centred in (False, True):
        # One scale for both splits: theirs would turn the joint space.
        scale = equal_energy(audio.source.own, visual.source.own, centred=centred)
        forms.append(
            [
                joint(one.own, other.own, other.cross[names[0]], scale=scale)
                for one, other in (
                    (audio.source, visual.source),
                    (audio.target, visual.target),
                )
            ]
        )
    (raw_source, raw_target), (source, target) = forms
    segments = drawn.segments
    printed = _compare(raw_source, raw_target, segments, options, centred=False)[0]
    centred_, scores = _compare(source, target, segments, options, centred=True)
    scores = {"svd": printed.first()} | scores
    sums = None
    if audio.target.sums is not None and visual.target.sums is not None:
        scale = equal_energy(audio.source.own, visual.source.own, centred=True)
        sums = joint_sums(audio.target.sums, visual.target.sums, scale=scale)
    scores |= _label_scores(target, sums)
    one, other = audio.target, visual.target
    scores["cka"] = linear_cka(one.own, other.own, other.cross[names[0]])
    clips = np.repeat(np.arange(len(drawn)), segments)
    scores["mutual-knn"] = _above(*mutual_neighbours(*rows, clips=clips))
    scores["recall"] = _recall(names[0], audio, visual, rows, clips, drawn)
    return Scored(names, {name: scores[name] for name in options.names}, printed, centred_)


def _angles(
    source: Moments, target: Moments, segments: int, options: Options
) -> tuple[Angles, Angles, dict[str, Score]]:
    """Compare directions, as printed and centred; give the scores that follow."""
    printed, _ = _compare(source, target, segments, options, centred=False)
    centred, scores = _compare(source, target, segments, options, centred=True)
    return printed, centred, {"svd": printed.first()} | scores


def _compare(
    source: Moments, target: Moments, segments: int, options: Options, *, centred: bool
) -> tuple[Angles, dict[str, Score]]:
    spectra = [
        spectrum(one, k=options.k, clips=one.count // segments, centred=centred)
        for one in (source, target)
    ]
    angles = corresponding_angles(*spectra)
    ratio = spectra[1].energy_ratio()
    return angles, {
        "svd-centred": angles.mean(),
        "subspace": angles.overlap(),
        "bsp": ratio if ratio.value is None else Score(1 - ratio.value),
    }


def _label_scores(moments: Moments, sums: ClassSums | None) -> dict[str, Score]:
    if sums is None:
        return {"logme": _NO_LABELS, "h-score": _NO_LABELS}
    return {"logme": logme(moments, sums), "h-score": regularised_h_score(moments, sums)}


def _recall(
    audio_name: str,
    audio: _Both,
    visual: _Both,
    rows: tuple[NDArray[np.float32], NDArray[np.float32]],
    clips: NDArray[np.int64],
    drawn: Clips,
) -> Score:
    """Find visual segments by audio ones in the space that the source's correlations span."""
    if drawn.labels is None:
        return _NO_LABELS
    try:
        space = fit_common_space(
            audio.source.own, visual.source.own, visual.source.cross[audio_name]
        )
    except FeaturesError as error:
        return Score.not_applicable(str(error))
    flat = drawn.labels.reshape(len(clips), 2, -1)
    found = retrieval(
        space.audio(rows[0]),
        space.visual(rows[1]),
        query_labels=flat[:, 0],
        candidate_labels=flat[:, 1],
        clips=clips,
    ).recall[Reading(besides="clip")]
    return _above(found.value, found.chance)


def _above(value: Score, chance: Score) -> Score:
    """Give what is above chance, as a share of what could be."""
    if value.value is None or chance.value is None:
        return value
    if chance.value >= 1:
        return Score.not_applicable("chance alone is always right")
    return Score((value.value - chance.value) / (1 - chance.value))
