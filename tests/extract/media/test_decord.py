"""decord, where it is installed, gives the same pixels: an independent decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avfeat.extract.media import ClipReader, Window

decord = pytest.importorskip("decord")


@pytest.mark.parametrize("name", ["BjCEufrlXm4", "v_GGSY1Qvo990", "v_ZNVhz7ctTq0"])
def test_frames_on_screen_equal_those_of_decord(shared: Path, name: str) -> None:
    path = shared / "media" / f"{name}.mp4"
    reader = decord.VideoReader(str(path))
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    with ClipReader(path) as clip:
        frames = list(clip.frames("on-screen", window=Window(0, 8), count=64))
    for frame in frames[::7]:
        shown = int(np.searchsorted(starts, frame.index / 8 + 1e-6, side="right")) - 1
        assert frame.time == pytest.approx(starts[shown], abs=1e-3)
        np.testing.assert_array_equal(frame.rgb, reader[shown].asnumpy())
