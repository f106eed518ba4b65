"""TV-L1 in torch against OpenCV's, whose steps it takes: on known motion and on real clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from flowkit import MOTIONS, Field, Picture, distance, inside, moved
from parity_record import record_flow
from PIL import Image

from avfeat.extract.flow import flow
from avfeat.extract.media import ClipReader, Window

FAST = 10  # pixels of motion per frame, beyond which the pyramid no longer finds its way
QUICK = ("v_ZNVhz7ctTq0", 25.0)
SIDE = 256  # of the pictures that I3D's flow is computed on


@pytest.mark.parametrize("motion", MOTIONS)
def test_torch_finds_what_opencv_finds(motion: str) -> None:
    pictures, truth = moved(*MOTIONS[motion])
    by_torch, by_opencv = (flow(pictures, f"tvl1-{who}")[0] for who in ("torch", "opencv"))
    difference = distance(by_torch, by_opencv)
    errors = [inside(distance(found, truth)).mean() for found in (by_torch, by_opencv)]
    record_flow(
        f"texture, {motion}",
        difference,
        distance(by_opencv, 0 * by_opencv),
        own=own(pictures, by_opencv),
        errors=errors,
    )
    assert difference.mean() < 0.03
    assert inside(difference).mean() < 0.005
    assert abs(errors[0] - errors[1]) < 0.006


@pytest.mark.parametrize(
    ("clip", "fps"),
    [
        pytest.param(clip, fps, marks=[pytest.mark.slow] if (clip, fps) != QUICK else [])
        for clip in ("v_GGSY1Qvo990", "v_ZNVhz7ctTq0", "BjCEufrlXm4")
        for fps in (25.0, 8.0)
    ],
)
def test_torch_finds_what_opencv_finds_in_real_clips(clip: str, fps: float, shared: Path) -> None:
    with ClipReader(shared / "media" / f"{clip}.mp4") as reader:
        window = Window(4.0, 4.0 + 2 / fps)
        taken = [f.rgb for f in reader.frames("on-screen", window=window, fps=fps, count=2)]
    scale = SIDE / min(taken[0].shape[:2])
    height, width = (int(side * scale) for side in taken[0].shape[:2])
    grey = [Image.fromarray(rgb).resize((width, height)).convert("L") for rgb in taken]
    pictures = np.stack([np.asarray(one) for one in grey])
    by_torch, by_opencv = (flow(pictures, f"tvl1-{who}")[0] for who in ("torch", "opencv"))
    difference, length = distance(by_torch, by_opencv), distance(by_opencv, 0 * by_opencv)
    slow = length < FAST
    moves = own(pictures, by_opencv, slow)
    record_flow(
        f"{clip}, {height} x {width}, {fps:g} fps",
        difference[slow],
        length[slow],
        own=moves,
        left_out=1 - float(slow.mean()),
    )
    assert length.mean() > 0.1
    assert slow.mean() > 0.1
    # No further than OpenCV is from itself.
    assert difference[slow].mean() < 2 * moves + 0.005


def own(pictures: Picture, by_opencv: Field, where: Field | None = None) -> float:
    """How far noise of 1e-4 grey levels moves OpenCV's own flow, on the mean."""
    rng = np.random.default_rng(5)
    noisy = (pictures + rng.normal(0, 1e-4, pictures.shape)).astype(np.float32) / 255
    again = cv2.optflow.DualTVL1OpticalFlow_create().calc(noisy[0], noisy[1], None)
    found = distance(again, by_opencv)
    return float((found if where is None else found[where]).mean())
