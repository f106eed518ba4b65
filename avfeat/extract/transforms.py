"""Frames to pictures: a resize and torchvision's centre crop, once per geometry and frame."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avfeat.extract import resample
from avfeat.extract.backbones.spec import Geometry
from avfeat.extract.media.types import Region

T = TypeVar("T", bound=np.generic)


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
    _check(rgb)
    height, width = rgb.shape[:2]
    return np.array(cropped(geometry, rgb, Region(0, height, 0, width), (height, width)))


def needed(geometry: Geometry, height: int, width: int) -> Region:
    """Return the part of a frame of that size that its crop depends on."""
    plan = _plan(geometry, height, width)
    if plan is None:
        return Region(0, height, 0, width)
    return Region(plan.rows.low, plan.rows.high, plan.columns.low, plan.columns.high)


def cropped(
    geometry: Geometry, rgb: NDArray[np.uint8], region: Region, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize and crop a frame of which only a part is at hand; else as `apply`.

    Parameters
    ----------
    rgb
        uint8 ``[h, w, 3]``: the part.
    region
        Which part; it holds `needed`.
    size
        (height, width) of the whole frame, in pixels.

    Returns
    -------
    ndarray
        uint8 ``[*geometry.shape, 3]``; read-only or a view of `rgb`.
    """
    plan = _plan(geometry, *size)
    if plan is None:
        return crop(geometry, resize(geometry, rgb))
    rows, columns = plan.rows, plan.columns
    source = rgb[rows.low - region.top : rows.high - region.top]
    return resample.resize(source[:, columns.low - region.left : columns.high - region.left], plan)


def resize(geometry: Geometry, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize one frame, uint8 ``[H, W, 3]``, without the crop; see `apply`."""
    _check(rgb)
    height, width = geometry.resized(rgb.shape[0], rgb.shape[1])
    if (height, width) == rgb.shape[:2]:
        return rgb
    if geometry.interpolation == "cv2-linear":
        return np.asarray(
            cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
        )
    if geometry.interpolation == "pil-nearest":
        filter_ = Image.Resampling.NEAREST
    else:
        filter_ = resample.FILTERS[geometry.interpolation]
    return np.asarray(Image.fromarray(rgb).resize((width, height), filter_))


def crop(geometry: Geometry, picture: NDArray[T]) -> NDArray[T]:
    """Cut the centre out of resized pictures ``[..., H, W, C]``; a view."""
    height, width = picture.shape[-3:-1]
    (top, bottom), (left, right) = _kept(geometry, height, width)
    return picture[..., top:bottom, left:right, :]


def _kept(geometry: Geometry, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Ranges of rows and columns that the crop keeps of a resized picture."""
    if geometry.crop is None:
        return (0, height), (0, width)
    # Python's round goes half to even, and so does torchvision: offset 116 for a width of 455.
    top, left = round((height - geometry.crop) / 2), round((width - geometry.crop) / 2)
    return (top, top + geometry.crop), (left, left + geometry.crop)


def _plan(geometry: Geometry, height: int, width: int) -> resample.Plan | None:
    if geometry.interpolation in ("cv2-linear", "pil-nearest"):
        return None
    resized = geometry.resized(height, width)
    if resized == (height, width):
        return None
    return resample.plan(
        (height, width), resized, _kept(geometry, *resized), geometry.interpolation
    )


def _check(rgb: NDArray[np.uint8]) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a frame is uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
