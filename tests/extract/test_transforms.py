"""Resize and crop against the transforms that published features were made with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms as tv

from avfeat.extract import transforms
from avfeat.extract.backbones.spec import Geometry

SIZES = {
    "llp": (240, 320),
    "odd-wide": (240, 426),
    "crop-at-half": (256, 455),  # (455 - 224) / 2 = 115.5: rounds to 116, floors to 115
    "1080p": (1080, 1920),
    "portrait": (640, 360),
    "tiny": (96, 128),
    "sliver": (37, 500),
    "exact": (256, 256),
}
IMAGE = Geometry(256, 224)
SQUASH = Geometry((112, 112))


def frame(height: int, width: int) -> NDArray[np.uint8]:
    """A picture with shading, hard edges and grain, as video has."""
    rng = np.random.default_rng(height * 10_000 + width)
    y, x = np.mgrid[0:height, 0:width]
    waves = 90 * np.sin(x / 17.0 + y / 29.0)[..., None] * np.array([1.0, 0.6, -0.8])
    edges = 70.0 * ((x // 9 + y // 13) % 2)[..., None]
    grain = rng.normal(0, 12, (height, width, 3))
    return np.clip(100 + waves + edges + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("geometry", "oracle"),
    [
        (IMAGE, [tv.Resize(256), tv.CenterCrop(224)]),
        (Geometry(378, 331), [tv.Resize(378), tv.CenterCrop(331)]),
        (SQUASH, [tv.Resize((112, 112))]),
        (Geometry((128, 171), 112), [tv.Resize((128, 171)), tv.CenterCrop(112)]),
    ],
    ids=["256/224", "378/331", "squash", "128x171/112"],
)
def test_pixels_are_those_of_torchvision_on_pil(
    geometry: Geometry, oracle: list[object], size: tuple[int, int]
) -> None:
    rgb = frame(*size)
    expected = np.asarray(tv.Compose(oracle)(Image.fromarray(rgb)))

    picture = transforms.apply(geometry, rgb)

    assert picture.dtype == np.uint8
    assert picture.shape == (*geometry.shape, 3)
    assert picture.flags.c_contiguous and picture.flags.writeable
    np.testing.assert_array_equal(picture, expected)


def test_long_side_is_truncated_and_crop_rounds_half_to_even() -> None:
    assert IMAGE.resized(240, 426) == (256, 454)
    assert IMAGE.resized(240, 320) == (256, 341)
    assert IMAGE.resized(1080, 1920) == (256, 455)
    assert IMAGE.resized(640, 360) == (455, 256)
    ramp = np.broadcast_to((np.arange(455) // 2).astype(np.uint8)[None, :, None], (256, 455, 3))
    assert transforms.apply(IMAGE, ramp)[0, 0, 0] == 116 // 2


def test_opencv_does_not_antialias() -> None:
    """AVE squashed its frames with cv2.resize."""
    rgb = frame(1080, 1920)
    squashed = transforms.apply(Geometry((224, 224), interpolation="cv2-linear"), rgb)
    assert np.array_equal(squashed, cv2.resize(rgb, (224, 224)))
    assert np.abs(squashed.astype(int) - transforms.apply(Geometry((224, 224)), rgb)).max() > 20


@pytest.mark.parametrize(
    "bad", [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), "u1")]
)
def test_anything_but_an_rgb_frame_is_refused(bad: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        transforms.apply(IMAGE, bad)


@pytest.mark.parametrize(
    ("resize", "crop", "message"),
    [(256, None, "needs a crop"), (224, 256, "exceeds"), ((0, 5), None, "positive")],
)
def test_geometries_without_a_fixed_shape_are_refused(
    resize: int | tuple[int, int], crop: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(resize, crop)
