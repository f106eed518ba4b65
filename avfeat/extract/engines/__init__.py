"""Engines: what runs a network, in which precision. Plain torch anywhere, OpenVINO on CPUs.

An engine is part of the recipe: rows of two engines agree closely (docs/parity.md), not to the bit.
"""

from avfeat.extract.engines.choice import ENGINES, Choice, choose, resolve
from avfeat.extract.engines.precision import (
    PRECISIONS,
    Precision,
    check_precision,
    computing,
)

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Choice",
    "Precision",
    "check_precision",
    "choose",
    "computing",
    "resolve",
]
