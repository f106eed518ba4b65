"""Optical flow: motion that is known, the two methods against each other, and the scaling."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from flowkit import HEIGHT, MOTIONS, WIDTH, Picture, distance, grid, inside, moved, texture

from avfeat.extract import flow as flow_module
from avfeat.extract import flow_torch
from avfeat.extract.backbones.spec import FLOW_METHODS
from avfeat.extract.flow import flow, normalise
from avfeat.extract.flow_torch import TVL1, median_5x5, tvl1

methods = pytest.mark.parametrize("method", FLOW_METHODS)
motions = pytest.mark.parametrize("motion", list(MOTIONS))


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads of torch and OpenCV until the end of the test; it begins with 1."""
    before = torch.get_num_threads(), cv2.getNumThreads()

    def setter(n: int) -> None:
        torch.set_num_threads(n)
        cv2.setNumThreads(n)

    setter(1)
    yield setter
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@methods
@motions
def test_known_motion_is_found(motion: str, method: str) -> None:
    pictures, truth = moved(*MOTIONS[motion])
    found = flow(pictures, method)
    assert found.shape == (1, HEIGHT, WIDTH, 2)
    assert found.dtype == np.float32
    error = inside(distance(found[0], truth))
    print(f"{method} {motion}: error {error.mean():.4f} of {distance(truth, 0 * truth).mean():.2f}")
    assert error.mean() < 0.05


@methods
def test_channels_are_x_and_y_from_each_frame_to_the_next(method: str) -> None:
    x, y = grid()
    # Right by 3, then down by 2.
    frames = np.stack([texture(x, y), texture(x - 3, y), texture(x - 3, y - 2)])
    medians = np.median(flow(frames, method), axis=(1, 2))
    np.testing.assert_allclose(medians, [[3, 0], [0, 2]], atol=0.02)


@methods
def test_identical_frames_have_no_flow_at_all(method: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 37, 61), dtype=np.uint8)
    assert not flow(frames[[0, 0, 0]], method).any()
    assert flow(frames, method).any()
    flat = np.stack([np.full((20, 20), 50, np.uint8), np.full((20, 20), 90, np.uint8)])
    assert not flow(flat, method)[:, 8:-8, 8:-8].any()


@methods
def test_colours_become_grey_in_opencvs_fixed_point(method: str) -> None:
    pictures, _ = moved(*MOTIONS["right"])
    random = np.random.default_rng(1)
    tint = random.integers(-40, 40, (*pictures.shape, 3))
    rgb = (pictures[..., None] + tint).clip(0, 255).astype(np.uint8)
    weighted = rgb.astype(np.int64) @ [9798, 19235, 3735]  # 0.299, 0.587, 0.114 times 2**15
    grey = ((weighted + (1 << 14)) >> 15).astype(np.uint8)
    assert np.array_equal(flow(rgb, method), flow(grey, method))
    assert not np.array_equal(flow(rgb[..., ::-1], method), flow(grey, method))


def test_parameters_are_opencvs_defaults() -> None:
    pictures, _ = moved(*MOTIONS["oblique"])
    default = cv2.optflow.DualTVL1OpticalFlow_create().calc(*pictures, None)
    assert np.array_equal(flow(pictures, "tvl1-opencv")[0], default)


@pytest.mark.parametrize("shape", [(16, 16), (16, 70), (33, 19), (41, 50)])
def test_any_size_has_opencvs_pyramid(shape: tuple[int, int]) -> None:
    x, y = grid(*shape)
    frames = np.stack([texture(x, y), texture(x - 0.5, y)])
    found, expected = flow(frames, "tvl1-torch"), flow(frames, "tvl1-opencv")
    assert found.shape == expected.shape == (1, *shape, 2)
    assert distance(found, expected).mean() < 0.05


@methods
def test_a_pair_does_not_depend_on_the_others(method: str) -> None:
    x, y = grid(24, 32)
    random = np.random.default_rng(2)
    noise = random.integers(0, 256, x.shape, dtype=np.uint8)
    # Still, slow, fast, hopeless: they converge after different numbers of iterations.
    frames = np.stack(
        [texture(x, y), texture(x, y), texture(x - 1, y), texture(x - 9, y + 5), noise]
    )
    together = flow(frames, method)
    alone = np.concatenate([flow(frames[k : k + 2], method) for k in range(4)])
    assert np.array_equal(together, alone)


def test_a_pair_has_the_same_bits_in_every_batch() -> None:
    x, y = grid(45, 61)
    firsts = torch.from_numpy(np.stack([texture(x, y)] * 5))
    shifts = [(0, 0), (1, 0), (0.4, -3), (9, 5), (-2, 2)]
    seconds = torch.from_numpy(np.stack([texture(x - dx, y - dy) for dx, dy in shifts]))
    short = TVL1(outer=2)
    batch = tvl1(firsts, seconds, short)
    assert batch.shape == (5, 2, 45, 61)
    for order in ([3], [1, 3], [4, 2, 0], [2, 1, 0, 3, 4]):
        assert torch.equal(tvl1(firsts[order], seconds[order], short), batch[order])


