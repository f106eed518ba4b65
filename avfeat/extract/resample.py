"""Pillow's antialiased resize where only a part of the result is kept: the same bytes, less work.

``Image.resize`` can compute a part by its ``box``, but takes the box in single precision: the
weights of an arbitrary part, and with them some pixels, differ from those of the whole. Parts that
begin and end on whole source pixels, or on binary fractions of one, do not have that trouble, so a
part is widened to such edges, and its integer weights are compared with those of the whole before
it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, gcd
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["pil-bilinear", "pil-bicubic", "pil-lanczos"]

FILTERS: dict[Filter, Image.Resampling] = {
    "pil-bilinear": Image.Resampling.BILINEAR,
    "pil-bicubic": Image.Resampling.BICUBIC,
    "pil-lanczos": Image.Resampling.LANCZOS,
}
# In source pixels, where the picture does not shrink. Lanczos is left out: its weights come from
# the C library's sine, which numpy need not agree with to the bit.
_SUPPORT: dict[Filter, float] = {"pil-bilinear": 1.0, "pil-bicubic": 2.0}
# Fractional bits of the weights, PRECISION_BITS of Pillow's Resample.c.
_WEIGHT_BITS = 22


@dataclass(frozen=True, slots=True)
class Side:
    """How pixels ``[start, stop)`` of one side of the resized picture are computed.

    Attributes
    ----------
    start, stop
        The pixels asked for, in the resized picture.
    first, last
        Half-open range of pixels that are computed, with those asked for among them.
    low, high
        Half-open range of source pixels that they depend on.
    box
        Where the computed pixels lie, in source pixels from `low`.
    """

    start: int
    stop: int
    first: int
    last: int
    low: int
    high: int
    box: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a part of a resized picture is computed; `rows_first` is the order of the two passes."""

    columns: Side
    rows: Side
    filter: Filter
    rows_first: bool


@lru_cache(maxsize=256)
def plan(
    size: tuple[int, int],
    resized: tuple[int, int],
    part: tuple[tuple[int, int], tuple[int, int]],
    filter_: Filter,
) -> Plan | None:
    """Plan how to resize a picture and keep a part of it.

    Parameters
    ----------
    size, resized
        (height, width) before and after, in pixels.
    part
        Half-open ranges of the rows and of the columns to keep, in resized pixels.

    Returns
    -------
    Plan or None
        None if the part cannot be had by itself; the whole is to be resized then.
    """
    rows = side(size[0], resized[0], *part[0], filter_)
    columns = side(size[1], resized[1], *part[1], filter_)
    # Pillow rounds to bytes between the passes. It begins with the columns, from version 13 on with
    # the rows where that is much cheaper; rather than to know its rule, look at what it does.
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = Image.fromarray(noise).resize(resized[::-1], FILTERS[filter_])
    expected = np.asarray(whole)[slice(*part[0]), slice(*part[1])]
    for rows_first in (False, True):
        found = Plan(columns, rows, filter_, rows_first)
        source = noise[rows.low : rows.high, columns.low : columns.high]
        if np.array_equal(resize(source, found), expected):
            return found
    return None


def resize(source: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
    """Compute a part of a resized picture.

    Parameters
    ----------
    source
        uint8 ``[h, w, 3]``: the rows and columns ``[low, high)`` that the plan names.

    Returns
    -------
    ndarray
        uint8 ``[rows, columns, 3]``, read-only: what Pillow's resize of the whole has there.
    """
    picture = _image(source)
    for down in (plan.rows_first, not plan.rows_first):
        picture = _pass(picture, plan.rows if down else plan.columns, FILTERS[plan.filter], down)
    return np.asarray(picture)


def _pass(picture: Image.Image, side: Side, method: Image.Resampling, down: bool) -> Image.Image:
    """Resize along one side and cut that side to the pixels asked for."""
    width, height = picture.size
    count, (begin, end) = side.last - side.first, side.box
    cut = (side.start - side.first, side.stop - side.first)
    if down:
        picture = picture.resize((width, count), method, (0, begin, width, end))
        return picture if cut == (0, count) else picture.crop((0, cut[0], width, cut[1]))
    picture = picture.resize((count, height), method, (begin, 0, end, height))
    return picture if cut == (0, count) else picture.crop((cut[0], 0, cut[1], height))


def _image(source: NDArray[np.uint8]) -> Image.Image:
    """Give Pillow a picture whose rows may lie apart, without making them contiguous first."""
    height, width, _ = source.shape
    stride = source.strides[0]
    if source.strides[1:] != (3, 1) or stride < 3 * width:
        source = np.ascontiguousarray(source)
        stride = 3 * width
    length = (height - 1) * stride + 3 * width
    memory = np.lib.stride_tricks.as_strided(source, (length,), (1,), writeable=False)
    return Image.frombuffer("RGB", (width, height), memory, "raw", "RGB", stride, 1)


def side(size: int, resized: int, start: int, stop: int, filter_: Filter) -> Side:
    """Find the fewest pixels whose weights are those of the whole side, `size` to `resized`."""
    whole = Side(start, stop, 0, resized, 0, size, (0, size))
    if filter_ not in _SUPPORT:
        return whole
    lows, weights = _weights(size, (0, size), resized, filter_)
    # Resized pixels at multiples of the unit begin on a whole source pixel; halves of it, on binary
    # fractions.
    unit = resized // gcd(size, resized)
    unit //= unit & -unit
    first, last = start // unit * unit, -(-stop // unit) * unit
    if last > resized or (first, last) == (0, resized):
        return whole
    begin, end = first * size / resized, last * size / resized
    lows, weights = lows[first:last], weights[first:last]
    reach = weights.shape[1] - np.argmax(weights[:, ::-1] != 0, axis=1)
    low = min(floor(begin), int(lows.min()))
    high = max(ceil(end), int((lows + reach).max()))
    box = (begin - low, end - low)
    part_lows, part_weights = _weights(high - low, box, last - first, filter_)
    same = np.array_equal(part_lows + low, lows) and np.array_equal(part_weights, weights)
    return Side(start, stop, first, last, low, high, box) if same else whole


def _weights(
    size: int, box: tuple[float, float], resized: int, filter_: Filter
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute a side's weights as ``precompute_coeffs`` of Pillow's Resample.c does.

    Returns
    -------
    lows, weights
        int64 [resized], the first source pixel of each result; int64 [resized, taps], its weights
        in units of 2^-22, zero where there are fewer.
    """
    begin, end = np.float32(box[0]), np.float32(box[1])
    scale = float(end - begin) / resized
    stretch = max(scale, 1.0)
    support = _SUPPORT[filter_] * stretch
    centers = float(begin) + (np.arange(resized) + 0.5) * scale
    lows = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    highs = np.minimum((centers + support + 0.5).astype(np.int64), size)
    taps = lows[:, None] + np.arange(ceil(support) * 2 + 1)
    weights = _kernel((taps - centers[:, None] + 0.5) * (1.0 / stretch), filter_)
    weights[taps >= highs[:, None]] = 0.0
    # One after the other, as there: a pairwise sum would round otherwise.
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    return lows, np.trunc(weights * (1 << _WEIGHT_BITS) + np.copysign(0.5, weights)).astype(
        np.int64
    )


def _kernel(x: NDArray[np.float64], filter_: Filter) -> NDArray[np.float64]:
    x = np.abs(x)
    if filter_ == "pil-bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
