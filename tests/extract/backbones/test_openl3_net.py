"""OpenL3's networks against a numpy one that works as Keras does, channels last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from avfeat.errors import UsageError
from avfeat.extract.backbones.nets.keras_order import openl3_audio, openl3_image
from avfeat.extract.backbones.nets.openl3 import (
    AUDIO_SHAPES,
    OpenL3Audio,
    OpenL3Image,
    Representation,
)

Array = NDArray[np.float32]
Arrays = dict[str, Array]

# (layer, channels) of openl3/models.py, in its order; the picture tower swaps one pair.
BLOCKS = [64, 128, 256]
AUDIO_LAYERS = ["norm"] + ["conv", "norm", "relu", "conv", "norm", "relu", "pool"] * 3
IMAGE_LAYERS = ["norm", "conv", "norm", "relu", "conv", "relu", "norm", "pool"]
IMAGE_LAYERS += ["conv", "norm", "relu", "conv", "norm", "relu", "pool"] * 2
LAST = ["conv", "norm", "relu", "conv"]


def keras_arrays(n_in: int, seed: int) -> Arrays:
    """Random weights in the published layout: <layer>/<weight>, 48 arrays."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}

    def norm(number: int, n: int) -> None:
        layer = f"batch_normalization_{number}/"
        arrays[layer + "gamma:0"] = rng.uniform(0.75, 1.25, n).astype(np.float32)
        arrays[layer + "beta:0"] = rng.normal(0, 0.2, n).astype(np.float32)
        arrays[layer + "moving_mean:0"] = np.zeros(n, np.float32)
        arrays[layer + "moving_variance:0"] = np.ones(n, np.float32)

    norm(1, n_in)
    for number, n_out in enumerate([64, 64, 128, 128, 256, 256, 512, 512], start=1):
        layer = f"conv2d_{number}/" if number < 8 else "embedding_layer/"
        kernel = rng.normal(0, (2 / (9 * n_in)) ** 0.5, (3, 3, n_in, n_out))
        arrays[layer + "kernel:0"] = kernel.astype(np.float32)
        arrays[layer + "bias:0"] = rng.normal(0, 0.01, n_out).astype(np.float32)
        if number < 8:
            norm(number + 1, n_out)
        n_in = n_out
    return arrays


def keras_map(arrays: Arrays, layers: list[str], maps: Array, *, calibrate: bool = False) -> Array:
    """The last convolution's map [N, H, W, 512] of [N, H, W, C], layer after layer.

    ``calibrate`` first sets each batch norm's statistics to those of what it gets, so that no
    layer forgets its input.
    """
    weights: Iterator[Array] = iter(arrays.values())
    for layer in layers:
        if layer == "norm":
            gamma, beta, mean, variance = (next(weights) for _ in range(4))
            if calibrate:
                mean[:], variance[:] = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
            maps = (maps - mean) / np.sqrt(variance + np.float32(1e-3)) * gamma + beta
        elif layer == "relu":
            maps = np.maximum(maps, 0)
        elif layer == "conv":
            kernel, bias = next(weights), next(weights)
            n, height, width, channels = maps.shape
            padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
            places = np.zeros((n * height * width, kernel.shape[3]), np.float32) + bias
            for y in range(3):
                for x in range(3):
                    shifted = padded[:, y : y + height, x : x + width]
                    places += shifted.reshape(-1, channels) @ kernel[y, x]
            maps = places.reshape(n, height, width, -1)
        else:
            maps = pooled(maps, 2, 2)
    return maps


def pooled(maps: Array, height: int, width: int) -> Array:
    n, rows, columns, channels = maps.shape
    rows, columns = rows // height, columns // width
    kept = maps[:, : rows * height, : columns * width]
    return kept.reshape(n, rows, height, columns, width, channels).max((2, 4))


