"""Audio-visual video parsing: labels by the second, the segment decision, and its F-scores.

The metric of LLP (Tian, Li, Xu: Unified Multisensory Perception: Weakly-Supervised Audio-Visual
Video Parsing, ECCV 2020, arXiv 2007.10558; ``eval_metrics.py`` of github.com/YapengTian/
AVVP-ECCV20), which every later paper kept. A segment is one second; modalities are ordered audio,
visual. LLP has no background class: a segment's labels are a set, background is the empty one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import UnknownNameError, UsageError
from avfeat.manifests.clips import Clip

Gate = Literal["joint", "modality", "none"]

#: How the video-level probabilities gate the segments, and whose rule that is. F-scores under
#: different rules cannot be compared, so the rule belongs beside every number.
GATES: dict[Gate, str] = {
    "joint": "both modalities by the joint video probability (HAN, MGN, VALOR)",
    "modality": "each modality by its own video probability (MA, JoMoLD, CPSP)",
    "none": "no gate (Rachavarapu and Rajagopalan, by their text)",
}
_MODALITIES = ("audio", "visual")


@dataclass(frozen=True, slots=True)
class FScores:
    """F-scores of one level, in percent.

    Attributes
    ----------
    audio, visual, audio_visual
        Of audio events, of visual events, and of those that are audible and visible at once.
    type_av
        Type@AV: the mean of these three.
    event_av
        Event@AV: audio and visual counts of a clip and class added up, then as the others.
    """

    audio: float
    visual: float
    audio_visual: float
    type_av: float
    event_av: float


@dataclass(frozen=True, slots=True)
class Scores:
    """F-scores by segments, and by events at an intersection over union of at least 0.5."""

    segment: FScores
    event: FScores

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return ``{"segment": {"audio": ..., ...}, "event": {...}}``, in percent."""
        return dataclasses.asdict(self)


