"""Frames to pictures: Pillow's bilinear resize and torchvision's centre crop, once per geometry."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avfeat.extract.backbones.spec import Geometry


def apply(geometry: Geometry, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize and crop one frame.

    Pixel-exact with torchvision's ``Resize`` and ``CenterCrop`` on PIL images, which is how
    pretrainedmodels and the AVVP scripts prepare theirs.

    Parameters
    ----------
    geometry
        The resize and crop.
    rgb
        uint8 ``[H, W, 3]``.

    Returns
    -------
    ndarray
        uint8 ``[*geometry.shape, 3]``, contiguous and writable.

    Raises
    ------
    ValueError
        The frame has another type or shape.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a frame is uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    height, width = geometry.resized(rgb.shape[0], rgb.shape[1])
    image = Image.fromarray(rgb)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if geometry.crop is not None:
        # Python's round goes half to even, and so does torchvision: offset 116 for a width of 455.
        top, left = round((height - geometry.crop) / 2), round((width - geometry.crop) / 2)
        image = image.crop((left, top, left + geometry.crop, top + geometry.crop))
    return np.array(image)


def crops(
    rgb: NDArray[np.uint8], geometries: Iterable[Geometry]
) -> dict[Geometry, NDArray[np.uint8]]:
    """Apply each distinct geometry to a frame once, for all backbones that share it."""
    return {geometry: apply(geometry, rgb) for geometry in dict.fromkeys(geometries)}