def relative(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def run(net: nn.Module, arrays: Arrays, inputs: Array) -> Array:
    """Load the arrays by way of the conversion, and run on channels-first inputs."""
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    convert = openl3_audio if isinstance(net, OpenL3Audio) else openl3_image
    net.load_state_dict(convert(tensors))
    with torch.inference_mode():
        found: Array = net.eval()(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).numpy()
    return found


def smooth(rng: np.random.Generator, height: int, width: int, channels: int) -> Array:
    """Two inputs [2, height, width, channels] in [-1, 1] that change slowly and differ."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, (2, channels, 8, 8)))
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return fine.movedim(1, -1).float().numpy()


def check(net: nn.Module, arrays: Arrays, inputs: Array, expected: Array, seed: int) -> None:
    """Compare two rows; and the network must not have forgotten its input."""
    found = run(net, arrays, inputs)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5
    assert relative(found[:1], found[1:]) > 1e-2
    noise = np.random.default_rng(seed).normal(0, np.sqrt(np.mean(inputs**2)), inputs[:1].shape)
    moved = run(net, arrays, inputs[:1] + 1e-3 * noise.astype(np.float32))
    assert relative(moved, expected[:1]) > 1e-3


@pytest.mark.parametrize(
    ("representation", "all_places", "twelve_places"),
    [("linear", (32, 24), (8, 8)), ("mel128", (16, 24), (4, 8)), ("mel256", (32, 24), (8, 8))],
)
def test_audio_network_equals_the_numpy_one(
    representation: Representation, all_places: tuple[int, int], twelve_places: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    decibels = 40 * (smooth(rng, *AUDIO_SHAPES[representation], 1) - 1)  # -80 to 0
    decibels += rng.normal(0, 2, decibels.shape).astype(np.float32)
    arrays = keras_arrays(1, seed=2)
    maps = keras_map(arrays, AUDIO_LAYERS + LAST, decibels, calibrate=True)

    expected = pooled(maps, *all_places).reshape(2, 512)
    check(OpenL3Audio(representation, 512), arrays, decibels, expected, seed=5)

    expected = pooled(maps[:1], *twelve_places).reshape(1, 6144)
    found = run(OpenL3Audio(representation, 6144), arrays, decibels[:1])
    assert relative(found, expected) <= 1e-5
    assert found.min() < 0  # no ReLU


def test_image_network_equals_the_numpy_one() -> None:
    pictures = smooth(np.random.default_rng(3), 224, 224, 3)
    arrays = keras_arrays(3, seed=4)
    maps = keras_map(arrays, IMAGE_LAYERS + LAST, pictures, calibrate=True)

    check(OpenL3Image(512), arrays, pictures, pooled(maps, 28, 28).reshape(2, 512), seed=6)

    found = run(OpenL3Image(8192), arrays, pictures[:1])
    assert relative(found, pooled(maps[:1], 7, 7).reshape(1, 8192)) <= 1e-5
    assert found.min() < 0  # no ReLU

    found = run(OpenL3Image(map=True), arrays, pictures[:1])
    assert found.shape == (1, 512, 28, 28)
    assert relative(found, maps[:1].transpose(0, 3, 1, 2)) <= 1e-5

    # The order that the other blocks have would show.
    usual = keras_map(arrays, AUDIO_LAYERS + LAST, pictures[:1])
    assert relative(usual, maps[:1]) > 0.1


@pytest.mark.parametrize(
    ("build", "trainable", "with_statistics"),
    [
        (lambda: OpenL3Audio("linear", 512), 4_687_042, 4_689_860),
        (lambda: OpenL3Audio("mel128", 6144), 4_687_042, 4_689_860),
        (lambda: OpenL3Audio("mel256", 512), 4_687_042, 4_689_860),
        (lambda: OpenL3Image(512), 4_688_198, 4_691_020),
        (lambda: OpenL3Image(8192), 4_688_198, 4_691_020),
        (lambda: OpenL3Image(map=True), 4_688_198, 4_691_020),
    ],
)
def test_networks_have_the_published_parameters(
    build: Callable[[], nn.Module], trainable: int, with_statistics: int
) -> None:
    net = build()
    assert sum(p.numel() for p in net.parameters()) == trainable
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    assert len(state) == 48
    assert sum(v.numel() for v in state.values()) == with_statistics
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, round(norm.momentum or 0, 9)) for norm in norms} == {(1e-3, 0.01)}


def test_representations_are_those_of_the_front_end() -> None:
    assert set(AUDIO_SHAPES) == set(get_args(Representation))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OpenL3Audio("mel64", 512), "'mel64'; there are linear, mel128, mel256"),
        (lambda: OpenL3Audio("mel128", 8192), "audio embedding size 8192; there are 512, 6144"),
        (lambda: OpenL3Image(6144), "image embedding size 6144; there are 512, 8192"),
    ],
)
def test_unknown_representations_and_sizes_are_refused(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build()