class _Counts(NamedTuple):
    """True positives, false positives and false negatives, int64 [clips, types, classes]."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]


def dense_labels(
    clips: Sequence[Clip], classes: Sequence[str], *, segments: int = 10
) -> NDArray[np.bool_]:
    """Rasterise the clips' events by the second.

    Onset and offset are truncated to whole seconds and half-open, as in the published metric: an
    event whose onset is not before its offset sets nothing, nor does what lies outside the clip.

    A clip without rows of a modality is empty there, which is also how the official metric counts
    the LLP clips that have none. Clips without any dense annotation (LLP's training split) look the
    same and must not be scored.

    Parameters
    ----------
    clips
        The clips, in the order of the result.
    classes
        Canonical class order.
    segments
        Seconds per clip.

    Returns
    -------
    bool [clips, segments, 2, classes]

    Raises
    ------
    UnknownNameError
        If an event's label is not one of `classes`.
    UsageError
        If a time is not a number.
    """
    index = _positions(classes)
    labels = np.zeros((len(clips), segments, len(_MODALITIES), len(classes)), bool)
    for clip, grid in zip(clips, labels, strict=True):
        for event in clip.events:
            if not (isfinite(event.onset) and isfinite(event.offset)):
                raise UsageError(
                    f"clip {clip.id}: {event.label} from {event.onset} to {event.offset} s has no "
                    "finite times"
                )
            # A negative number would count from the end.
            onset, offset = max(int(event.onset), 0), max(int(event.offset), 0)
            modality = _MODALITIES.index(event.modality)
            grid[onset:offset, modality, _position(event.label, index)] = True
    return labels


def weak_labels(clips: Sequence[Clip], classes: Sequence[str]) -> NDArray[np.float32]:
    """Clip-level labels as multi-hot rows; a label that is given twice counts once.

    Returns
    -------
    float32 [clips, classes]
        0 or 1.

    Raises
    ------
    UnknownNameError
        If a label is not one of `classes`.
    """
    index = _positions(classes)
    labels = np.zeros((len(clips), len(classes)), np.float32)
    for clip, row in zip(clips, labels, strict=True):
        for label in clip.labels:
            row[_position(label, index)] = 1.0
    return labels


def decide(
    probabilities: NDArray[np.floating[Any]],
    video: NDArray[np.floating[Any]] | None,
    *,
    gate: Gate = "joint",
    threshold: float = 0.5,
    gate_threshold: float = 0.5,
) -> NDArray[np.bool_]:
    """Decide segments: those at or above `threshold` in videos at or above `gate_threshold`.

    The networks that `GATES` names use 0.5 twice. Others take segments at 0.25 and gate at 0.52
    (CoLeaF) or at 0.45 or thresholds searched by class (CMPAE, NREP).

    Parameters
    ----------
    probabilities
        [clips, segments, 2, classes] by segment.
    video
        By video: [clips, classes] for the gate ``joint``, [clips, 2, classes] for ``modality``;
        not looked at (None will do) for ``none``.

    Returns
    -------
    bool [clips, segments, 2, classes]

    Raises
    ------
    UnknownNameError
        If there is no such gate.
    UsageError
        If shapes do not fit, or a probability is not a number.
    """
    if gate not in GATES:
        raise UnknownNameError("gate", gate, GATES)
    if probabilities.ndim != 4 or probabilities.shape[2] != len(_MODALITIES):
        raise UsageError(
            f"probabilities are [clips, segments, 2, classes], not {list(probabilities.shape)}"
        )
    decided = _reaches(probabilities, threshold)
    if gate == "none":
        return decided
    clips, _, modalities, classes = probabilities.shape
    shape = (clips, classes) if gate == "joint" else (clips, modalities, classes)
    if video is None or video.shape != shape:
        found = "None" if video is None else list(video.shape)
        raise UsageError(
            f"the gate {gate!r} takes video probabilities of shape {list(shape)}, not {found}"
        )
    opened = _reaches(video, gate_threshold)
    return decided & opened.reshape(clips, 1, -1, classes)


def score(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Scores:
    """Score decided segments against the truth, by segments and by events.

    By class, clip and modality, F is 2 TP / (2 TP + FP + FN); a clip's score is the mean over the
    classes that are predicted or true in it, **1 if there is none**; the reported value is the mean
    over clips. Hence predicting nothing is not worth nothing: 14.50 for AV on LLP's test split.

    Events are the maximal runs of segments. A predicted one is a true positive if its intersection
    over union with some true one is at least 0.5, and a false positive otherwise; a true one that
    no predicted one reaches so is a false negative. Audio-visual segments are those that are audio
    and visual segments of one class, in prediction and truth alike.

    Parameters
    ----------
    predicted, truth
        bool [clips, segments, 2, classes], from `decide` and `dense_labels`.

    Raises
    ------
    UsageError
        If shapes or dtypes are others, or there is nothing to score.
    """
    for name, labels in (("predicted", predicted), ("truth", truth)):
        if labels.dtype != np.bool_:
            raise UsageError(f"{name} segments must be bool, not {labels.dtype}; see decide()")
        if labels.ndim != 4 or labels.shape[2] != len(_MODALITIES):
            raise UsageError(
                f"{name} segments are [clips, segments, 2, classes], not {list(labels.shape)}"
            )
    if predicted.shape != truth.shape:
        raise UsageError(
            f"predicted segments {list(predicted.shape)} and true ones {list(truth.shape)} differ "
            "in shape"
        )
    if not truth.size:
        raise UsageError(f"segments of shape {list(truth.shape)}: nothing to score")
    predicted, truth = _with_audio_visual(predicted), _with_audio_visual(truth)
    return Scores(
        segment=_f_scores(_segment_counts(predicted, truth)),
        event=_f_scores(_event_counts(predicted, truth)),
    )


def _positions(classes: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(classes)}


def _position(label: str, index: dict[str, int]) -> int:
    if label not in index:
        raise UnknownNameError("class", label, index)
    return index[label]


def _reaches(probabilities: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    # NaN would pass for a quiet segment.
    if np.isnan(probabilities).any():
        raise UsageError("some probabilities are not a number (NaN): nothing can be decided")
    decided: NDArray[np.bool_] = probabilities >= threshold
    return decided


def _with_audio_visual(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add audio-visual segments, and put time last: bool [clips, 3, classes, segments]."""
    both = labels.all(axis=2, keepdims=True)
    return np.concatenate([labels, both], axis=2).transpose(0, 2, 3, 1)


def _segment_counts(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> _Counts:
    return _Counts(
        (predicted & truth).sum(axis=-1),
        (predicted & ~truth).sum(axis=-1),
        (~predicted & truth).sum(axis=-1),
    )


def _event_counts(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> _Counts:
    starts, stops = _runs(predicted)
    true_starts, true_stops = _runs(truth)
    # The true runs that a predicted one overlaps are neighbours: [first, last).
    first = np.searchsorted(true_stops, starts, side="right")
    last = np.searchsorted(true_starts, stops, side="left")
    overlaps = last - first
    ours = np.repeat(np.arange(len(starts)), overlaps)
    before = np.cumsum(overlaps) - overlaps
    theirs = np.arange(len(ours)) + np.repeat(first - before, overlaps)
    union = np.maximum(stops[ours], true_stops[theirs])
    union -= np.minimum(starts[ours], true_starts[theirs])
    shared = np.minimum(stops[ours], true_stops[theirs])
    shared -= np.maximum(starts[ours], true_starts[theirs])
    alike = 2 * shared >= union
    found, reached = np.zeros(len(starts), bool), np.zeros(len(true_starts), bool)
    found[ours[alike]] = True
    reached[theirs[alike]] = True

    *rows, segments = truth.shape

    def count(positions: NDArray[np.int64]) -> NDArray[np.int64]:
        counts = np.bincount(positions // (segments + 1), minlength=int(np.prod(rows)))
        return counts.reshape(rows)

    return _Counts(count(starts[found]), count(starts[~found]), count(true_starts[~reached]))


def _runs(labels: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find maximal runs along the last axis.

    Returns
    -------
    starts, stops
        Half-open, ascending, on one line of time that holds all rows one after the other, each
        ended by one empty segment, so that no run crosses rows.
    """
    line = np.pad(labels, [(0, 0)] * (labels.ndim - 1) + [(0, 1)]).ravel()
    edges = np.diff(line.view(np.int8), prepend=np.int8(0))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _f_scores(counts: _Counts) -> FScores:
    audio, visual, both = (100.0 * _mean_f(*counts)).tolist()
    event = 100.0 * _mean_f(*(count[:, :2].sum(axis=1) for count in counts))
    return FScores(audio, visual, both, (audio + visual + both) / 3, float(event))


def _mean_f(
    tp: NDArray[np.int64], fp: NDArray[np.int64], fn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean over clips (first axis) of the mean over present classes (last axis) of F."""
    total = 2 * tp + fp + fn
    present = total > 0
    f = np.divide(2 * tp, total, out=np.zeros(total.shape), where=present)
    classes = present.sum(axis=-1)
    by_clip = np.where(classes > 0, f.sum(axis=-1) / np.maximum(classes, 1), 1.0)
    mean: NDArray[np.float64] = by_clip.mean(axis=0)
    return mean
