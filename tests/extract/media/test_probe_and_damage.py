"""Headers, windows, and files that are not what they should be."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_cases import MakeClip

from avfeat.errors import MediaError
from avfeat.extract.media import (
    SAMPLING_RULES,
    ClipReader,
    DecodeReport,
    MediaInfo,
    Window,
    locate_window,
    probe,
)
from avfeat.testing import AudioTrack, read_number

WHOLE = Window(0, 4, whole=True)


def failure(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        probe(path)
    message = str(caught.value)
    assert path.name in message
    assert str(path.parent) not in message
    with pytest.raises(MediaError):
        ClipReader(path)
    return caught.value


def read(path: Path, rule: str = "on-screen") -> tuple[list[int | None], DecodeReport]:
    """Numbers read (None where damage made them unreadable) and the report."""
    found: list[int | None] = []
    with ClipReader(path) as reader:
        for frame in reader.frames(rule, window=WHOLE, count=32):
            try:
                found.append(read_number(frame.rgb))
            except ValueError:
                found.append(None)
        if reader.info.audio is not None:
            blocks = list(reader.audio([16000], window=WHOLE))
            assert sum(len(block[16000]) for block in blocks) == 64000
            assert all(np.isfinite(block[16000]).all() for block in blocks)
        return found, reader.report


def test_probe_of_a_clip(clip: MakeClip) -> None:
    track = AudioTrack(gains=(1, 1), rate=48000)
    info = probe(clip("probe.mp4", audio=[track, track], fps=25, start=0.4))
    assert "mp4" in info.format and info.size > 1000
    assert info.duration == pytest.approx(4.0, abs=0.05)
    assert (info.video_streams, info.audio_streams) == (1, 2)
    assert info.video is not None and info.audio is not None
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 160, 120)
    assert (info.video.average_rate, info.video.rotation) == (25.0, 0)
    assert info.video.duration == pytest.approx(4.0)
    assert (info.audio.codec, info.audio.rate, info.audio.channels) == ("aac", 48000, 2)


def test_probe_of_real_clips(shared: Path) -> None:
    info = probe(shared / "media" / "BjCEufrlXm4.mp4")
    assert info.duration == pytest.approx(10.027855)
    assert info.video is not None and info.video.average_rate == pytest.approx(359 / 12)


def info_of(duration: float | None) -> MediaInfo:
    return MediaInfo("mp4", 1, duration, None, None, 0, 0)


@pytest.mark.parametrize(
    ("duration", "start", "end", "expected"),
    [
        (10.03, 20.0, 30.0, Window(0, 10, whole=True)),
        (11.0, 20.0, 30.0, Window(0, 10, whole=True)),
        (5.0, 20.0, 30.0, Window(0, 10, whole=True)),
        (60.0, 20.0, 30.0, Window(20, 30)),
        (25.0, 20.0, 30.0, Window(20, 30)),
        (None, 20.0, 30.0, Window(20, 30)),
    ],
)
def test_trimmed_or_not(duration: float | None, start: float, end: float, expected: Window) -> None:
    assert locate_window(info_of(duration), start, end) == expected


def test_a_window_after_the_end_is_outside() -> None:
    with pytest.raises(MediaError, match=r"20 s, but the media is 15\.000 s") as caught:
        locate_window(info_of(15.0), 20, 30)
    assert caught.value.kind == "outside_media"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty_file"),
        (b"<html>not found</html>" * 50, "not_media"),
        (b"hello world\n" * 500, "not_media"),
        (random.Random(1).randbytes(100_000), "not_media"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "not_media"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n", "not_media"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not_media"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(12), "truncated"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "txt", "m3u8"])
def test_what_is_no_media(tmp_path: Path, content: bytes, kind: str, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content)
    assert failure(path).kind == kind


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert failure(tmp_path / "absent.mp4").kind == "io"
    (tmp_path / "folder.mp4").mkdir()
    assert failure(tmp_path / "folder.mp4").kind == "io"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_off_before_the_index(clip: MakeClip, tmp_path: Path, share: float) -> None:
    whole = clip("intact.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert failure(path).kind == "truncated"


@pytest.mark.parametrize("rule", SAMPLING_RULES)
def test_cut_off_with_the_index_in_front(clip: MakeClip, tmp_path: Path, rule: str) -> None:
    source = clip("fast.mp4", container_options={"movflags": "+faststart"})
    whole = source.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    found, report = read(path, rule)
    assert found[0] in {0, 1}
    assert report.video_short > 1
    assert report.audio_short > 1
    intact, clean = read(source, rule)
    assert clean == DecodeReport()
    if rule not in ("avvp", "ave"):  # which count; what can be read is what it would have been
        assert found[:8] == intact[:8]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_cut_off_streams(clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    codec: dict[str, Any] = {"codec": "mpeg4"} if suffix == "avi" else {}
    whole = clip(f"stream.{suffix}", **codec).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    found, report = read(path)
    assert len(found) == 32
    assert report.video_short > 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_flipped_bits_are_survived_and_told(
    clip: MakeClip, tmp_path: Path, suffix: str, seed: int
) -> None:
    damaged = bytearray(clip(f"intact.{suffix}").read_bytes())
    rnd = random.Random(seed)
    for _ in range(60):  # the sample data of an MP4 comes first, its index last
        damaged[rnd.randrange(3000, len(damaged) * 8 // 10)] ^= 1 << rnd.randrange(8)
    path = tmp_path / f"flipped.{suffix}"
    path.write_bytes(damaged)
    found, report = read(path)
    again, same = read(path)
    assert (found, report) == (again, same)
    assert len(found) == 32
    assert report.corrupt_frames > 0


def test_pictures_that_are_nothing_but_noise(clip: MakeClip, tmp_path: Path) -> None:
    content = bytearray(clip("noise.mp4", audio=None).read_bytes())
    data = content.index(b"mdat") + 4
    index = content.index(b"moov") - 4
    content[data:index] = bytes(index - data)
    path = tmp_path / "noise.mp4"
    path.write_bytes(content)
    with ClipReader(path) as reader, pytest.raises(MediaError, match=r"noise\.mp4") as caught:
        list(reader.frames("center", window=WHOLE, count=32))
    assert caught.value.kind == "undecodable"


def test_damage_is_silent_on_the_terminal(
    clip: MakeClip, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = bytearray(clip("intact.mp4").read_bytes())
    damaged[5000:9000] = bytes(4000)
    path = tmp_path / "loud.mp4"
    path.write_bytes(damaged)
    read(path)
    assert capfd.readouterr() == ("", "")


def test_cover_art_is_no_video(clip: MakeClip, ffmpeg51: str, tmp_path: Path) -> None:
    song = clip("song.mp3", codec=None, audio=AudioTrack(tones=[(0, 4, 500, 0.5)], codec="mp3"))
    path = tmp_path / "covered.mp3"
    picture = ["-f", "lavfi", "-i", "color=red:size=64x64:duration=0.04"]
    command = [ffmpeg51, "-nostdin", "-v", "error", "-i", str(song), *picture]
    command += ["-map", "0", "-map", "1", "-c:a", "copy", "-c:v", "mjpeg", "-frames:v", "1"]
    subprocess.run([*command, "-disposition:v", "attached_pic", str(path)], check=True)
    with ClipReader(path) as reader:
        assert reader.info.video is None
        assert reader.info.video_streams == 0
        assert reader.info.audio is not None
        (block,) = reader.audio([16000], window=WHOLE)
    assert np.abs(block[16000]).max() > 0.4
