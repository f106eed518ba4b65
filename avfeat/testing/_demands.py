"""How the check of backbones compares and complains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from avfeat.extract.backbones import BackboneSpec

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Relative L2 difference allowed between rows from batches of different sizes, and, off the CPU,
between rows from different places of a batch."""


def demand(holds: bool, spec: BackboneSpec, wrong: str, advice: str) -> None:
    """Raise AssertionError unless `holds`, with the backbone's name."""
    if not holds:
        raise AssertionError(f"backbone {spec.name!r}: {wrong}. {advice}")


def alike(found: Any, expected: Any, *, exact: bool) -> bool:
    """Whether rows are the same: to the bit, or to `TOLERANCE`."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    return np.array_equal(found, expected) if exact else relative(found, expected) <= TOLERANCE


def relative(found: torch.Tensor | np.ndarray, expected: torch.Tensor | np.ndarray) -> float:
    """Length of the difference by length of the longer; 0 where both are nothing."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    length = max(np.linalg.norm(a), np.linalg.norm(b))
    return float(np.linalg.norm(a - b) / length) if length else 0.0
