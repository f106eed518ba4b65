"""Which network made this? Classifiers that tell features of two networks apart.

Wu et al. (Information Sciences 2022, Table 4) feed features to a pre-trained ResNet101 and find
99.8 to 99.9 percent for every pair of visual networks. How vectors of 512 to 4096 features become
images of one size is not told, and networks are told apart by their width alone, or by where their
features lie, whatever they hold. So each of these is taken away in turn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from avfeat.collocate.scores.moments import check_finite
from avfeat.errors import FeaturesError
from avfeat.words import counted

Floats = NDArray[np.float32]
Float64s = NDArray[np.float64]

#: What is left of the features for classifiers to go by, each also by what stands above it.
PREPARATIONS: dict[str, str] = {
    "shape": "one width; every feature centred and scaled by its own network's",
    "offset": "one width, one scale per network; where the features lie is left",
    "padded": "zeros up to the wider width, one scale per network: the width leaks",
}
CLASSIFIERS: tuple[str, ...] = ("logistic", "mlp")

#: What guessing reaches: both networks have as many rows.
CHANCE = 0.5

# The common width: narrower than any known backbone, so that a random projection loses no less of
# one network than of another.
_WIDTH = 64
_TESTED = 0.3
# With fewer clips an accuracy is a matter of luck.
_LEAST_CLIPS = 10
_HIDDEN = 32
_EPOCHS = 30


def tell_apart(
    first: Floats, second: Floats, *, seed: int = 0, width: int = _WIDTH
) -> dict[str, dict[str, float]]:
    """Train classifiers to tell two networks' features apart, and test them on other clips.

    A clip's segments are all trained on or all tested. What features are scaled by comes from the
    clips trained on. A random projection depends on a network's width alone, so equal features stay
    equal.

    Parameters
    ----------
    first, second
        float32 [n, T, d] and [n, T, e] of the same clips.
    seed
        Of the choice of clips, of projections and of the network.
    width
        Common width, at most; no wider than the narrower network.

    Returns
    -------
    dict
        Preparation to classifier to accuracy in [0, 1]; see `PREPARATIONS`, `CLASSIFIERS` and
        `CHANCE`. By what only differs in shape no linear classifier can tell, so ``logistic`` is at
        chance there.

    Raises
    ------
    FeaturesError
        If shapes do not fit, there are fewer than 10 clips, or a feature is not finite.
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
    for each in (first, second):
        check_finite(each.reshape(-1, each.shape[-1]))
    order = np.random.default_rng(seed).permutation(len(first))
    cut = round(len(order) * _TESTED)
    tested, trained = order[:cut], order[cut:]
    width = min(width, first.shape[-1], second.shape[-1])
    found: dict[str, dict[str, float]] = {}
    for name in PREPARATIONS:
        parts = [_prepared(name, each, trained, width, seed) for each in (first, second)]
        wider = max(part.shape[-1] for part in parts)
        rows = np.stack([_padded(part, wider) for part in parts])
        found[name] = _accuracies(_flat(rows, trained), _flat(rows, tested), seed)
    return found


def _prepared(name: str, rows: Floats, trained: NDArray[np.int64], width: int, seed: int) -> Floats:
    """Take from one network's features, [n, T, d], what the preparation takes."""
    if name != "padded":
        rows = rows @ _projection(rows.shape[-1], width, seed)
    known = rows[trained].reshape(-1, rows.shape[-1]).astype(np.float64)
    if name == "shape":
        scale = known.std(axis=0)
        shift = known.mean(axis=0)
    else:
        scale = np.sqrt(np.mean(known**2, keepdims=True)[0])
        shift = np.zeros(1)
    scaled: Floats = ((rows - shift) / np.where(scale > 0, scale, 1)).astype(np.float32)
    return scaled


def _projection(dim: int, width: int, seed: int) -> Floats:
    rng = np.random.default_rng([seed, dim, width])
    drawn: Float64s = rng.standard_normal((dim, width)) / np.sqrt(dim)
    return drawn.astype(np.float32)


def _padded(rows: Floats, width: int) -> Floats:
    return np.pad(rows, ((0, 0), (0, 0), (0, width - rows.shape[-1])))


def _flat(rows: Floats, clips: NDArray[np.int64]) -> Floats:
    """Rows of some clips, [2, n, T, w], those of the first network before the second's."""
    flat: Floats = rows[:, clips].reshape(-1, rows.shape[-1])
    return flat


def _accuracies(known: Floats, unknown: Floats, seed: int) -> dict[str, float]:
    """Train on rows whose first half is the first network's, and test on such."""
    scaler = StandardScaler().fit(known)
    known, unknown = scaler.transform(known), scaler.transform(unknown)
    answers = [np.repeat([0, 1], len(rows) // 2) for rows in (known, unknown)]
    logistic = LogisticRegression(max_iter=1000).fit(known, answers[0])
    mlp = MLPClassifier((_HIDDEN,), random_state=seed)
    # By epochs: `fit` warns where it ends by their number.
    for _ in range(_EPOCHS):
        mlp.partial_fit(known, answers[0], classes=[0, 1])
    return {
        name: float((model.predict(unknown) == answers[1]).mean())
        for name, model in zip(CLASSIFIERS, (logistic, mlp), strict=True)
    }
