"""Event localisation: the published reference values on AVE, and a literal version by counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from avfeat.errors import UsageError
from avfeat.metrics import avel

Classes = np.ndarray


# The metric in the words of its definition, one segment at a time.


def ratio(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def f_score(pairs: list[tuple[int, int]], *, event: bool, background: int) -> dict[str, object]:
    said = [(p, t) for p, t in pairs if (p != background) == event]
    true = [(p, t) for p, t in pairs if (t != background) == event]
    right = sum(p == t for p, t in said)
    recall, precision = ratio(right, len(true)), ratio(right, len(said))
    if recall and precision:
        f1: float | None = 2 * recall * precision / (recall + precision)
    else:
        f1 = 0.0 if said or true else None
    return {"f1": f1, "recall": recall, "precision": precision}


def literal(predicted: Classes, truth: Classes, background: int) -> dict[str, object]:
    pairs = list(zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True))
    weighted = 0.0
    for label, support in Counter(t for _, t in pairs).items():
        tp = sum(p == t == label for p, t in pairs)
        wrong = sum((p == label) != (t == label) for p, t in pairs)
        weighted += support * 2 * tp / (2 * tp + wrong)
    return {
        "accuracy": 100 * sum(p == t for p, t in pairs) / len(pairs),
        "weighted_f1": 100 * weighted / len(pairs),
        "non_ave": f_score(pairs, event=False, background=background),
        "ave": f_score(pairs, event=True, background=background),
    }


def check(predicted: Classes, truth: Classes, background: int = 28) -> None:
    expected = literal(predicted, truth, background)
    found = avel.score(predicted, truth, background=background).to_dict()
    for name in ("non_ave", "ave"):
        assert found.pop(name) == pytest.approx(expected.pop(name))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(50))
def test_scores_equal_the_literal_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (rng.integers(1, 20), rng.choice([1, 2, 10]))
    classes = int(rng.integers(2, 30))
    truth = rng.integers(0, classes, shape)
    right = rng.random(shape) < rng.choice([0.0, 0.3, 0.9])
    predicted = np.where(right, truth, rng.integers(0, classes, shape))
    check(predicted, truth, background=int(rng.choice([classes - 1, 0, 28])))


@pytest.mark.parametrize("seed", range(20))
def test_f_scores_equal_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(20, 29, (2, 30, 10))
    scores = avel.score(predicted, truth)
    flat = truth.ravel(), predicted.ravel()
    for found, labels in ((scores.non_ave, [28]), (scores.ave, list(range(28)))):
        precision, recall, f1, _ = precision_recall_fscore_support(
            *flat, labels=labels, average="micro"
        )
        assert found == avel.FScore(
            pytest.approx(100 * f1), pytest.approx(100 * recall), pytest.approx(100 * precision)
        )


@pytest.mark.parametrize("predicted", [3, 4, 28])
@pytest.mark.parametrize("true", [3, 28])
def test_one_class_everywhere(predicted: int, true: int) -> None:
    check(np.full((2, 10), predicted), np.full((2, 10), true))


def test_what_is_undefined_is_none() -> None:
    event, background = np.full((2, 10), 3), np.full((2, 10), 28)
    assert avel.score(event, event).non_ave == avel.FScore(None, None, None)
    assert avel.score(event, event).ave == avel.FScore(100.0, 100.0, 100.0)
    # The paper prints "-" for the precision of what is never predicted; recall and F1 are 0 there.
    assert avel.score(event, background).non_ave == avel.FScore(0.0, 0.0, None)
    assert avel.score(event, background).ave == avel.FScore(0.0, None, 0.0)
    assert avel.score(background, background).ave == avel.FScore(None, None, None)


def test_a_wrong_event_is_neither_found_nor_right() -> None:
    scores = avel.score(np.array([[1, 1, 28, 28]]), np.array([[1, 2, 2, 28]]))
    assert scores.accuracy == 50.0
    assert scores.ave == avel.FScore(
        pytest.approx(200 / 5), pytest.approx(100 / 3), pytest.approx(50.0)
    )
    assert scores.non_ave == avel.FScore(pytest.approx(200 / 3), 100.0, 50.0)
    # F1: 2/3 of class 1 (one segment), 0 of class 2 (two segments), 2/3 of background (one).
    assert scores.weighted_f1 == pytest.approx(100 * (2 / 3 + 0 + 2 / 3) / 4)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((2, 10)), np.zeros((2, 10), int), "predicted .* not float64"),
        (np.zeros((2, 10), int), np.zeros((2, 10), bool), "true .* not bool"),
        (np.zeros(20, int), np.zeros(20, int), r"int64 \[20\]"),
        (np.zeros((2, 10), int), np.zeros((1, 10), int), "differ in shape"),
        (np.zeros((0, 10), int), np.zeros((0, 10), int), "nothing to score"),
        (np.full((2, 10), -1), np.zeros((2, 10), int), "count from 0; there is a -1"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted: Classes, truth: Classes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        avel.score(predicted, truth)


# The official files


@pytest.fixture(scope="module")
def official(shared: Path) -> Path:
    folder = shared / "data" / "ave"
    if not folder.is_dir():
        pytest.skip("no AVE annotations in ../shared/data")
    return folder


def truth_of(official: Path, split: str) -> tuple[Classes, Classes]:
    """Classes by segment [clips, 10] and by clip [clips, 1], in the split's official order."""
    names = (official / "dgsct_categories.txt").read_text().splitlines()
    lines = (official / "Annotations.txt").read_text().splitlines()
    assert (len(names), len(lines)) == (28, 4143)
    with h5py.File(official / f"{split}_order.h5") as file:
        rows = [lines[index].split("&") for index in file["order"][:]]
    truth = np.full((len(rows), 10), 28)
    for segments, (label, _, _, start, end) in zip(truth, rows, strict=True):
        segments[int(start) : int(end)] = names.index(label)
    return truth, np.array([[names.index(row[0])] for row in rows])


