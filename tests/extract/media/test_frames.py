"""Frames of clips, against numbers painted into them and against plain full decoding."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_cases import SIZE, TONE, MakeClip, decode_all, uneven

from avfeat.errors import MediaError
from avfeat.extract.media import (
    SAMPLING_RULES,
    ClipReader,
    Frame,
    Sampling,
    Window,
    probe,
    scan,
    video,
)
from avfeat.testing import make_clip, read_number

CODERS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"b_frames": 3},
    "h264-pyramid.mp4": {
        "b_frames": 5,
        "gop": 25,
        "options": {"x264-params": "open-gop=1:b-pyramid=normal:ref=4:b-adapt=0"},
    },
    "h264-pyramid.ts": {
        "b_frames": 5,
        "gop": 25,
        "options": {"x264-params": "open-gop=1:b-pyramid=normal:ref=4:b-adapt=0"},
    },
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2, "audio": None},
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2, "gop": 15},
    "hevc.mp4": {"codec": "hevc", "b_frames": 3},
    "vp9.webm": {"codec": "vp9", "audio": None},
    "raw.264": {"b_frames": 2, "audio": None},
}


def sampled(path: Path, rule: str, window: Window, count: int) -> list[Frame]:
    with ClipReader(path) as reader:
        frames = list(reader.frames(rule, window=window, count=count))
        assert reader.report.corrupt_frames == 0
    assert [frame.index for frame in frames] == list(range(count))
    return frames


def numbers(path: Path, rule: str, window: Window, count: int) -> list[int]:
    return [read_number(frame.rgb) for frame in sampled(path, rule, window, count)]


def shown(times: list[Fraction], instants: list[Fraction]) -> list[int]:
    """The on-screen rule, written down the slow way."""
    return [
        max([k for k, t in enumerate(times) if t <= instant], default=0) for instant in instants
    ]


@pytest.mark.parametrize("rule", SAMPLING_RULES)
@pytest.mark.parametrize("name", CODERS)
def test_picked_frames_equal_those_of_full_decoding(clip: MakeClip, name: str, rule: str) -> None:
    path = clip(name, **CODERS[name])
    every = list(decode_all(path).values())
    if name == "raw.264":  # pts are all None there
        with av.open(str(path)) as container:
            every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(every) == 120
    for window, count in ((Window(0, 4, whole=True), 32), (Window(1.3, 3.1), 14)):
        for frame in sampled(path, rule, window, count):
            assert np.array_equal(frame.rgb, every[read_number(frame.rgb)])


@pytest.mark.parametrize("rule", SAMPLING_RULES)
@pytest.mark.parametrize("name", ["BjCEufrlXm4", "v_GGSY1Qvo990", "v_ZNVhz7ctTq0"])
def test_picked_frames_of_real_clips(shared: Path, name: str, rule: str) -> None:
    path = shared / "media" / f"{name}.mp4"
    every = decode_all(path)
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    for window in (Window(0, 10, whole=True), Window(3.7, 8.2)):
        for frame in sampled(path, rule, window, round(8 * window.length)):
            pts = round((Fraction(frame.time) + Fraction(window.start)) / base)
            assert np.array_equal(frame.rgb, every[pts])


def test_threads_change_nothing(shared: Path) -> None:
    path = shared / "media" / "BjCEufrlXm4.mp4"
    window = Window(0, 10, whole=True)
    one = sampled(path, "center", window, 80)
    with ClipReader(path, threads=3) as reader:
        for a, b in zip(one, reader.frames("center", window=window, count=80), strict=True):
            assert np.array_equal(a.rgb, b.rgb)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("start", [0.0, 1.4])
@pytest.mark.parametrize(("rule", "shift"), [("on-screen", 0), ("center", Fraction(1, 2))])
@pytest.mark.parametrize("kind", ["constant", "jitter", "gaps", "bursts"])
def test_rules_by_the_numbers(
    clip: MakeClip, kind: str, rule: str, shift: Fraction, start: float, suffix: str
) -> None:
    times = uneven(7, kind, 25) if kind != "constant" else [k / 25 for k in range(125)]
    if kind == "bursts":  # Matroska has no finer timestamps than milliseconds
        times = sorted({round(time, 2) for time in times})
    arguments: dict[str, Any] = {"timestamps": times} if kind != "constant" else {"fps": 25}
    name = f"{kind}-{start}.{suffix}"
    path = clip(name, audio=None, start=start, duration=5.0, b_frames=3, **arguments)
    exact = [Fraction(time).limit_denominator(10_000) for time in times]
    if suffix == "mkv":
        exact = [Fraction(round(time * 1000), 1000) for time in exact]
    for window in (Window(0, 5, whole=True), Window(2.2, 4.2)):
        count = round(window.length * 8)
        instants = [
            Fraction(window.start).limit_denominator(10) + (k + shift) / Fraction(8)
            for k in range(count)
        ]
        frames = sampled(path, rule, window, count)
        picked = [read_number(frame.rgb) for frame in frames]
        # A timestamp may be off by half a tick of the container; frames that close do not count.
        early = shown(exact, [t - Fraction(1, 1000) for t in instants])
        late = shown(exact, [t + Fraction(1, 1000) for t in instants])
        assert all(a <= b <= c for a, b, c in zip(early, picked, late, strict=True))
        for frame, number in zip(frames, picked, strict=True):
            assert frame.time + window.start == pytest.approx(times[number], abs=0.001)


def test_a_frame_sampled_twice_is_converted_once(clip: MakeClip) -> None:
    path = clip("slow.mp4", fps=2)
    frames = sampled(path, "on-screen", Window(0, 4, whole=True), 32)
    assert len({id(frame.picture) for frame in frames}) == 8
    assert frames[0].picture is frames[3].picture
    assert frames[0].rgb is frames[3].rgb
    assert frames[0].rgb.dtype == np.uint8
    assert frames[0].rgb.shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_applied(clip: MakeClip, turn: int) -> None:
    path = clip(f"turned-{turn}.mp4", rotation=turn)
    flat = clip("turned-0.mp4")
    info = probe(path).video
    assert info is not None and info.rotation == turn
    window = Window(0, 4, whole=True)
    for a, b in zip(
        sampled(path, "center", window, 32), sampled(flat, "center", window, 32), strict=True
    ):
        assert np.array_equal(a.rgb, np.rot90(b.rgb, turn // 90))


def test_rotation_turns_the_way_ffmpeg_turns(clip: MakeClip, ffmpeg51: str) -> None:
    path = clip("turned-90.mp4", rotation=90)
    command = [ffmpeg51, "-nostdin", "-v", "error", "-i", str(path), "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    (frame,) = sampled(path, "on-screen", Window(0, 4, whole=True), 1)
    theirs = np.frombuffer(raw, dtype=np.uint8).reshape(SIZE[0], SIZE[1], 3)
    difference = np.abs(theirs.astype(int) - frame.rgb.astype(int))
    assert difference.mean() < 3  # ffmpeg turns before it upsamples the colours, we after


def test_frames_cut_away_by_an_edit_list_do_not_count(
    clip: MakeClip, ffmpeg51: str, tmp_path: Path
) -> None:
    source = clip("edit-source.mp4", gop=30, fps=30)
    path = tmp_path / "edited.mp4"
    command = [ffmpeg51, "-nostdin", "-v", "error", "-ss", "1.3", "-i", str(source)]
    subprocess.run([*command, "-c", "copy", str(path)], check=True)
    picked = numbers(path, "on-screen", Window(0, 2, whole=True), 16)
    assert picked == [39 + 30 * k // 8 for k in range(16)]
    assert numbers(path, "avvp", Window(0, 2, whole=True), 23)[:5] == [39, 40, 42, 46, 49]


def test_a_cut_decodes_nothing_before_its_key_frame(
    clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip("long.mp4", duration=40.0, gop=30, fps=30, options={"x264-params": "scenecut=0"})
    decoded: list[int] = []
    demuxed: list[int] = []

    def decode(packet: Any, report: Any) -> Any:
        demuxed.append(packet.pts)
        frames = scan.decode(packet, report)
        decoded.extend(frame.pts for frame in frames)
        return frames

    with ClipReader(path) as reader:
        monkeypatch.setattr(video, "decode", decode)
        frames = list(reader.frames("on-screen", window=Window(20.5, 25.5), count=40))
    assert [read_number(frame.rgb) for frame in frames] == [615 + 30 * k // 8 for k in range(40)]
    assert min(decoded) // 512 == 600
    assert min(p for p in demuxed if p is not None) // 512 == 600
    assert max(decoded) // 512 <= 615 + 30 * 39 // 8 + 4
    assert len(decoded) < 40 + 15 + 75  # half of the frames and fewer: no B frame in vain


def test_the_file_is_opened_once(clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip("h264.mp4", **CODERS["h264.mp4"])
    opened: list[str] = []
    real = av.open

    def counted(file: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(file)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(av, "open", counted)
    window = Window(0, 4, whole=True)
    with ClipReader(path) as reader:
        for rule in SAMPLING_RULES:
            assert len(list(reader.frames(rule, window=window, count=32))) == 32
        assert len(list(reader.audio([16000], window=window))) == 1
        assert len(list(reader.frames("center", window=Window(2, 3), count=8))) == 8
    assert len(opened) == 1


def test_interleaved_readings_are_refused(clip: MakeClip) -> None:
    path = clip("h264.mp4", **CODERS["h264.mp4"])
    window = Window(0, 4, whole=True)
    with ClipReader(path) as reader:
        frames = reader.frames("center", window=window, count=32)
        next(frames)
        list(reader.audio([16000], window=window))
        with pytest.raises(RuntimeError, match="one after the other"):
            list(frames)


def test_no_video(clip: MakeClip) -> None:
    path = clip("sound.mp4", codec=None)
    with ClipReader(path) as reader:
        assert reader.info.video is None
        with pytest.raises(MediaError, match=r"sound\.mp4: has no video") as caught:
            next(reader.frames("center", window=Window(0, 4), count=32))
    assert caught.value.kind == "no_video"


def test_a_short_video_shows_its_last_frame_and_says_so(clip: MakeClip) -> None:
    path = clip("short.mp4", duration=2.5)
    with ClipReader(path) as reader:
        frames = list(reader.frames("on-screen", window=Window(0, 4, whole=True), count=32))
        assert reader.report.video_short == pytest.approx(1.5)
    assert [read_number(frame.rgb) for frame in frames[20:]] == [74] * 12


@pytest.mark.parametrize("name", ["-i.mp4", "http:x.mp4", "concat:a|b.mp4", "%03d.mp4", "ä ö.mp4"])
def test_names_are_only_names(clip: MakeClip, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copy(clip("h264.mp4", **CODERS["h264.mp4"]), path)
    assert numbers(path, "on-screen", Window(0, 4, whole=True), 2) == [0, 3]


def test_colours_follow_the_tag(tmp_path: Path) -> None:
    def paint(index: int, time: float, canvas: Any) -> None:
        canvas[:] = (200, 60, 30)

    for matrix in ("bt601", "bt709", None):
        path = make_clip(
            tmp_path / f"{matrix}.mp4", duration=0.5, audio=None, matrix=matrix, paint=paint
        )
        (frame,) = sampled(path, "on-screen", Window(0, 1, whole=True), 1)
        assert np.abs(frame.rgb[:150].mean(axis=(0, 1)) - (200, 60, 30)).max() < 4


def test_sound_does_not_matter_to_frames(clip: MakeClip) -> None:
    assert TONE.rate == 44100
    quiet, loud = clip("quiet.mp4", audio=None), clip("turned-0.mp4")
    window = Window(0, 4, whole=True)
    assert numbers(quiet, "center", window, 32) == numbers(loud, "center", window, 32)


def test_several_samplings_take_one_decode(clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives exactly the frames it gives alone, pixels included."""
    path = clip("several-samplings.mp4", b_frames=3)
    window = Window(0, 5, whole=True)
    asked = [
        Sampling("avvp", 8, 40),
        Sampling("ave", 16, 80),
        Sampling("on-screen", 25, 125),
        Sampling("on-screen", 8, 40),
    ]
    alone = []
    for sampling in asked:
        with ClipReader(path) as reader:
            one = reader.frames(
                sampling.rule, window=window, fps=sampling.fps, count=sampling.count
            )
            alone.append(list(one))
    decoded = 0
    real = video.decode

    def counting(packet: Any, report: Any) -> Any:
        nonlocal decoded
        for frame in real(packet, report):
            decoded += 1
            yield frame

    monkeypatch.setattr(video, "decode", counting)
    together: list[list[Frame]] = [[] for _ in asked]
    with ClipReader(path) as reader:
        for which, frame in reader.sampled(asked, window=window):
            together[which].append(frame)
        assert reader.report.corrupt_frames == 0
    with av.open(str(path)) as container:
        assert decoded <= sum(1 for _ in container.decode(video=0))
    for found, expected in zip(together, alone, strict=True):
        assert [(f.index, f.time) for f in found] == [(f.index, f.time) for f in expected]
        assert all(np.array_equal(f.rgb, e.rgb) for f, e in zip(found, expected, strict=True))
