"""Collocation: scores from stored features, a training's epoch, the searches.

``python -m benchmarks.collocation`` runs it alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from benchmarks import (
    collocation_evidence,
    collocation_stores,
    collocation_svd,
    collocation_training,
)
from benchmarks.figure import Figure
from benchmarks.setting import Setting, alone


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure all of it."""
    stores = setting.fresh("stores")
    collocation_stores.write(stores, collocation_stores.llp_sized(setting))
    yield from collocation_svd.figures(setting, stores)
    yield collocation_training.epoch(setting, stores)
    yield from collocation_stores.figures(setting, stores)
    shutil.rmtree(stores)
    found, searches = collocation_evidence.run(setting)
    yield from found
    yield collocation_training.cheaper(setting, searches)


if __name__ == "__main__":
    alone(figures, "collocation", __doc__)
