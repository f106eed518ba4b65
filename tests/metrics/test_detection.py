"""mAP at tIoU: a literal version on random instances, and the official files against themselves."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from avfeat.errors import UnknownNameError, UsageError
from avfeat.metrics.detection import (
    ACTIVITYNET_AVERAGES,
    ACTIVITYNET_TIOUS,
    THUMOS14_AVERAGES,
    THUMOS14_TIOUS,
    Detection,
    Instance,
    Scores,
    score,
)

# The metric in the words of its definition, one threshold, class and detection at a time.


def tiou(one: Detection, other: Instance) -> float:
    shared = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    union = (one.end - one.start) + (other.end - other.start) - shared
    return shared / union if union else 0.0


def average_precision(
    detections: list[Detection], truth: list[Instance], threshold: float
) -> float:
    taken: set[int] = set()
    right: list[bool] = []
    for detection in sorted(detections, key=lambda detection: detection.score, reverse=True):
        same_video = [i for i, instance in enumerate(truth) if instance.video == detection.video]
        ranked = sorted(same_video, key=lambda i: (tiou(detection, truth[i]), i), reverse=True)
        chosen = [i for i in ranked if i not in taken and tiou(detection, truth[i]) >= threshold]
        taken.update(chosen[:1])
        right.append(bool(chosen))
    points = [
        (sum(right[:n]) / len(truth), sum(right[:n]) / n) for n in range(1, len(right) + 1)
    ]  # recall, precision
    area, before = 0.0, 0.0
    for level in sorted({recall for recall, _ in points if recall > 0}):
        area += (level - before) * max(precision for recall, precision in points if recall >= level)
        before = level
    return 100 * area


def literal(
    detections: Sequence[Detection], truth: Sequence[Instance], tious: Sequence[float]
) -> dict[str, list[float]]:
    return {
        label: [
            average_precision(
                [detection for detection in detections if detection.label == label],
                [instance for instance in truth if instance.label == label],
                threshold,
            )
            for threshold in tious
        ]
        for label in {instance.label for instance in truth}
    }


def check(
    detections: Sequence[Detection], truth: Sequence[Instance], tious: Sequence[float]
) -> Scores:
    expected = literal(detections, truth, tious)
    found = score(detections, truth, tious=tious)
    assert found.average_precision.keys() == expected.keys()
    for label, values in expected.items():
        assert found.average_precision[label] == pytest.approx(values)
    assert found.mean_ap == pytest.approx(np.mean(list(expected.values()), axis=0).tolist())
    assert found.tious == tuple(tious)
    return found


def randomly(
    rng: np.random.Generator, *, truths: int, detections: int, videos: int, grid: float
) -> tuple[list[Detection], list[Instance]]:
    """Times on a grid of seconds, so that equal times and tIoUs at the thresholds occur."""

    def times() -> tuple[float, float]:
        start, end = sorted(rng.integers(0, int(20 / grid), 2) * grid)
        return float(start), float(end)

    def name(kind: str, count: int) -> str:
        return f"{kind}{rng.integers(count)}"

    truth = [Instance(name("v", videos), name("c", 3), *times()) for _ in range(truths)]
    labels = [instance.label for instance in truth]
    return [
        Detection(name("v", videos + 1), str(rng.choice(labels)), *times(), float(rng.random()))
        for _ in range(detections)
    ], truth


@pytest.mark.parametrize("seed", range(60))
def test_scores_equal_the_literal_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    detections, truth = randomly(
        rng,
        truths=int(rng.integers(1, 25)),
        detections=int(rng.integers(0, 80)),
        videos=int(rng.integers(1, 5)),
        grid=float(rng.choice([5.0, 1.0, 0.01])),
    )
    tious = (THUMOS14_TIOUS, ACTIVITYNET_TIOUS)[seed % 2]
    found = check(detections, truth, tious)
    if seed == 0:
        assert 0 < found.mean_ap[0] < 100


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_and_near_misses_equal_the_literal_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, truth = randomly(rng, truths=10, detections=0, videos=2, grid=1.0)
    truth += truth[:4]  # 21 videos of ActivityNet 1.2 repeat an instance
    detections = []
    for instance in truth:
        for _ in range(3):
            start, end = sorted(rng.normal((instance.start, instance.end), 1.0))
            found = Detection(instance.video, instance.label, start, end, round(rng.random(), 1))
            detections.append(found)
    check(detections, truth, THUMOS14_TIOUS)


def one(start: float, end: float, rank: float = 1.0, *, video: str = "v") -> Detection:
    return Detection(video, "c", start, end, rank)


TRUTH = [Instance("v", "c", 0.0, 10.0), Instance("v", "c", 20.0, 30.0)]


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([], 0.0),
        ([one(0, 10)], 50.0),
        ([one(0, 10), one(20, 30)], 100.0),
        ([one(0, 5)], 50.0),  # tIoU of 0.5 itself
        ([one(0, 4.99)], 0.0),
        ([one(0, 10, video="other")], 0.0),
        ([one(0, 10, 0.9), one(0, 10, 0.8), one(20, 30, 0.7)], 100 * (1 + 2 / 3) / 2),
        ([one(50, 60, 0.9), one(0, 10, 0.8), one(20, 30, 0.7)], 100 * (2 / 3 + 2 / 3) / 2),
        ([one(0, 10, 0.7), one(50, 60, 0.9), one(20, 30, 0.8)], 100 * (2 / 3 + 2 / 3) / 2),
        ([one(0, 10, 0.9), one(20, 30, 0.8), one(50, 60, 0.7)], 100.0),
        ([one(50, 60, 0.5), one(0, 10, 0.5)], 25.0),  # equal scores: in the order given
        ([one(0, 10, 0.5), one(50, 60, 0.5)], 50.0),
        ([one(5, 5)], 0.0),
    ],
)
def test_precision_by_hand(detections: list[Detection], expected: float) -> None:
    found = check(detections, TRUTH, [0.5])
    assert found.mean_ap == (pytest.approx(expected),)


def test_the_best_free_instance_is_taken_not_the_first() -> None:
    truth = [Instance("v", "c", 0, 10), Instance("v", "c", 4, 10)]
    # The first detection fits both, best the second; then the other has only the first left.
    found = check([one(4, 10, 0.9), one(0, 10, 0.8)], truth, [0.5, 0.6])
    assert found.mean_ap == (100.0, 100.0)
    # The best one is gone: the next above the threshold is taken.
    found = check([one(4, 10, 0.9), one(4, 10, 0.8)], truth, [0.5, 0.6, 0.7])
    assert found.mean_ap == (100.0, 100.0, 50.0)


def test_classes_without_detections_count_nothing_and_count() -> None:
    truth = [*TRUTH[:1], Instance("v", "unseen", 0, 10)]
    found = check([one(0, 10)], truth, [0.5])
    assert found.average_precision == {"c": (100.0,), "unseen": (0.0,)}
    assert found.mean_ap == (50.0,)


def test_an_instance_without_length_is_never_found() -> None:
    truth = [Instance("v", "c", 5, 5), *TRUTH]
    found = check([one(0, 10), one(20, 30), one(5, 5), one(4.9, 5.1)], truth, THUMOS14_TIOUS)
    assert found.mean_ap == pytest.approx([200 / 3] * 7)


def test_averages_of_the_papers() -> None:
    detections, truth = randomly(
        np.random.default_rng(2), truths=20, detections=60, videos=2, grid=1.0
    )
    thumos, activitynet = (
        score(detections, truth, tious=tious) for tious in (THUMOS14_TIOUS, ACTIVITYNET_TIOUS)
    )
    by_name = {name: thumos.average(tious) for name, tious in THUMOS14_AVERAGES.items()}
    assert by_name == {
        "0.1-0.5": pytest.approx(sum(thumos.mean_ap[:5]) / 5),
        "0.3-0.7": pytest.approx(sum(thumos.mean_ap[2:]) / 5),
        "0.1-0.7": pytest.approx(sum(thumos.mean_ap) / 7),
    }
    (avg,) = ACTIVITYNET_AVERAGES.values()
    assert activitynet.average(avg) == pytest.approx(sum(activitynet.mean_ap) / 10)
    assert pytest.approx(np.arange(0.1, 0.71, 0.1).tolist()) == THUMOS14_TIOUS
    assert pytest.approx(np.linspace(0.5, 0.95, 10).tolist()) == ACTIVITYNET_TIOUS
    with pytest.raises(UsageError, match=r"no mAP at tIoU \[0.1, 0.2, 0.3, 0.4\]"):
        activitynet.average(THUMOS14_TIOUS[:5])
    assert json.loads(json.dumps(thumos.to_dict()))["mean_ap"] == list(thumos.mean_ap)


@pytest.mark.parametrize(
    ("detection", "message"),
    [
        (one(3, 2), "the end not before"),
        (one(float("nan"), 2), "finite seconds"),
        (one(0, float("inf")), "finite seconds"),
        (one(0, 1, float("nan")), "score is not a finite number"),
    ],
)
def test_impossible_detections_are_refused(detection: Detection, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score([detection], TRUTH)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="no true instances"):
        score([one(0, 1)], [])
    with pytest.raises(UsageError, match="the end not before"):
        score([], [Instance("v", "c", 3, 2)])
    with pytest.raises(UnknownNameError, match=r"unknown class 'd'\. Known: c"):
        score([dataclasses.replace(one(0, 1), label="d")], TRUTH)
    for tious in ([], [0.0], [1.1], [float("nan")]):
        with pytest.raises(UsageError, match="thresholds lie above 0 and up to 1"):
            score([], TRUTH, tious=tious)


# The official files


def annotations(path: Path, subset: str) -> list[Instance]:
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/data")
    database = json.loads(path.read_text())["database"]
    return [
        Instance(video, row["label"], *map(float, row["segment"]))
        for video, entry in database.items()
        if entry["subset"] == subset
        for row in entry["annotations"]
    ]


def test_truth_as_detections_of_thumos14_is_perfect(shared: Path) -> None:
    truth = annotations(shared / "data" / "thumos14" / "basnet" / "gt.json", "test")
    assert len(truth) == 3_311
    found = score([Detection(*dataclasses.astuple(row), 1.0) for row in truth], truth)
    assert len(found.average_precision) == 20
    assert found.mean_ap == pytest.approx([100.0] * 7)


def test_truth_as_detections_of_activitynet_lacks_the_instances_without_length(
    shared: Path,
) -> None:
    path = shared / "data" / "activitynet12" / "activitynet12_derived.json"
    truth = annotations(path, "validation")
    empty = Counter(row.label for row in truth if row.start == row.end)
    assert (len(truth), empty.total()) == (3_582, 3)
    # Instances without length come last, so that they spoil recall alone.
    detections = [Detection(*dataclasses.astuple(row), float(row.end > row.start)) for row in truth]
    found = score(detections, truth, tious=ACTIVITYNET_TIOUS)
    count = Counter(row.label for row in truth)
    for label, values in found.average_precision.items():
        assert values == pytest.approx([100 * (1 - empty[label] / count[label])] * 10)


def test_noisy_detections_of_thumos14_equal_the_literal_ones(shared: Path) -> None:
    truth = annotations(shared / "data" / "thumos14" / "basnet" / "gt.json", "test")
    truth = [row for row in truth if row.label in {"Billiards", "GolfSwing", "FrisbeeCatch"}]
    rng = np.random.default_rng(0)
    detections = []
    for row in truth * 3:
        start, end = sorted(rng.normal((row.start, row.end), 1.0))
        detections.append(Detection(row.video, row.label, start, end, rng.random()))
    found = check(detections, truth, THUMOS14_TIOUS)
    assert 20 < found.average(THUMOS14_TIOUS) < 80
