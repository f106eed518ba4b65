"""Audio-visual event localisation: accuracy and F1 over the pooled segments of AVE.

Accuracy is the metric of AVE (Tian, Shi, Li, Duan, Xu: Audio-Visual Event Localization in
Unconstrained Videos, ECCV 2018); F1 of background, of events and over all classes was added by
Temporal Label-Refinement for Weakly-Supervised Audio-Visual Event Localization, because repeating
a clip's class in every segment already has 82.21 % accuracy on the test split.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from avfeat.errors import UsageError

#: Index of "no event" in AVE's 29 classes.
BACKGROUND = 28


@dataclass(frozen=True, slots=True)
class FScore:
    """F1 with recall and precision, in percent; None where undefined (nothing to divide by)."""

    f1: float | None
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of all segments, in percent.

    Attributes
    ----------
    accuracy
        Share of segments whose class is right.
    weighted_f1
        One-against-rest F1 of every class, background among them, weighted by its true segments.
    non_ave
        Of background.
    ave
        Of events, micro: right event segments among the true ones (recall) and among those
        predicted as any event (precision).
    """

    accuracy: float
    weighted_f1: float
    non_ave: FScore
    ave: FScore

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, `non_ave` and `ave` as dictionaries."""
        return dataclasses.asdict(self)


def score(
    predicted: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    *,
    background: int = BACKGROUND,
) -> Scores:
    """Score class indices by segment, all segments pooled.

    Parameters
    ----------
    predicted, truth
        Integers [clips, segments], from 0; the arg-max of the classes' scores.
    background
        The class that means no event.

    Raises
    ------
    UsageError
        If shapes or dtypes are others, or there is nothing to score.
    """
    for name, classes in (("predicted", predicted), ("true", truth)):
        if not np.issubdtype(classes.dtype, np.integer) or classes.ndim != 2:
            raise UsageError(
                f"{name} classes are integers [clips, segments], not {classes.dtype} "
                f"{list(classes.shape)}"
            )
        if classes.size and classes.min() < 0:
            raise UsageError(f"{name} classes count from 0; there is a {classes.min()}")
    if predicted.shape != truth.shape:
        raise UsageError(
            f"predicted classes {list(predicted.shape)} and true ones {list(truth.shape)} differ "
            "in shape"
        )
    if not truth.size:
        raise UsageError(f"classes of shape {list(truth.shape)}: nothing to score")
    predicted, truth = predicted.ravel(), truth.ravel()
    right = predicted == truth
    empty, said_empty = truth == background, predicted == background
    return Scores(
        accuracy=100.0 * float(accuracy_score(truth, predicted)),
        weighted_f1=100.0 * float(f1_score(truth, predicted, average="weighted", zero_division=0)),
        non_ave=_f_score(right & empty, said_empty, empty),
        ave=_f_score(right & ~empty, ~said_empty, ~empty),
    )


def _f_score(right: NDArray[np.bool_], said: NDArray[np.bool_], true: NDArray[np.bool_]) -> FScore:
    hits, found, wanted = (int(np.count_nonzero(mask)) for mask in (right, said, true))
    return FScore(
        f1=_percent(2 * hits, found + wanted),
        recall=_percent(hits, wanted),
        precision=_percent(hits, found),
    )


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None
