"""What the parity tests measured, as JSON lines: `make parity` makes the table of docs/parity.md
from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

VARIABLE = "AVFEAT_PARITY_RECORD"


def relative(found: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference over that of what is expected; infinite for NaN."""
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    return error if error == error else float("inf")


def record_network(
    backbone: str, oracle: str, found: Tensor, expected: Tensor, moved: Tensor, *, tolerance: float
) -> tuple[float, float]:
    """Note and return the relative L2 error, and how far 1e-3 of input noise moved the oracle."""
    difference = (found.double() - expected.double()).abs()
    error, sensitivity = relative(found, expected), relative(moved, expected)
    _write(
        {
            "kind": "network",
            "backbone": backbone,
            "oracle": named(oracle),
            "l2": error,
            "max": float(difference.max() / expected.abs().max()),
            "mean": float(difference.mean() / expected.double().abs().mean()),
            "sensitivity": sensitivity,
            "tolerance": tolerance,
        }
    )
    return error, sensitivity


def record_input(backbone: str, oracle: str, difference: Tensor, unit: str) -> None:
    """Note how far the network's input is from that of the original; absolute values."""
    _write(
        {
            "kind": "input",
            "backbone": backbone,
            "oracle": named(oracle),
            "max": float(difference.max()),
            "mean": float(difference.double().mean()),
            "unit": unit,
        }
    )


def record_rounding(
    backbone: str, batch: int, threads: int, *, alone: float, single: float
) -> tuple[float, float]:
    """Note how far rows are from those of a batch of one, and of one thread: relative L2."""
    _write(
        {
            "kind": "rounding",
            "backbone": backbone,
            "batch": batch,
            "threads": threads,
            "alone": alone,
            "single": single,
        }
    )
    return alone, single


def record_flow(
    pictures: str,
    difference: NDArray[np.floating],
    length: NDArray[np.floating],
    *,
    own: float,
    errors: Sequence[float] | None = None,
    left_out: float = 0.0,
) -> None:
    """Note how far the flow by torch is from that by OpenCV, in pixels.

    Parameters
    ----------
    pictures
        What they were.
    difference, length
        End-point difference of the two, and length of OpenCV's flow, at each pixel judged.
    own
        Mean by which noise of 1e-4 grey levels moves OpenCV's flow.
    errors
        Mean distance of torch's and of OpenCV's flow from the true one, where that is known.
    left_out
        Share of the pixels that are not judged.
    """
    _write(
        {
            "kind": "flow",
            "backbone": pictures,
            "oracle": named("opencv-contrib-python-headless"),
            "length": float(length.mean()),
            "mean": float(difference.mean()),
            "max": float(difference.max()),
            "own": own,
            "errors": None if errors is None else [float(error) for error in errors],
            "left_out": left_out,
        }
    )


def record_engine(
    backbone: str,
    *,
    l2: float,
    cosine: float,
    own: float,
    half: Mapping[str, float],
    half_cosine: float | None,
) -> None:
    """Note how far OpenVINO's rows are from torch's, torch's from float64, and bfloat16 from both.

    All are relative L2 but the two cosines, which are the least of any row.
    """
    _write(
        {
            "kind": "engine",
            "backbone": backbone,
            "l2": l2,
            "cosine": cosine,
            "own": own,
            "half": dict(half),
            "half_cosine": half_cosine,
        }
    )


def named(oracle: str) -> str:
    """``package`` or ``package: what`` with the version of the package, if it is one.

    >>> named("numpy formula")
    'numpy formula'
    """
    package, colon, what = oracle.partition(": ")
    try:
        return f"{package} {version(package)}{colon}{what}"
    except PackageNotFoundError:
        return oracle


def _write(record: Mapping[str, object]) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with Path(path).open("a") as file:
            file.write(json.dumps(record) + "\n")