def test_repeating_the_true_class_on_the_test_split(official: Path) -> None:
    truth, by_clip = truth_of(official, "test")
    assert (truth.size, int((truth == 28).sum())) == (4020, 715)
    predicted = np.broadcast_to(by_clip, truth.shape)
    scores = avel.score(predicted, truth)
    assert scores.accuracy == pytest.approx(82.21, abs=0.00501)
    assert scores.weighted_f1 == pytest.approx(74.77, abs=0.00501)
    assert scores.non_ave == avel.FScore(0.0, 0.0, None)
    assert scores.ave == avel.FScore(
        pytest.approx(90.24, abs=0.00501), 100.0, pytest.approx(82.21, abs=0.00501)
    )
    check(predicted, truth)


def test_background_everywhere_on_the_test_split(official: Path) -> None:
    truth, _ = truth_of(official, "test")
    scores = avel.score(np.full_like(truth, 28), truth)
    assert scores.accuracy == pytest.approx(17.79, abs=0.00501)
    assert scores.weighted_f1 == pytest.approx(5.37, abs=0.00501)
    assert scores.non_ave == avel.FScore(
        pytest.approx(30.20, abs=0.00501), 100.0, pytest.approx(17.79, abs=0.00501)
    )
    assert scores.ave == avel.FScore(0.0, 0.0, None)


def test_repeating_the_true_class_on_the_val_split(official: Path) -> None:
    truth, by_clip = truth_of(official, "val")
    scores = avel.score(np.broadcast_to(by_clip, truth.shape), truth)
    assert scores.accuracy == pytest.approx(81.79, abs=0.00501)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_truth_is_perfect(official: Path, split: str) -> None:
    truth, _ = truth_of(official, split)
    full = avel.FScore(100.0, 100.0, 100.0)
    assert avel.score(truth, truth) == avel.Scores(100.0, pytest.approx(100.0), full, full)
