"""Which network made this? Classifiers that tell features of two networks apart.

Wu et al. (Information Sciences 2022, Table 4) feed features to a pre-trained ResNet101 and find
99.8 to 99.9 percent for every pair of visual networks. How vectors of 512 to 4096 features become
images of one size is not told, and networks are told apart by their width alone, or by where their
features lie, whatever they hold. So each of these is taken away in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from avfeat.collocate.scores.block import check_finite
from avfeat.errors import FeaturesError
from avfeat.words import counted

Floats = NDArray[np.float32]

#: What is left of the features for classifiers to go by, each also by what stands above it.
PREPARATIONS: dict[str, str] = {
    "shape": "leading principal components, as many of both, each centred and of unit variance",
    "offset": "the same components with one scale per network; where the features lie is left",
    "padded": "all features, with zeros up to the wider width: the width leaks",
}
CLASSIFIERS: tuple[str, ...] = ("logistic", "mlp")

#: What guessing reaches: both networks have as many rows.
CHANCE = 0.5

_WIDTH = 64
_TESTED = 0.3
# With fewer clips an accuracy is a matter of luck.
_LEAST_CLIPS = 10
# Share of the first component's variance below which a component is rounding.
_RANK = 1e-6
# Of what was tried on exponential against normal features, what tells them apart soonest: 0.9 in
# two seconds.
_MLP = {"hidden_layer_sizes": (64,), "learning_rate_init": 0.01, "alpha": 0.1}
_BATCH = 64
_EPOCHS = 20


def tell_apart(
    first: Floats, second: Floats, *, seed: int = 0, width: int = _WIDTH
) -> dict[str, dict[str, float]]:
    """Train classifiers to tell two networks' features apart, and test them on other clips.

    A clip's segments are all trained on or all tested. Components and scales come from the clips
    trained on.

    Parameters
    ----------
    first, second
        float32 [n, T, d] and [n, T, e] of the same clips.
    seed
        Of the choice of clips, of randomised components and of the classifier.
    width
        Components, at most; no more than both networks have.

    Returns
    -------
    dict
        Preparation to classifier to accuracy in [0, 1]; see `PREPARATIONS`, `CLASSIFIERS` and
        `CHANCE`. ``shape`` has neither means nor variances that differ, so no linear classifier
        does better than chance there, and features that are rotated, shifted or scaled are not told
        from what they were.

    Raises
    ------
    FeaturesError
        If shapes do not fit, there are fewer than 10 clips, or a feature is not finite, or features
        do not vary.
    """
    if first.shape[:-1] != second.shape[:-1] or first.ndim != 3:
        raise FeaturesError(
            f"features {list(first.shape)} and {list(second.shape)} are not of the same segments"
        )
    if len(first) < _LEAST_CLIPS:
        raise FeaturesError(
            f"{counted(len(first), 'clip')} are too few to train and test on: "
            f"it takes {_LEAST_CLIPS}"
        )
    both = (first, second)
    for each in both:
        check_finite(each.reshape(-1, each.shape[-1]))
    order = np.random.default_rng(seed).permutation(len(first))
    cut = round(len(order) * _TESTED)
    tested, trained = order[:cut], order[cut:]
    axes = [_Axes.of(_flat(each, trained), width, seed) for each in both]
    common = min(len(each.deviations) for each in axes)
    forms: dict[str, list[Floats]] = {
        "shape": [own.white(rows, common) for own, rows in zip(axes, both, strict=True)],
        "offset": [
            _scaled(rows @ own.directions[:, :common], trained)
            for own, rows in zip(axes, both, strict=True)
        ],
        "padded": _padded([_scaled(rows, trained) for rows in both]),
    }
    return {
        name: _accuracies(
            *(np.concatenate([_flat(rows, clips) for rows in form]) for clips in (trained, tested)),
            seed=seed,
        )
        for name, form in forms.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Axes:
    """Principal components of one network's rows.

    Attributes
    ----------
    mean
        float32 [d].
    directions
        float32 [d, w], leading first.
    deviations
        Standard deviations along them, float32 [w].
    """

    mean: Floats
    directions: Floats
    deviations: Floats

    @classmethod
    def of(cls, rows: Floats, width: int, seed: int) -> _Axes:
        """Fit at most `width` of them to rows [n, d]."""
        if not np.ptp(rows, axis=0).any():
            raise FeaturesError("features that do not vary cannot be told apart")
        # In float64: scikit-learn takes the mean's square off the second moment.
        fitted = PCA(min(width, *rows.shape), random_state=seed).fit(rows.astype(np.float64))
        variances = fitted.explained_variance_
        kept = int((variances > _RANK * variances[0]).sum())
        directions = fitted.components_[:kept].T
        # An axis has no sign of its own; the longer tail is given the positive one.
        tails = (((rows - fitted.mean_) @ directions) ** 3).sum(axis=0)
        directions *= np.where(tails < 0, -1, 1)
        return cls(
            fitted.mean_.astype(np.float32),
            directions.astype(np.float32),
            np.sqrt(variances[:kept]).astype(np.float32),
        )

    def white(self, rows: Floats, width: int) -> Floats:
        """Give rows [n, T, d] by the first components, centred and of unit variance."""
        along = (rows - self.mean) @ self.directions[:, :width] / self.deviations[:width]
        return along.astype(np.float32, copy=False)


def _scaled(rows: Floats, trained: NDArray[np.int64]) -> Floats:
    """Scale rows [n, T, w] by one number, their root mean square."""
    scale = float(np.sqrt(np.mean(np.square(rows[trained], dtype=np.float64))))
    return rows / np.float32(scale)


def _padded(both: list[Floats]) -> list[Floats]:
    wider = max(rows.shape[-1] for rows in both)
    return [np.pad(rows, ((0, 0), (0, 0), (0, wider - rows.shape[-1]))) for rows in both]


def _flat(rows: Floats, clips: NDArray[np.int64]) -> Floats:
    flat: Floats = rows[clips].reshape(-1, rows.shape[-1])
    return flat


def _accuracies(known: Floats, unknown: Floats, *, seed: int) -> dict[str, float]:
    """Train on rows whose first half is the first network's, and test on such."""
    scaler = StandardScaler().fit(known)
    known, unknown = scaler.transform(known), scaler.transform(unknown)
    answers = [np.repeat([0, 1], len(rows) // 2) for rows in (known, unknown)]
    logistic = LogisticRegression(max_iter=1000).fit(known, answers[0])
    mlp = MLPClassifier(**_MLP, batch_size=min(_BATCH, len(known)), random_state=seed)
    # By epochs: `fit` warns where it ends by their number.
    for _ in range(_EPOCHS):
        mlp.partial_fit(known, answers[0], classes=[0, 1])
    return {
        name: float((model.predict(unknown) == answers[1]).mean())
        for name, model in zip(CLASSIFIERS, (logistic, mlp), strict=True)
    }
