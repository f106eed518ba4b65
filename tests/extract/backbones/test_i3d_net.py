"""I3D's layers against TensorFlow's definition of SAME, written out in numpy.

The weights are calibrated: with a framework's initial ones a wrong padding hardly shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from avfeat.extract.backbones import Backbone, BackboneSpec, Geometry, VisualInput
from avfeat.extract.backbones.nets import i3d
from avfeat.extract.backbones.nets.i3d import I3D, TwoStream, from_hsi3d
from avfeat.extract.weights.random import calibrate

State = dict[str, Tensor]
Array = NDArray[np.float64]

BRANCHES = {"b0": "0", "b1a": "1.0", "b1b": "1.1", "b2a": "2.0", "b2b": "2.1", "b3b": "3.1"}
MIXED = ["3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"]
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Small(Backbone):
    """Gives `calibrate` pictures of 64 pixels, for the last map alone."""

    spec = BackboneSpec(
        name="small",
        modality="visual",
        dim=1024,
        layer="last map",
        input=VisualInput(Geometry((64, 64)), frames=16, mean=(0.5,) * 3, std=(0.5,) * 3),
        weights=(),
        parameters=1,
        gmacs_per_item=1.0,
        paper="none",
        description="for tests",
    )

    def build(self) -> nn.Module:
        raise NotImplementedError


class LastMap(nn.Module):
    def __init__(self, net: I3D, channels: int) -> None:
        super().__init__()
        self.net, self.channels = net, channels

    def forward(self, snippets: Tensor) -> Tensor:
        return self.net.features(snippets[:, : self.channels])


@pytest.fixture(scope="module", params=[3, 2], ids=["rgb", "flow"])
def net(request: pytest.FixtureRequest) -> Iterator[I3D]:
    network = I3D(request.param)
    calibrate(LastMap(network, request.param), Small(), seed=5)
    yield network


def smooth(channels: int, frames: int, height: int, width: int, n: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand((n, channels, 4, 8, 8), generator=generator) * 2 - 1
    return F.interpolate(coarse, size=(frames, height, width), mode="trilinear")


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("channels", "parameters"), [(3, 12_287_264), (2, 12_265_312)])
def test_layers_are_those_of_the_published_files(channels: int, parameters: int) -> None:
    network = I3D(channels)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(state) == 344 - 2  # without logits.conv3d.{weight,bias}
    units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    units += [f"Mixed_{level}.{branch}" for level in MIXED for branch in BRANCHES]
    expected = [f"{u}.{k}" for u in units for k in ("conv3d.weight", *(f"bn.{b}" for b in BN))]
    assert sorted(state) == sorted(expected)
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, channels, 7, 7, 7)
    assert state["Conv3d_2c_3x3.conv3d.weight"].shape == (192, 64, 3, 3, 3)
    assert state["Mixed_4e.b1b.conv3d.weight"].shape == (288, 144, 3, 3, 3)
    assert state["Mixed_5c.b3b.bn.running_var"].shape == (128,)


def windows(maps: Array, kernel: tuple[int, ...], stride: tuple[int, ...], fill: float) -> Array:
    """Output i of SAME sees inputs i * stride - front + k; there are ceil(length / stride)."""
    pads = [(0, 0)]
    for length, k, s in zip(maps.shape[1:], kernel, stride, strict=True):
        outputs = -(-length // s)
        total = max((outputs - 1) * s + k - length, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(maps, pads, constant_values=fill)
    view = sliding_window_view(padded, kernel, axis=(1, 2, 3))
    return view[:, :: stride[0], :: stride[1], :: stride[2]]


class Oracle:
    """The network in float64 numpy, one snippet [C, T, H, W] at a time."""

    def __init__(self, state: State) -> None:
        self.state = {key: value.double().numpy() for key, value in state.items()}

    def unit(self, name: str, maps: Array, stride: int = 1) -> Array:
        weight = self.state[f"{name}.conv3d.weight"]
        seen = windows(maps, weight.shape[2:], (stride,) * 3, 0.0)
        out = np.tensordot(weight, seen, axes=((1, 2, 3, 4), (0, 4, 5, 6)))
        scale, shift, mean, variance = (self.state[f"{name}.bn.{key}"] for key in BN[:4])
        scale = scale / np.sqrt(variance + 1e-3)
        shift = shift - mean * scale
        return np.maximum(out * scale[:, None, None, None] + shift[:, None, None, None], 0)

    def pool(self, maps: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
        return windows(maps, kernel, stride, -np.inf).max(axis=(4, 5, 6))

    def mixed(self, name: str, maps: Array) -> Array:
        return np.concatenate(
            [
                self.unit(f"{name}.b0", maps),
                self.unit(f"{name}.b1b", self.unit(f"{name}.b1a", maps)),
                self.unit(f"{name}.b2b", self.unit(f"{name}.b2a", maps)),
                self.unit(f"{name}.b3b", self.pool(maps, (3, 3, 3), (1, 1, 1))),
            ]
        )

    def features(self, maps: Array) -> Array:
        maps = self.unit("Conv3d_1a_7x7", maps, stride=2)
        maps = self.pool(maps, (1, 3, 3), (1, 2, 2))
        maps = self.unit("Conv3d_2c_3x3", self.unit("Conv3d_2b_1x1", maps))
        maps = self.pool(maps, (1, 3, 3), (1, 2, 2))
        for level in MIXED:
            if level == "4b":
                maps = self.pool(maps, (3, 3, 3), (2, 2, 2))
            if level == "5b":
                maps = self.pool(maps, (2, 2, 2), (2, 2, 2))
            maps = self.mixed(f"Mixed_{level}", maps)
        return maps


@pytest.mark.parametrize(
    "size", [(16, 64, 64), (9, 33, 47), (21, 50, 39)], ids=["even", "odd", "mixed"]
)
def test_maps_equal_the_definition_of_same(net: I3D, size: tuple[int, int, int]) -> None:
    snippets = smooth(net.Conv3d_1a_7x7.conv3d.in_channels, *size)
    with torch.inference_mode():
        found = net.features(snippets)
        exact = copy.deepcopy(net).double().features(snippets.double())
        moved = net.features(snippets + 1e-3 * torch.randn_like(snippets))
    oracle = Oracle(net.state_dict())
    expected = torch.from_numpy(oracle.features(snippets[0].double().numpy()))[None]
    assert found.shape == (1, 1024, *(-(-n // d) for n, d in zip(size, (8, 32, 32), strict=True)))
    assert relative(exact, expected) < 1e-12
    print(f"float32 rounding: {relative(found, expected):.1e}")
    assert relative(found, expected) < 1e-4
    assert relative(moved, found) > 1e-3  # the network does see its input


def symmetric(maps: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """k // 2 on both sides, as torch's ``padding=k // 2``; nothing for the pool of 2."""
    widths = [k // 2 if k % 2 else 0 for k in reversed(kernel) for _ in range(2)]
    return F.pad(maps, widths)


def torch_eps(network: I3D) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-5


def test_symmetric_padding_and_another_eps_would_show(
    net: I3D, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippets = smooth(net.Conv3d_1a_7x7.conv3d.in_channels, 16, 64, 64)
    with torch.inference_mode():
        right = net.features(snippets)
        with monkeypatch.context() as patch:
            patch.setattr(i3d, "pad_same", symmetric)
            padded = net.features(snippets)
        other = I3D(snippets.shape[1]).eval()
        other.load_state_dict(net.state_dict())
        torch_eps(other)
        narrower = other.features(snippets)
    assert padded.shape == right.shape
    print(f"symmetric {relative(padded, right):.2f}, eps 1e-5 {relative(narrower, right):.4f}")
    assert relative(padded, right) > 0.1
    assert relative(narrower, right) > 1e-3


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "pads"),
    [
        (16, 7, 2, (2, 3)),
        (17, 7, 2, (3, 3)),
        (56, 3, 2, (0, 1)),
        (57, 3, 2, (1, 1)),
        (14, 2, 2, (0, 0)),
        (7, 2, 2, (0, 1)),
        (5, 3, 1, (1, 1)),
        (4, 1, 1, (0, 0)),
    ],
)
def test_padding(length: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    maps = torch.ones(1, 1, 2, length, 3)
    padded = i3d.pad_same(maps, (1, kernel, 1), (1, stride, 1))
    front, back = pads
    assert padded[0, 0, 0, :, 0].tolist() == [0.0] * front + [1.0] * length + [0.0] * back
    assert (padded is maps) == (pads == (0, 0))


def test_feature_is_the_published_pool(net: I3D) -> None:
    snippets = smooth(net.Conv3d_1a_7x7.conv3d.in_channels, 16, 224, 224)
    with torch.inference_mode():
        rows, last = net(snippets), net.features(snippets)
    assert rows.shape == (1, 1024)
    assert last.shape == (1, 1024, 2, 7, 7)
    assert relative(rows, last.mean((2, 3, 4))) < 1e-6
    assert rows.min() >= 0


@pytest.mark.parametrize(("frames", "steps"), [(9, 1), (16, 1), (17, 2), (24, 2), (64, 7)])
def test_longer_snippets_give_the_mean_of_the_steps(
    frames: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = I3D(3)
    last = torch.rand(2, 1024, steps + 1, 7, 7)
    assert -(-frames // 8) == steps + 1
    monkeypatch.setattr(network, "features", lambda snippets: last)
    per_step = [last[:, :, k : k + 2].mean((2, 3, 4)) for k in range(steps)]
    rows = network(torch.empty(2, 3, frames, 224, 224))
    torch.testing.assert_close(rows, torch.stack(per_step).mean(0))


@pytest.mark.parametrize(
    ("size", "named"),
    [((8, 224, 224), "T = 8 "), ((1, 224, 224), "T = 1 "), ((16, 192, 224), "192 x 224")],
)
def test_too_small_snippets_are_refused(size: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        I3D(3)(torch.empty(1, 3, *size))


def hsi3d_key(key: str) -> str:
    """The name that hassony2/kinetics_i3d_pytorch has for one of ours."""
    unit, _, kind = key.rpartition(".conv3d.")
    layer = "conv3d"
    if not unit:
        unit, _, kind = key.rpartition(".bn.")
        layer = "batch3d"
    if unit == "logits":
        unit = "conv3d_0c_1x1"
    module, _, branch = unit.partition(".")
    place = f"{module.lower()}.branch_{BRANCHES[branch]}" if branch else module.lower()
    return f"{place}.{layer}.{kind}"


@pytest.fixture
def published() -> State:
    state = {"logits.conv3d.weight": torch.rand(400, 1024, 1, 1, 1)}
    state["logits.conv3d.bias"] = torch.rand(400)
    return {**state, **I3D(2).state_dict()}


def test_hsi3d_names_map_one_to_one(published: State) -> None:
    theirs = {hsi3d_key(key): value for key, value in published.items()}
    assert len(theirs) == len(published) == 344
    for key in (
        "conv3d_1a_7x7.batch3d.running_var",
        "conv3d_2c_3x3.conv3d.weight",
        "mixed_3b.branch_0.conv3d.weight",
        "mixed_4d.branch_2.1.batch3d.bias",
        "mixed_5c.branch_3.1.conv3d.weight",
        "conv3d_0c_1x1.conv3d.bias",
    ):
        assert key in theirs
    renamed = from_hsi3d(theirs)
    assert list(renamed) == list(published)
    assert all(renamed[key] is published[key] for key in published)


def test_pgi3d_names_are_left_alone(published: State) -> None:
    kept = from_hsi3d(published)
    assert list(kept) == list(published)
    del kept["logits.conv3d.weight"], kept["logits.conv3d.bias"]
    I3D(2).load_state_dict(kept)
    assert from_hsi3d({"fc.weight": torch.ones(1)}) == {"fc.weight": torch.ones(1)}


def test_two_streams_are_rgb_then_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(value: float) -> Callable[[Tensor], Tensor]:
        return lambda snippets: torch.full((len(snippets), 1024), value) + snippets.sum()

    network = TwoStream()
    assert sum(p.numel() for p in network.parameters()) == 12_287_264 + 12_265_312
    seen: dict[str, Any] = {"rgb": fake(1000.0), "flow": fake(2000.0)}
    for name, forward in seen.items():
        monkeypatch.setattr(getattr(network, name), "forward", forward)
    snippets = torch.tensor([1.0, 2, 3, 40, 50]).reshape(1, 5, 1, 1, 1)
    rows = network(snippets)
    assert rows.shape == (1, 2048)
    assert rows[0, [0, 1023, 1024, 2047]].tolist() == [1006.0, 1006.0, 2090.0, 2090.0]
