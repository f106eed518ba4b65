"""The synthetic clips themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avfeat.testing import AudioTrack, make_clip, read_number, write_number

SMALL: dict[str, Any] = {"size": (160, 120), "duration": 1.0}


@pytest.mark.parametrize("number", [0, 1, 2, 255, 256, 12345, 32767])
@pytest.mark.parametrize("size", [(128, 32), (160, 120), (320, 240), (1280, 720)])
def test_numbers_come_back(number: int, size: tuple[int, int]) -> None:
    canvas = np.full((size[1], size[0], 3), 128, dtype=np.uint8)
    write_number(canvas, number)
    assert read_number(canvas) == number


def test_numbers_that_are_not_there_are_refused() -> None:
    canvas = np.zeros((120, 160, 3), dtype=np.uint8)
    for number in (-1, 32768):
        with pytest.raises(ValueError, match="not in"):
            write_number(canvas, number)
    with pytest.raises(ValueError, match="too small"):
        write_number(canvas[:, :100], 1)
    write_number(canvas, 5)
    canvas[-10:, :10] = 235  # one block flipped
    with pytest.raises(ValueError, match="parity"):
        read_number(canvas)
    with pytest.raises(ValueError, match="grey"):
        read_number(np.full_like(canvas, 128))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "h264"), ("mp4", "hevc"), ("webm", "vp9"), ("mkv", "mpeg4"), ("ts", "mpeg2video")],
)
def test_every_frame_carries_its_number(tmp_path: Path, suffix: str, codec: str) -> None:
    path = make_clip(tmp_path / f"clip.{suffix}", codec=codec, fps=25, **SMALL)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [read_number(frame) for frame in frames] == list(range(25))


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    track = AudioTrack(tones=[(0.2, 0.5, 440, 0.5)], gains=(1, 0.5))
    for suffix in ("mp4", "mkv"):
        a, b = (
            make_clip(tmp_path / f"{name}.{suffix}", audio=track, **SMALL).read_bytes()
            for name in "ab"
        )
        assert a == b


def test_timestamps_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.0333, 0.5, 0.51, 0.9]
    path = make_clip(tmp_path / "vfr.mp4", timestamps=times, fps=24, **SMALL)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert [frame.time for frame in container.decode(stream)] == pytest.approx(times, abs=1e-4)
        assert stream.codec_context.framerate == 24


def test_the_painter_gets_number_and_time(tmp_path: Path) -> None:
    calls: list[tuple[int, float]] = []

    def paint(index: int, time: float, canvas: Any) -> None:
        assert canvas.shape == (120, 160, 3) and not canvas.any()
        canvas[:] = (10 * index, 128, 0)
        calls.append((index, time))

    path = make_clip(tmp_path / "p.mp4", fps=Fraction(10), paint=paint, **SMALL)
    assert calls == [(k, k / 10) for k in range(10)]
    with av.open(str(path)) as container:
        reds = [f.to_ndarray(format="rgb24")[:90, :, 0].mean() for f in container.decode(video=0)]
    assert reds == pytest.approx([10 * k for k in range(10)], abs=4)


def test_tracks_are_sines() -> None:
    track = AudioTrack(tones=[(0.5, 1.0, 100, 0.5)], gains=(1, 0.5), rate=8000, start=0.25)
    samples = track.samples(0, 8000)
    assert samples.shape == (2, 8000)
    assert np.abs(samples[0, :2000]).max() == 0  # the stream starts at 0.25 s, the tone at 0.5 s
    assert np.abs(samples[0, 6000:]).max() == 0
    assert samples[0].max() == pytest.approx(0.5, abs=1e-3)
    assert np.array_equal(samples[1], samples[0] * np.float32(0.5))
