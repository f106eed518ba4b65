"""Temporal action localisation: mean average precision at temporal IoU (tIoU) thresholds.

As the ActivityNet toolkit computes it (github.com/activitynet/ActivityNet, ``Evaluation/``;
Caba Heilbron, Escorcia, Ghanem, Niebles: ActivityNet, CVPR 2015), which THUMOS14 results use too.
Published code bases of weakly-supervised localisation differ (snippets instead of seconds, first
instead of best match, no interpolation): their numbers are not comparable with these.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import UnknownNameError, UsageError

#: tIoU thresholds of THUMOS14, and the sets of them whose averages are usually reported.
THUMOS14_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
THUMOS14_AVERAGES: Mapping[str, tuple[float, ...]] = {
    "0.1-0.5": THUMOS14_TIOUS[:5],
    "0.3-0.7": THUMOS14_TIOUS[2:],
    "0.1-0.7": THUMOS14_TIOUS,
}

#: tIoU thresholds of ActivityNet, and the average that papers call "Avg".
ACTIVITYNET_TIOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ACTIVITYNET_AVERAGES: Mapping[str, tuple[float, ...]] = {"0.5-0.95": ACTIVITYNET_TIOUS}


@dataclass(frozen=True, slots=True)
class Instance:
    """A true instance of a class: [start, end) in seconds of a video."""

    video: str
    label: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A predicted instance of a class: [start, end) in seconds of a video; higher score first."""

    video: str
    label: str
    start: float
    end: float
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Average precisions in percent.

    Attributes
    ----------
    tious
        The thresholds.
    average_precision
        By class of the truth, one value per threshold.
    mean_ap
        Mean over classes, one value per threshold.
    """

    tious: tuple[float, ...]
    average_precision: Mapping[str, tuple[float, ...]]
    mean_ap: tuple[float, ...]

    def average(self, tious: Sequence[float]) -> float:
        """Mean of `mean_ap` over some thresholds, as `THUMOS14_AVERAGES` lists them.

        Raises
        ------
        UsageError
            If there is none, or one that was not computed.
        """
        missing = [tiou for tiou in tious if tiou not in self.tious]
        if missing or not tious:
            raise UsageError(
                f"no mAP at tIoU {missing}; there are {', '.join(map(str, self.tious))}"
            )
        return float(np.mean([self.mean_ap[self.tious.index(tiou)] for tiou in tious]))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dataclasses.asdict(self)


def score(
    detections: Iterable[Detection],
    truth: Iterable[Instance],
    *,
    tious: Sequence[float] = THUMOS14_TIOUS,
) -> Scores:
    """Compute the average precision of every class of the truth, at every threshold.

    By class, detections of all videos are taken by falling score (equal scores in the order given).
    Each takes the free true instance of its video whose tIoU is the highest (of equals, the last),
    if that is at least the threshold, and is a false positive otherwise, as it is in a video
    without truth of its class. Precision is replaced by its maximum at the same or a higher recall,
    then averaged over the true instances, those never found counting 0.

    What the toolkit makes of odd truth is kept:

    - A class of the truth without detections has an average precision of 0.
    - Classes that only detections have are refused, for there is no value for them to enter.
    - A true instance without length counts, and nothing with a length reaches it: its class stays
      under 100. Only where the detection has no length either does the toolkit divide 0 by 0 and
      take any two such for a match; here their tIoU is 0.

    Parameters
    ----------
    detections, truth
        Predicted and true instances, in any order.
    tious
        Thresholds, above 0 and at most 1.

    Raises
    ------
    UnknownNameError
        If a detection's label is no class of the truth.
    UsageError
        If there is no truth, a threshold is out of range, or an instance ends before it starts or
        has a time or score that is not a finite number.
    """
    if not tious or not all(0.0 < tiou <= 1.0 for tiou in tious):
        raise UsageError(f"tIoU thresholds lie above 0 and up to 1, not {list(tious)}")
    instances = _instances(truth)
    found: dict[str, list[Detection]] = {label: [] for label in instances}
    for detection in detections:
        _check(detection)
        if not isfinite(detection.score):
            raise UsageError(f"{detection}: its score is not a finite number")
        if detection.label not in found:
            raise UnknownNameError("class", detection.label, found)
        found[detection.label].append(detection)
    thresholds = np.asarray(tious, np.float64)
    precision = {
        label: 100.0 * _average_precision(found[label], instances[label], thresholds)
        for label in sorted(instances)
    }
    mean = np.mean(list(precision.values()), axis=0)
    return Scores(
        tious=tuple(tious),
        average_precision={label: tuple(ap.tolist()) for label, ap in precision.items()},
        mean_ap=tuple(mean.tolist()),
    )


def _instances(truth: Iterable[Instance]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Sort true instances by class and video, as float64 [instances, 2], the last first."""
    times: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for instance in truth:
        _check(instance)
        times[instance.label][instance.video].append((instance.start, instance.end))
    if not times:
        raise UsageError("no true instances: average precision is not defined")
    return {
        label: {video: np.array(pairs[::-1], np.float64) for video, pairs in videos.items()}
        for label, videos in times.items()
    }


def _check(instance: Instance | Detection) -> None:
    if not (isfinite(instance.start) and isfinite(instance.end)) or instance.end < instance.start:
        raise UsageError(f"{instance}: start and end are finite seconds, the end not before")


def _average_precision(
    detections: list[Detection],
    instances: dict[str, NDArray[np.float64]],
    tious: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Average precision of one class, float64 [thresholds] in 0..1."""
    ordered = sorted(detections, key=lambda detection: -detection.score)
    hits = np.zeros((len(ordered), len(tious)), bool)
    free = {video: np.ones((len(tious), len(times)), bool) for video, times in instances.items()}
    for index, detection in enumerate(ordered):
        if detection.video in instances:
            hits[index] = _take(detection, instances[detection.video], free[detection.video], tious)
    precision = np.cumsum(hits, axis=0) / np.arange(1, len(ordered) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    wanted = sum(len(times) for times in instances.values())
    average: NDArray[np.float64] = (envelope * hits).sum(axis=0) / wanted
    return average


def _take(
    detection: Detection,
    times: NDArray[np.float64],
    free: NDArray[np.bool_],
    tious: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Take the best free instance at every threshold, out of `free` [thresholds, instances].

    Returns
    -------
    bool [thresholds]
        Whether there was one.
    """
    tiou = _tiou(detection, times)
    usable = free & (tiou >= tious[:, None])
    best = np.where(usable, tiou, -1.0).argmax(axis=1)
    hit: NDArray[np.bool_] = np.any(usable, axis=1)
    free[hit, best[hit]] = False
    return hit


def _tiou(detection: Detection, times: NDArray[np.float64]) -> NDArray[np.float64]:
    starts, ends = times.T
    shared = np.minimum(ends, detection.end) - np.maximum(starts, detection.start)
    shared = shared.clip(min=0.0)
    union = (ends - starts) + (detection.end - detection.start) - shared
    tiou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros(len(times)), where=union > 0)
    return tiou
