"""Pictures whose optical flow is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 96, 128
EDGE = 10  # pixels at the border, into which things move that were not to be seen
Picture = NDArray[np.uint8]
Field = NDArray[np.float32]


def grid(height: int = HEIGHT, width: int = WIDTH) -> tuple[Field, Field]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x - width / 2, y - height / 2


def texture(x: Field, y: Field) -> Picture:
    """A fixed pattern at any place: waves of 7 to 60 pixels in many directions."""
    random = np.random.default_rng(3)
    value = np.full(x.shape, 128.0)
    for length in np.geomspace(7, 60, 24):
        angle, phase = random.uniform(0, 2 * np.pi, 2)
        along = x * np.cos(angle) + y * np.sin(angle)
        value += 14 * np.sin(2 * np.pi * along / length + phase)
    return value.clip(0, 255).round().astype(np.uint8)


def moved(matrix: list[list[float]], shift: tuple[float, float]) -> tuple[Picture, Field]:
    """Two pictures [2, H, W], of which what is at p in one is at ``matrix p + shift`` in the
    other, and that flow [H, W, 2]."""
    x, y = grid()
    here = np.stack((x, y), axis=-1)
    there = here @ np.transpose(matrix) + shift
    back = (here - shift) @ np.transpose(np.linalg.inv(matrix))
    pictures = np.stack((texture(x, y), texture(back[..., 0], back[..., 1])))
    return pictures, (there - here).astype(np.float32)


def rotation(degrees: float) -> list[list[float]]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [[c, -s], [s, c]]


ONE = [[1.0, 0.0], [0.0, 1.0]]
MOTIONS = {
    "right": (ONE, (1.0, 0.0)),
    "up": (ONE, (0.0, -2.0)),
    "fraction": (ONE, (0.5, -0.3)),
    "oblique": (ONE, (4.0, 2.5)),
    "zoom": ([[1.03, 0.0], [0.0, 1.03]], (0.0, 0.0)),
    "rotation": (rotation(2.0), (0.0, 0.0)),
}


def distance(a: Field, b: Field) -> Field:
    return np.linalg.norm(a - b, axis=-1)


def inside(field: Field) -> Field:
    return field[..., EDGE:-EDGE, EDGE:-EDGE]
