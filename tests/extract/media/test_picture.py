"""Parts of decoded frames, bit by bit against converting the whole frame."""

from __future__ import annotations

import gc
import random
import threading

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from media_cases import MakeClip, decode_all
from numpy.typing import NDArray

from avfeat.extract.media import ClipReader, Picture, Region, Window
from avfeat.extract.media import picture as picture_module

FORMATS = [
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv410p", "yuv411p"),
    *("yuv420p10le", "yuv422p10le", "yuva420p", "nv12", "gray", "rgb24", "bgr24", "gbrp"),
]
SIZES = [(320, 240), (426, 240), (178, 144), (1280, 96), (321, 60), (200, 181), (45, 33), (36, 64)]


def noise(size: tuple[int, int], pixel_format: str, rnd: random.Random) -> VideoFrame:
    """A frame of any bytes that the format allows, with a random colour tag."""
    frame = VideoFrame(*size, pixel_format)
    rng = np.random.default_rng(rnd.randrange(1 << 30))
    for plane in frame.planes:
        values = rng.integers(0, 256, plane.buffer_size, dtype=np.uint8)
        if "10le" in pixel_format:
            values[1::2] &= 3
        np.frombuffer(plane, dtype=np.uint8)[:] = values
    frame.colorspace = rnd.choice([1, 2, 5, 6, 9])
    frame.color_range = rnd.choice([0, 1, 2])
    return frame


def any_region(height: int, width: int, rnd: random.Random) -> Region:
    top, bottom = sorted(rnd.sample(range(height + 1), 2))
    left, right = sorted(rnd.sample(range(width + 1), 2))
    return Region(top, bottom, left, right)


def plain(frame: VideoFrame, turns: int = 0) -> NDArray[np.uint8]:
    return np.rot90(frame.to_ndarray(format="rgb24"), turns)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_part_has_the_bytes_of_the_whole(
    pixel_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_module, "_WORTH", 0)
    rnd = random.Random(pixel_format)
    for size in SIZES:
        for turns in (0, 0, 0, 1, 2, 3):
            frame = noise(size, pixel_format, rnd)
            picture, whole = Picture(frame, turns), plain(frame, turns)
            assert (picture.height, picture.width) == whole.shape[:2]
            for _ in range(3):
                part = any_region(picture.height, picture.width, rnd)
                expected = whole[part.top : part.bottom, part.left : part.right]
                assert np.array_equal(picture.region(part), expected), (size, turns, part)
            assert np.array_equal(picture.rgb(), whole)


def test_a_part_costs_no_whole() -> None:
    picture = Picture(noise((1920, 1080), "yuv420p", random.Random(1)))
    part = picture.region(Region(100, 200, 700, 1000))
    assert part.shape == (100, 300, 3)
    assert part.base is not None and part.strides[0] < 3 * 400
    assert picture.region(Region(100, 200, 700, 1000)).ctypes.data == part.ctypes.data
    assert picture.rgb() is picture.rgb()


def test_a_part_that_saves_little_is_not_cut_out() -> None:
    picture = Picture(noise((320, 240), "yuv420p", random.Random(1)))
    assert picture.region(Region(10, 20, 64, 96)).base is picture.rgb()


def test_interlaced_pictures_are_converted_whole(
    clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_module, "_WORTH", 0)
    path = clip("interlaced.mp4", codec="mpeg2video", b_frames=0, options={"flags": "+ildct+ilme"})
    with av.open(str(path)) as container:
        frame = next(f for f in container.decode(video=0) if f.interlaced_frame)
    part = Region(10, 50, 32, 96)
    assert np.array_equal(Picture(frame).region(part), plain(frame)[10:50, 32:96])


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("vp9", "webm")])
def test_pictures_outlive_their_file_and_go_to_other_threads(
    clip: MakeClip, codec: str, suffix: str
) -> None:
    path = clip(f"outlived.{suffix}", codec=codec, audio=None, b_frames=3)
    every = list(decode_all(path).values())
    with ClipReader(path) as reader:
        window = Window(0, 4, whole=True)
        frames = list(reader.frames("center", window=window, fps=30, count=120))
    del reader
    gc.collect()
    found: dict[int, NDArray[np.uint8]] = {}

    def convert(start: int) -> None:
        for frame in frames[start::3]:
            found[frame.index] = frame.picture.region(Region(20, 100, 40, 120))

    threads = [threading.Thread(target=convert, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, whole in enumerate(every):
        assert np.array_equal(found[number], whole[20:100, 40:120])
