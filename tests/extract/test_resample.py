"""Parts of resized pictures, bit by bit against Pillow's resize of the whole."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from avfeat.extract import resample, transforms
from avfeat.extract.backbones import Geometry

SIZES = [
    *((240, 320), (360, 480), (360, 640), (240, 426), (480, 854), (720, 1280), (1080, 1920)),
    *((640, 360), (1280, 720), (288, 352), (256, 256), (37, 500), (500, 37), (100, 1000)),
]


def size_of(rnd: random.Random) -> tuple[int, int]:
    return rnd.choice([rnd.choice(SIZES), (rnd.randint(5, 500), rnd.randint(5, 500))])


def geometry_of(rnd: random.Random, filter_: resample.Filter) -> Geometry:
    if rnd.random() < 0.3:
        resize: int | tuple[int, int] = (rnd.randint(5, 300), rnd.randint(5, 300))
        crop = rnd.choice([None, rnd.randint(1, min(resize))])
    else:
        resize = rnd.choice([256, 224, 299, 342, 378, 128, 112, rnd.randint(8, 400)])
        crop = rnd.choice([rnd.randint(1, resize), resize * 7 // 8, resize])
    return Geometry(resize, crop, filter_)


@pytest.mark.parametrize("filter_", sorted(resample.FILTERS))
def test_crops_are_those_of_the_whole_picture(filter_: resample.Filter) -> None:
    rnd, rng = random.Random(filter_), np.random.default_rng(1)
    for _ in range(80):
        size, geometry = size_of(rnd), geometry_of(rnd, filter_)
        frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        height, width = geometry.resized(*size)
        whole = Image.fromarray(frame).resize((width, height), resample.FILTERS[filter_])
        expected = transforms.crop(geometry, np.asarray(whole))

        assert np.array_equal(transforms.apply(geometry, frame), expected), (size, geometry)
        region = transforms.needed(geometry, *size)
        part = frame[region.top : region.bottom, region.left : region.right]
        assert np.array_equal(transforms.cropped(geometry, part, region, size), expected)


@pytest.mark.parametrize("filter_", ["pil-bilinear", "pil-bicubic"])
def test_weights_are_those_of_pillow(filter_: resample.Filter) -> None:
    """A lone white pixel shows its weights, rounded to a byte."""
    for size, resized in ((320, 341), (1920, 455), (100, 7), (50, 50), (9, 200)):
        lows, weights = resample._weights(size, (0, size), resized, filter_)
        for at in range(0, size, 13):
            line = np.zeros((1, size, 3), dtype=np.uint8)
            line[0, at] = 255
            shown = Image.fromarray(line).resize((resized, 1), resample.FILTERS[filter_])
            offset = at - lows
            inside = (offset >= 0) & (offset < weights.shape[1])
            weight = np.where(inside, weights[range(resized), offset * inside], 0)
            expected = ((weight * 255 + (1 << 21)) >> 22).clip(0, 255)
            assert np.array_equal(np.asarray(shown)[0, :, 0], expected)


def test_widescreen_needs_the_middle_only() -> None:
    """16:9 to 455 pixels: every 91st begins on a whole source pixel."""
    side = resample.side(1920, 455, 116, 340, "pil-bilinear")
    assert (side.first, side.last) == (91, 364)
    assert (side.low, side.high) == (382, 1538)
    rows = resample.side(1080, 256, 16, 240, "pil-bilinear")
    assert (rows.first, rows.last) == (16, 240)
    region = transforms.needed(Geometry(256, 224), 1080, 1920)
    assert (region.left, region.right) == (382, 1538)


def test_a_plan_that_pillow_does_not_follow_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    resample.plan.cache_clear()
    monkeypatch.setattr(resample, "resize", lambda source, plan: source[:1])
    assert resample.plan((40, 60), (20, 30), ((0, 20), (5, 25)), "pil-bilinear") is None
    resample.plan.cache_clear()
    frame = np.zeros((40, 60, 3), dtype=np.uint8)
    assert transforms.apply(Geometry(20, 20), frame).shape == (20, 20, 3)
    resample.plan.cache_clear()
