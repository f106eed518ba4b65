"""Frames to items: windows with gaps, overlaps and repeated edges, against plain indexing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

from avfeat.extract import flow as flow_module
from avfeat.extract import transforms
from avfeat.extract.backbones import Geometry, VisualInput
from avfeat.extract.items import Cutter, VisualItems
from avfeat.extract.media import Picture, Region

SMALL = Geometry(resize=12, crop=8)


def blocks(n: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


@pytest.mark.parametrize("block", [1, 3, 16, 1000])
@pytest.mark.parametrize(
    ("size", "step", "padding"),
    [(1, 1, 0), (8, 8, 0), (4, 7, 0), (16, 8, 4), (16, 3, 2), (5, 9, 3)],
)
@pytest.mark.parametrize("n", [0, 1, 7, 16, 41])
def test_windows_are_those_of_the_padded_stream(
    n: int, size: int, step: int, padding: int, block: int
) -> None:
    stream = np.arange(2.0 * n).reshape(n, 2)
    whole = stream[np.clip(np.arange(-padding, n + padding), 0, n - 1)] if n else stream
    count = max(0, (len(whole) - size) // step + 1)
    expected = [whole[i * step : i * step + size] for i in range(count)]

    cutter = Cutter(size, step, padding=padding)
    found: list[np.ndarray] = []
    means: list[float] = []
    parts = [*blocks(n, block), slice(n, n)]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        first, windows = cutter.push(stream[part], last=last)
        assert first == len(found) * step
        found += list(windows)
        means += cutter.times(stream[part][:, 0], last=last).tolist()

    assert len(found) == count
    for window, wanted in zip(found, expected, strict=True):
        assert np.array_equal(window, wanted)
    assert means == pytest.approx([wanted[:, 0].mean() for wanted in expected])


def frames(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (15, 20, 3), dtype=np.uint8) for _ in range(n)]


def fake_flow(pictures: np.ndarray, **_: Any) -> np.ndarray:
    """Per pair: the differences of red and of green; easy to tell which frames were paired."""
    values = pictures.astype(np.float32)
    return (values[1:] - values[:-1])[..., :2]


def pictures_of(arrays: list[np.ndarray]) -> list[Picture]:
    return [Picture(VideoFrame.from_ndarray(array, format="rgb24")) for array in arrays]


def run(inputs: dict[str, VisualInput], pictures: list[Picture]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {name: [] for name in inputs}
    items = VisualItems(inputs, lambda name, *chunk: found[name].append(chunk), device="cpu")
    for number, picture in enumerate(pictures):
        items.push(picture, number / 8)
    items.finish()
    return {
        name: tuple(np.concatenate(part) for part in zip(*chunks, strict=True)) if chunks else None
        for name, chunks in found.items()
    }


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 40])
def test_flow_goes_to_the_next_frame_and_the_last_is_repeated(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counting(pictures: np.ndarray, **options: Any) -> np.ndarray:
        calls.append(len(pictures) - 1)
        return fake_flow(pictures, **options)

    monkeypatch.setattr(flow_module, "flow", counting)
    one = {"frames": 1, "stride": 1, "geometry": SMALL}
    found = run(
        {
            "rgb": VisualInput(**one),
            "flow": VisualInput(**one, stream="flow"),
            "both": VisualInput(**one, stream="rgb+flow"),
        },
        pictures_of(pictures := frames(n)),
    )
    assert sum(calls) == n - 1  # once per pair, for both backbones that want it

    whole = np.stack([transforms.resize(SMALL, picture) for picture in pictures])
    crops = transforms.crop(SMALL, whole)
    flows = transforms.crop(SMALL, fake_flow(whole))
    flows = np.concatenate([flows, flows[-1:] if n > 1 else np.zeros((1, 8, 8, 2))])
    items, times = found["rgb"]
    assert np.array_equal(items, crops) and items.dtype == np.uint8
    assert np.array_equal(times, np.arange(n) / 8)
    items, times = found["flow"]
    assert np.array_equal(items, flows) and items.dtype == np.float32
    assert np.array_equal(times, np.arange(n) / 8)
    items, times = found["both"]
    assert np.array_equal(items, np.concatenate([crops, flows], axis=-1))
    assert np.array_equal(times, np.arange(n) / 8)


def test_windows_centred_on_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds at 8 frames/s: row s holds frames 8s - 4 to 8s + 11, with edges repeated."""
    monkeypatch.setattr(flow_module, "flow", fake_flow)
    centred = {"frames": 16, "stride": 8, "padding": 4, "geometry": SMALL}
    pictures = frames(80)
    found = run(
        {"rgb": VisualInput(**centred), "flow": VisualInput(**centred, stream="flow")},
        pictures_of(pictures),
    )
    crops = np.stack([transforms.apply(SMALL, picture) for picture in pictures])
    items, times = found["rgb"]
    assert items.shape == (10, 16, 8, 8, 3)
    for second in range(10):
        frames_of = np.clip(np.arange(8 * second - 4, 8 * second + 12), 0, 79)
        assert np.array_equal(items[second], crops[frames_of])
        assert times[second] == pytest.approx(frames_of.mean() / 8)
    assert found["flow"][0].shape == (10, 16, 8, 8, 2)


def test_a_geometry_is_applied_once_per_distinct_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Geometry] = []
    real = transforms.cropped

    def counting(geometry: Geometry, *rest: Any) -> np.ndarray:
        calls.append(geometry)
        return real(geometry, *rest)

    monkeypatch.setattr(transforms, "cropped", counting)
    other = Geometry((8, 8))
    (picture,) = pictures_of(frames(1))
    run(
        {"a": VisualInput(SMALL), "b": VisualInput(SMALL), "c": VisualInput(other)},
        [picture, picture, *pictures_of(frames(2))],
    )
    assert sorted(calls, key=str) == sorted([SMALL, other] * 3, key=str)


@pytest.mark.parametrize("flow", [False, True], ids=["crops", "crops and flow"])
def test_geometries_share_one_conversion(flow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what they need together: the centre, or everything where flow is computed."""
    monkeypatch.setattr(flow_module, "flow", fake_flow)
    regions: list[Region] = []
    real = Picture.region

    def counting(self: Picture, wanted: Region) -> np.ndarray:
        regions.append(wanted)
        return real(self, wanted)

    monkeypatch.setattr(Picture, "region", counting)
    rgb = np.random.default_rng(3).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    inputs = {
        "narrow": VisualInput(Geometry(45, 20)),
        "wide": VisualInput(Geometry(30, 28)),
        **({"flow": VisualInput(Geometry(30, 28), stream="flow")} if flow else {}),
    }
    found = run(inputs, [Picture(frame)])
    assert len(regions) == 1
    assert (regions[0] == Region(0, 90, 0, 160)) == flow
    whole = frame.to_ndarray(format="rgb24")
    for name in ("narrow", "wide"):
        assert np.array_equal(found[name][0][0], transforms.apply(inputs[name].geometry, whole))
