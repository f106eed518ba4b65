"""Frames to pictures: a resize and torchvision's centre crop, once per geometry and frame."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avfeat.extract.backbones.spec import Geometry

T = TypeVar("T", bound=np.generic)

_PILLOW = {
    "pil-bilinear": Image.Resampling.BILINEAR,
    "pil-bicubic": Image.Resampling.BICUBIC,
    "pil-lanczos": Image.Resampling.LANCZOS,
    "pil-nearest": Image.Resampling.NEAREST,
}


def apply(geometry: Geometry, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize and crop one frame.

    With Pillow's filters pixel-exact with torchvision's ``Resize`` and ``CenterCrop`` on PIL
    images, which is how pretrainedmodels and the AVVP scripts prepare theirs.

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
    return np.array(crop(geometry, resize(geometry, rgb)))


def resize(geometry: Geometry, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize one frame, uint8 ``[H, W, 3]``, without the crop; see `apply`."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a frame is uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    height, width = geometry.resized(rgb.shape[0], rgb.shape[1])
    if (height, width) == rgb.shape[:2]:
        return rgb
    if geometry.interpolation == "cv2-linear":
        return np.asarray(
            cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
        )
    filter_ = _PILLOW[geometry.interpolation]
    return np.asarray(Image.fromarray(rgb).resize((width, height), filter_))


def crop(geometry: Geometry, picture: NDArray[T]) -> NDArray[T]:
    """Cut the centre out of resized pictures ``[..., H, W, C]``; a view."""
    if geometry.crop is None:
        return picture
    height, width = picture.shape[-3:-1]
    # Python's round goes half to even, and so does torchvision: offset 116 for a width of 455.
    top, left = round((height - geometry.crop) / 2), round((width - geometry.crop) / 2)
    return picture[..., top : top + geometry.crop, left : left + geometry.crop, :]
