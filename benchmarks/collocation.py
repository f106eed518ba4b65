"""Collocation: scores from stored features, the searches, a training's epoch.

``python -m benchmarks.collocation`` runs it alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import collocation_stores, collocation_svd, collocation_training
from benchmarks.figure import Figure
from benchmarks.setting import Setting, alone


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure all of it, the most sensitive to other programs first."""
    yield from collocation_svd.figures(setting)
    yield from collocation_training.figures(setting)
    yield from collocation_stores.figures(setting)


if __name__ == "__main__":
    alone(figures, "collocation", __doc__)
