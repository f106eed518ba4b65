"""The papers' diagnostics of stored features, with what chance and other readings would give.

Wu et al., Toward a perceptive pretraining framework for Audio-Visual Video Parsing, Information
Sciences 2022 (Table 1, Table 4, Fig. 6, Fig. 8), and Rethinking the constraints of multimodal
fusion, 2021 (Table 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate import scoring
from avfeat.collocate.candidates import Candidate, Candidates
from avfeat.collocate.class_trends import class_trends
from avfeat.collocate.discriminator import CHANCE, PREPARATIONS, tell_apart
from avfeat.collocate.score_table import Options
from avfeat.collocate.scores.canonical import CommonSpace, fit_common_space
from avfeat.collocate.scores.lags import LabelLags, labels_by_lag, similarity_by_lag
from avfeat.collocate.scores.neighbours import unit_rows
from avfeat.collocate.scores.retrieval import Level, Reading, Retrieval, retrieval
from avfeat.collocate.streams import Clips, Measured, measure
from avfeat.errors import FeaturesError

Found = dict[str, Any]
Rows = NDArray[np.float32]

#: At least one label in common, segments that have labels, any segment but the query: of the
#: readings of Table 1 the only one under which features could reach its 0.97.
DEFAULT = Reading()

_NO_LABELS = {"reason": scoring.NO_LABELS}


def diagnose(
    candidates: Candidates,
    options: Options,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Found:
    """Run every diagnostic that needs no training of a task model.

    Features are those of ``options.sampled`` segments of the target split, whole clips drawn by
    ``options.seed``; audio and visual ones meet in a space fitted on the source split. Labels by
    lag are those of the whole target split. Memory is O(d^2), beside the sample's rows of every
    backbone.

    Parameters
    ----------
    progress
        Told what is being read.

    Returns
    -------
    dict
        Ready for JSON. What does not apply is ``{"reason": ...}`` in place of its value.

        ``sampled``: ``split``, ``clips`` and ``segments`` of the sample.

        ``recall``: of the nearest segment by cosine (`retrieval`). ``unimodal`` by backbone:
        ``value`` and ``chance``; ``multimodal`` by ``"AUDIO + VISUAL"``, visual segments sought for
        audio ones: ``recall``, ``distinguish`` and ``precision``, each with value and chance. Both
        have ``readings``, the other meanings by ``"match, among, besides"``.

        ``discriminator``: by modality, accuracies of `tell_apart` for each two backbones.

        ``lags``: ``labels`` by ``"audio-audio"``, ``"visual-visual"`` and ``"audio-visual"``, and
        ``similarity`` of ``backbones`` and ``pairs``: mean cosine by lag in seconds, a list over
        0...T-1, and ``elsewhere``, that of segments of different clips.

        ``classes``: see `class_trends`.

    Raises
    ------
    FeaturesError
        If a feature is not finite, or clips differ in length.
    CollocationError
        If a split has no clips.
    """
    target = Clips.of(candidates, options.target)
    drawn = target.sampled(options.sampled, seed=options.seed)
    rows: dict[str, Rows] = {}
    for one in (*candidates.audio, *candidates.visual):
        progress(f"a sample of {one.name}")
        rows[one.name] = drawn.features(one)
    audio_alone = {one.name: _unimodal(rows[one.name], drawn, 0) for one in candidates.audio}
    visual_alone = {one.name: _unimodal(rows[one.name], drawn, 1) for one in candidates.visual}
    pairs = _pairs(candidates, options, rows, drawn, progress)
    multimodal = {name: one.recall for name, one in pairs.items()}
    labelled = target.labels is not None
    return {
        "sampled": {
            "split": options.target,
            "clips": len(drawn),
            "segments": len(drawn) * drawn.segments,
        },
        "recall": {"unimodal": audio_alone | visual_alone, "multimodal": multimodal}
        if labelled
        else _NO_LABELS,
        "discriminator": _discriminator(candidates, rows, options.seed),
        "lags": {
            "labels": _NO_LABELS if target.labels is None else _label_lags(target.labels),
            "similarity": {
                "backbones": {name: _similarity(each, each) for name, each in rows.items()},
                "pairs": {name: one.similarity for name, one in pairs.items()},
            },
        },
        "classes": class_trends(candidates, options, progress=progress),
    }


@dataclass(frozen=True, slots=True)
class _Pair:
    """What is found of a pair in its common space."""

    recall: Found
    similarity: Found


def _pairs(
    candidates: Candidates,
    options: Options,
    rows: dict[str, Rows],
    drawn: Clips,
    progress: Callable[[str], None],
) -> dict[str, _Pair]:
    """Fit the spaces of all pairs in one pass over the source split, and look at the sample."""
    source = Clips.of(candidates, options.source)
    if shared := set(source.ids).intersection(drawn.ids):
        met = {"reason": scoring.no_common_space(len(shared))}
        pairs = [f"{audio.name} + {visual.name}" for audio, visual in candidates.pairs]
        return dict.fromkeys(pairs, _Pair(met, met))
    source = Clips(source.ids, source.segments, None)

    def measured(one: Candidate, beside: tuple[Candidate, ...] = ()) -> Measured:
        progress(one.name)
        return measure(one, source, beside=beside, workers=options.workers)

    heard = {one.name: measured(one) for one in candidates.audio}
    found: dict[tuple[str, str], _Pair] = {}
    for visual in candidates.visual:
        seen = measured(visual, candidates.audio)
        for audio in candidates.audio:
            names = (audio.name, visual.name)
            try:
                space = fit_common_space(heard[audio.name].own, seen.own, seen.cross[audio.name])
            except FeaturesError as error:
                reason = {"reason": str(error)}
                found[names] = _Pair(reason, reason)
            else:
                found[names] = _in_space(space, rows[audio.name], rows[visual.name], drawn)
    return {
        f"{audio.name} + {visual.name}": found[audio.name, visual.name]
        for audio, visual in candidates.pairs
    }


def _in_space(space: CommonSpace, audio: Rows, visual: Rows, drawn: Clips) -> _Pair:
    one, two = space.audio(audio), space.visual(visual)
    similarity = _similarity(one, two)
    if drawn.labels is None:
        return _Pair(_NO_LABELS, similarity)
    found = _retrieved(one, two, drawn, (0, 1))
    readings = {
        _key(reading): {
            "recall": _level(level),
            "precision": _level(found.precision[reading]),
        }
        for reading, level in found.recall.items()
    }
    recall = readings[_key(DEFAULT)] | {
        "distinguish": _level(found.distinguish),
        "readings": readings,
    }
    return _Pair(recall, similarity)


def _unimodal(rows: Rows, drawn: Clips, modality: int) -> Found:
    if drawn.labels is None:
        return _NO_LABELS
    found = _retrieved(rows, rows, drawn, (modality, modality))
    readings = {_key(reading): _level(level) for reading, level in found.recall.items()}
    return readings[_key(DEFAULT)] | {"readings": readings}


def _retrieved(queries: Rows, sought: Rows, drawn: Clips, modalities: tuple[int, int]) -> Retrieval:
    """Seek segments of the second modality for those of the first."""
    assert drawn.labels is not None
    count = len(drawn) * drawn.segments
    labels = [drawn.labels[:, :, modality].reshape(count, -1) for modality in modalities]
    return retrieval(
        queries.reshape(count, -1),
        sought.reshape(count, -1),
        query_labels=labels[0],
        candidate_labels=labels[1],
        clips=np.repeat(np.arange(len(drawn)), drawn.segments),
    )


def _key(reading: Reading) -> str:
    return f"{reading.match}, {reading.among}, {reading.besides}"


def _level(level: Level) -> Found:
    if level.value.value is None:
        return {"value": None, "chance": None, "reason": level.value.reason}
    return {"value": level.value.value, "chance": level.chance.value}


def _discriminator(candidates: Candidates, rows: dict[str, Rows], seed: int) -> Found:
    found: Found = {"chance": CHANCE, "preparations": PREPARATIONS}
    modalities = {"audio": candidates.audio, "visual": candidates.visual}
    for modality, ones in modalities.items():
        names = [one.name for one in ones]
        if len(names) < 2:
            found[modality] = {"reason": "there is one backbone only"}
            continue
        found[modality] = {
            f"{one} - {two}": _told_apart(rows[one], rows[two], seed)
            for one, two in combinations(names, 2)
        }
    return found


def _told_apart(first: Rows, second: Rows, seed: int) -> Found:
    widths = [first.shape[-1], second.shape[-1]]
    try:
        return {"widths": widths, "accuracy": tell_apart(first, second, seed=seed)}
    except FeaturesError as error:
        return {"reason": str(error)}


def _label_lags(labels: NDArray[np.bool_]) -> Found:
    audio, visual = labels[:, :, 0], labels[:, :, 1]
    return {
        "audio-audio": _curves(labels_by_lag(audio, audio)),
        "visual-visual": _curves(labels_by_lag(visual, visual)),
        "audio-visual": _curves(labels_by_lag(audio, visual)),
    }


def _curves(lags: LabelLags) -> Found:
    return {
        "equal": lags.equal.tolist(),
        "per_class": lags.per_class.tolist(),
        # JSON has no NaN, which stands where nothing is labelled.
        "conditional": [None if value != value else value for value in lags.conditional.tolist()],
    }


def _similarity(first: Rows, second: Rows) -> Found:
    return {
        "cosine": similarity_by_lag(first, second).tolist(),
        "elsewhere": _elsewhere(first, second),
    }


def _elsewhere(first: Rows, second: Rows) -> float | None:
    """Mean cosine of segments of different clips, [n, T, q] each: where curves by lag end."""
    clips, segments = first.shape[:2]
    if clips < 2:
        return None
    one, two = (unit_rows(each).sum(axis=1, dtype=np.float64) for each in (first, second))
    across = one.sum(axis=0) @ two.sum(axis=0) - np.einsum("nq,nq->", one, two)
    return float(across / (clips * (clips - 1) * segments**2))