def test_threads_change_nothing(threads: Callable[[int], None]) -> None:
    pictures, _ = moved(*MOTIONS["rotation"])
    first, second = (torch.from_numpy(p).repeat(2, 2, 2) for p in pictures)  # enough to be split
    estimator = cv2.optflow.DualTVL1OpticalFlow_create()
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(
            (tvl1(first, second, TVL1(warps=2, inner=3, outer=1)), estimator.calc(*pictures, None))
        )
    for by_torch, by_opencv in results[1:]:
        assert torch.equal(by_torch, results[0][0])
        assert np.array_equal(by_opencv, results[0][1])


@methods
def test_many_threads_may_ask_at_once(method: str) -> None:
    sequences = [moved(*motion)[0][:, ::2, ::2] for motion in MOTIONS.values()]
    expected = [flow(s, method) for s in sequences]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: flow(s, method), sequences * 2))
    for k, one in enumerate(found):
        assert np.array_equal(one, expected[k % len(expected)])


def test_it_keeps_to_the_thread_that_calls(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(3)
    flow_module._opencv.cache_clear()
    frames = np.zeros((2, 16, 16), np.uint8)
    flow(frames, "tvl1-opencv")
    assert cv2.getNumThreads() == 1
    seen = []
    together = threading.Barrier(3)

    def spy(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        together.wait(20)
        seen.append(torch.get_num_threads())
        return tvl1(first, second)

    monkeypatch.setattr(flow_torch, "tvl1", spy)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: flow(frames, "tvl1-torch"), range(3)))
        assert seen == [1, 1, 1]
        assert list(pool.map(lambda _: torch.get_num_threads(), range(3))) == [3, 3, 3]
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        (np.zeros((2, 20, 20), np.float32), "float32"),
        (np.zeros((20, 20), np.uint8), r"\[20, 20\]"),
        (np.zeros((2, 20, 20, 4), np.uint8), r"\[2, 20, 20, 4\]"),
        (np.zeros((1, 20, 20), np.uint8), "got 1 of 20 x 20"),
        (np.zeros((2, 15, 20, 3), np.uint8), "got 2 of 15 x 20"),
    ],
)
def test_wrong_frames_are_refused(frames: Picture, named: str) -> None:
    for method in FLOW_METHODS:
        with pytest.raises(ValueError, match=named):
            flow(frames, method)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'raft'; known: tvl1-opencv, tvl1-torch"):
        flow(np.zeros((2, 16, 16), np.uint8), "raft")


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 15, 20), (2, 1, 20, 20)])
def test_pairs_that_are_none_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pairs are two times"):
        tvl1(torch.zeros(2, *shape[1:]), torch.zeros(shape))


def test_median_is_exact() -> None:
    maps = torch.randn(2, 3, 21, 34, generator=torch.Generator().manual_seed(0))
    filtered = median_5x5(maps)
    for n, c in itertools.product(range(2), range(3)):
        assert np.array_equal(filtered[n, c].numpy(), cv2.medianBlur(maps[n, c].numpy(), 5))


def test_median_is_right_for_every_filling_with_zeros_and_ones() -> None:
    """By the 0-1 principle it then is for all numbers; columns need not be sorted for it."""
    zeros = torch.tensor(list(itertools.product(range(6), repeat=5)))  # [6**5, column]
    sorted_columns = (torch.arange(5)[:, None] >= zeros[:, None]).float()  # [6**5, row, column]
    turned = sorted_columns[:, [3, 0, 4, 2, 1]]
    for windows in (sorted_columns, turned):
        expected = windows.flatten(1).median(dim=1).values
        assert torch.equal(median_5x5(windows[:, None])[:, 0, 2, 2], expected)


def test_scaling() -> None:
    pixels = torch.tensor([0.0, 20.0, -20.0, 10.0, 25.0, -1e9, -0.5])
    scaled = normalise(pixels)
    assert scaled.dtype == torch.float32
    assert scaled.tolist() == [0.0, 1.0, -1.0, 0.5, 1.0, -1.0, np.float32(-0.025)]
    assert normalise(torch.tensor([[3.0]], dtype=torch.float64), bound=4).tolist() == [[0.75]]
    assert pixels.tolist()[4] == 25.0  # what was passed in is left alone


def test_scaling_by_levels() -> None:
    pixels = torch.tensor([0.0, 20.0, -20.0, 30.0, -30.0, 0.2, -0.2])
    levels = [128, 255, 0, 255, 0, 129, 126]  # 127.5 (to even), ..., 128.775, 126.225
    scaled = normalise(pixels, quantised=True)
    torch.testing.assert_close(scaled, torch.tensor(levels) * 2 / 255 - 1, rtol=0, atol=0)
    assert scaled[0].item() == pytest.approx(1 / 255, abs=1e-7)
    every = normalise(torch.linspace(-21, 21, 10_001), quantised=True)
    assert len(every.unique()) == 256
    assert (every.min(), every.max()) == (-1, 1)


def test_scaling_keeps_nan_and_refuses_a_bound_of_nothing() -> None:
    for quantised in (False, True):
        assert normalise(torch.tensor([float("nan")]), quantised=quantised).isnan().all()
    with pytest.raises(ValueError, match="bound 0"):
        normalise(torch.zeros(1), bound=0)
