"""The avvp rule against the command it stands for: ffmpeg 5.1 with ``-r 8``."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_cases import SIZE, TONE, MakeClip, uneven
from numpy.typing import NDArray

from avfeat.extract.media import ClipReader, Window
from avfeat.extract.media.container import Media
from avfeat.extract.media.sampling import emitted_frames, thinned
from avfeat.extract.media.scan import scan_window
from avfeat.testing import AudioTrack, read_number

WHOLE = Window(0, 10, whole=True)
RATES = (5, 6, 8, 10, 12, 15, 16, Fraction(24000, 1001), 25, Fraction(359, 12))
RATES += (Fraction(30000, 1001), 30, 48, 50, 60, 7.5, 12.5)
UNEVEN = [
    (seed, kind, base)
    for seed, (kind, base) in enumerate(
        (kind, base)
        for kind in ("jitter", "gaps", "slow", "bursts", "late")
        for base in (8, 15, 25, 30, 60)
    )
]


def by_ffmpeg(ffmpeg: str, path: Path, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    command = [ffmpeg, "-nostdin", "-v", "error", "-i", str(path), "-r", "8"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, size[1], size[0], 3)


def by_rule(path: Path) -> list[int]:
    with Media(path) as media:
        timeline = scan_window(media, WHOLE, to_end=True).timeline
    return emitted_frames(timeline, window=WHOLE).tolist()


def assert_same(ffmpeg: str, path: Path) -> None:
    written = [read_number(rgb) for rgb in by_ffmpeg(ffmpeg, path)]
    assert by_rule(path) == written


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "silent"])
@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.3f}")
def test_constant_rates(ffmpeg51: str, clip: MakeClip, fps: Fraction, sound: bool) -> None:
    name = f"cfr-{float(fps):.3f}-{sound}.mp4"
    path = clip(name, fps=Fraction(fps), audio=TONE if sound else None)
    assert_same(ffmpeg51, path)


@pytest.mark.parametrize(("seed", "kind", "base"), UNEVEN)
def test_variable_rates(ffmpeg51: str, clip: MakeClip, seed: int, kind: str, base: int) -> None:
    path = clip(
        f"vfr-{kind}-{base}.mp4",
        timestamps=uneven(seed, kind, base),
        fps=base,
        duration=5.0,
        audio=TONE if seed % 2 else None,
        b_frames=seed % 4,
        start=1.4 if seed % 3 == 0 else 0.0,
    )
    assert_same(ffmpeg51, path)


@pytest.mark.parametrize("start", [0.0, 1.5])
@pytest.mark.parametrize("fps", [10, 25, Fraction(30000, 1001)], ids=str)
@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [
        ("mkv", "h264", TONE),
        ("mkv", "h264", None),
        ("mkv", "mpeg4", TONE),
        ("ts", "h264", TONE),
        ("ts", "h264", None),
        ("flv", "h264", TONE),
        ("avi", "mpeg4", AudioTrack(codec="mp3")),
        ("webm", "vp9", None),
    ],
)
def test_other_containers(
    ffmpeg51: str,
    clip: MakeClip,
    suffix: str,
    codec: str,
    audio: AudioTrack | None,
    fps: Fraction,
    start: float,
) -> None:
    if codec == "mpeg4" and start:
        start = 2.0  # whole frames at every rate but the last, which its header cannot state
        if Fraction(fps).denominator > 1:
            pytest.skip("MPEG-4 cannot state this time base")
    name = f"c-{codec}-{audio is not None}-{float(fps):.2f}-{start}.{suffix}"
    path = clip(name, codec=codec, audio=audio, fps=Fraction(fps), start=start, duration=3.0)
    assert_same(ffmpeg51, path)


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("BjCEufrlXm4", (320, 240), 82),
        ("v_GGSY1Qvo990", (320, 240), 146),
        ("v_ZNVhz7ctTq0", (480, 360), 114),
    ],
)
def test_real_clips_pixel_by_pixel(
    ffmpeg51: str, shared: Path, name: str, size: tuple[int, int], count: int
) -> None:
    path = shared / "media" / f"{name}.mp4"
    written = by_ffmpeg(ffmpeg51, path, size)
    assert len(written) == len(by_rule(path)) == count
    with ClipReader(path) as reader:
        frames = list(reader.frames("avvp", window=WHOLE, count=80))
    for frame, number in zip(frames, thinned(count, 80), strict=True):
        assert np.array_equal(frame.rgb, written[number])
