"""Frames by torchcodec are those by PyAV; its CPU decoder stands in for NVDEC."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Cli, Corpus

from avfeat.errors import MediaError
from avfeat.extract.media import ClipReader, Sampling
from avfeat.extract.media.types import Frame, Window
from avfeat.testing.clips import make_clip

SAMPLINGS = [Sampling("on-screen", 8, 24), Sampling("center", 25, 75), Sampling("avvp", 8, 24)]
UNEVEN = sorted(np.random.default_rng(1).uniform(0, 4, 90).round(3).tolist())


def read(path: Path, hardware: str | None, window: Window) -> tuple[list[tuple[int, Frame]], int]:
    with ClipReader(path, hardware=hardware) as reader:
        return list(reader.sampled(SAMPLINGS, window=window)), reader.report.corrupt_frames


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".webm"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rotation": 90},
        {"start": 3.7},
        {"timestamps": UNEVEN},
        {"codec": "hevc"},
        {"fps": 30000 / 1001, "b_frames": 0},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_frames_are_those_of_pyav(tmp_path: Path, suffix: str, options: Mapping[str, Any]) -> None:
    if suffix == ".webm":
        options = {**options, "codec": "vp9"}
    path = make_clip(tmp_path / f"clip{suffix}", duration=4.0, size=(128, 96), **options)
    window = Window(0.5, 3.5)
    expected, _ = read(path, None, window)
    found, corrupt = read(path, "cpu", window)
    assert corrupt == 0
    assert len(found) == len(expected) == sum(sampling.count for sampling in SAMPLINGS)
    for (which, frame), (there, other) in zip(expected, found, strict=True):
        assert (which, frame.index, frame.time) == (there, other.index, other.time)
        assert np.array_equal(frame.rgb, other.rgb)


@pytest.mark.parametrize("name", ["BjCEufrlXm4", "v_GGSY1Qvo990", "v_ZNVhz7ctTq0"])
def test_frames_of_real_clips(shared: Path, name: str) -> None:
    path = shared / "media" / f"{name}.mp4"
    expected, _ = read(path, None, Window(0, 10))
    found, corrupt = read(path, "cpu", Window(0, 10))
    assert corrupt == 0
    assert all(np.array_equal(a.rgb, b.rgb) for (_, a), (_, b) in zip(expected, found, strict=True))


def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", duration=2.0, size=(128, 96))
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"clip\.mp4") as caught:
        read(path, "cpu", Window(0, 2))
    assert caught.value.kind == "undecodable"


def test_it_is_refused_without_a_gpu(avfeat: Cli, corpus: Corpus) -> None:
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, "--nvdec", code=2)
    assert "--nvdec decodes on a CUDA device, not on cpu" in result.stderr
