"""Keras files, written in the published layouts, to torch state dicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision.models as tvm
from torch import Tensor, nn

from avfeat.errors import WeightsError
from avfeat.extract.backbones.nets.keras_order import (
    is_keras,
    keras_to_torch,
    layers_of,
    openl3_audio,
    openl3_image,
    vgg19,
)
from avfeat.extract.backbones.nets.openl3 import OpenL3Audio, OpenL3Image

State = dict[str, Tensor]
Layers = dict[str, dict[str, np.ndarray]]

ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
OPENL3_CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def openl3_layers(n_in: int, last: str, *, first: int = 1) -> Layers:
    """A tower's layers as openl3 saved them, those without weights included.

    The counters in Keras' names go on from whatever the session had built before.
    """
    rng = np.random.default_rng(n_in)

    def norm(n: int) -> dict[str, np.ndarray]:
        return {role: rng.normal(size=n).astype(np.float32) for role in ROLES}

    layers: Layers = {"input_1": {}, f"batch_normalization_{first}": norm(n_in)}
    for number, n_out in enumerate(OPENL3_CHANNELS):
        name = last if number == 7 else f"conv2d_{first + number}"
        layers[name] = {
            "kernel": rng.normal(size=(3, 3, n_in, n_out)).astype(np.float32),
            "bias": rng.normal(size=n_out).astype(np.float32),
        }
        if number < 7:
            layers[f"batch_normalization_{first + number + 1}"] = norm(n_out)
            layers[f"activation_{first + number}"] = {}
        if number in (1, 3, 5):
            layers[f"max_pooling2d_{number}"] = {}
        n_in = n_out
    return layers


def vgg19_layers(*, top: bool) -> Layers:
    """VGG19 with the weight names of Keras 1, which wrote the published files.

    The dense layers are small here; nobody reads them.
    """
    rng = np.random.default_rng(19)
    layers: Layers = {"input_1": {}}
    n_in = 3
    for block, (n_out, convolutions) in enumerate(VGG19_BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            kernel = rng.standard_normal((3, 3, n_in, n_out), np.float32)
            layers[name] = {f"{name}_W_1": kernel, f"{name}_b_1": kernel[0, 0, 0].copy()}
            n_in = n_out
        layers[f"block{block}_pool"] = {}
    if top:
        layers["flatten"] = {}
        for name in ("fc1", "fc2", "predictions"):
            layers[name] = {f"{name}_W_1": np.ones((4, 4)), f"{name}_b_1": np.ones(4)}
    return layers


def write_h5(path: Path, layers: Layers, *, scoped: bool) -> Path:
    """Write as Keras' ``save_weights`` does; Keras 2 repeats the layer's name in the weight's."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.asarray([name.encode() for name in layers])
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for name, weights in layers.items():
            group = file.create_group(name)
            names = [f"{name}/{weight}:0" if scoped else f"{weight}:0" for weight in weights]
            group.attrs["weight_names"] = np.asarray([weight.encode() for weight in names])
            for weight, array in zip(names, weights.values(), strict=True):
                group[weight] = array
    return path


def read_h5(path: Path) -> State:
    state = {}
    with h5py.File(path) as file:
        for layer in map(bytes.decode, file.attrs["layer_names"]):
            for weight in map(bytes.decode, file[layer].attrs["weight_names"]):
                state[f"{layer}/{weight}"] = torch.from_numpy(file[layer][weight][()])
    return state


def flat(layers: Layers) -> State:
    return {
        f"{layer}/{weight}:0": torch.from_numpy(array)
        for layer, weights in layers.items()
        for weight, array in weights.items()
    }


TOWERS = [
    pytest.param(
        *(openl3_audio, lambda: OpenL3Audio("linear", 6144), 1, "audio_embedding_layer"), id="audio"
    ),
    pytest.param(*(openl3_image, OpenL3Image, 3, "vision_embedding_layer"), id="image"),
]
tower = pytest.mark.parametrize(("convert", "build", "n_in", "last"), TOWERS)


@tower
@pytest.mark.parametrize("first", [1, 9])
def test_openl3_files_load_by_order(
    convert: Callable[[State], State],
    build: Callable[[], nn.Module],
    n_in: int,
    last: str,
    first: int,
    tmp_path: Path,
) -> None:
    layers = openl3_layers(n_in, last, first=first)
    state = read_h5(write_h5(tmp_path / "weights.h5", layers, scoped=True))
    assert len(state) == 48 and is_keras(state)

    found = convert(state)

    net = build()
    net.load_state_dict(found)  # every key is there, with its shape
    assert list(found) == [k for k in net.state_dict() if "num_batches" not in k]
    assert not is_keras(found)
    kept = [weights for weights in layers.values() if weights]
    modules = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for weights, module in zip(kept, modules, strict=True):
        if isinstance(module, nn.Conv2d):
            # [height, width, in, out] looked up one by one
            for out, inside, y, x in [(0, 0, 0, 0), (63, n_in - 1, 2, 0), (5, 0, 0, 1)]:
                assert module.weight[out, inside, y, x] == weights["kernel"][y, x, inside, out]
            assert module.weight.is_contiguous()
            np.testing.assert_array_equal(module.bias.detach(), weights["bias"])
        else:
            ours = (module.weight, module.bias, module.running_mean, module.running_var)
            for role, value in zip(ROLES, ours, strict=True):
                np.testing.assert_array_equal(value.detach(), weights[role])


@tower
def test_there_and_back(
    convert: Callable[[State], State], build: Callable[[], nn.Module], n_in: int, last: str
) -> None:
    state = build().state_dict()
    keras: State = {}
    for name, module in build().named_modules():
        if isinstance(module, nn.Conv2d):
            keras[f"{name}/kernel:0"] = state[f"{name}.weight"].permute(2, 3, 1, 0)
            keras[f"{name}/bias:0"] = state[f"{name}.bias"]
        elif isinstance(module, nn.BatchNorm2d):
            names = ("weight", "bias", "running_mean", "running_var")
            keras |= {
                f"{name}/{r}:0": state[f"{name}.{n}"] for r, n in zip(ROLES, names, strict=True)
            }
    for key, value in convert(keras).items():
        assert torch.equal(value, state[key])


def test_torchopenl3_checkpoints_map() -> None:
    """59 tensors: ours, and the DFT and mel matrices of its spectrogram layer."""
    net = OpenL3Audio("mel256", 512)
    state = {
        "speclayer.dft_real_kernels": torch.zeros(1025, 1, 2048),
        "speclayer.dft_imag_kernels": torch.zeros(1025, 1, 2048),
        "speclayer.mel_basis": torch.zeros(256, 1025),
    } | net.state_dict()
    assert len(state) == 59
    assert {k for k in state if k.endswith(".num_batches_tracked")} == {
        f"batch_normalization_{number}.num_batches_tracked" for number in range(1, 9)
    }
    assert {f"conv2d_{number}.weight" for number in range(1, 8)} < state.keys()
    assert {"audio_embedding_layer.weight", "audio_embedding_layer.bias"} < state.keys()

    found = openl3_audio(state)

    assert found.keys() == net.state_dict().keys()
    assert all(found[key] is state[key] for key in found)


@pytest.mark.parametrize("convert", [openl3_audio, openl3_image, vgg19])
def test_torch_layouts_pass_through(convert: Callable[[State], State]) -> None:
    state = {"features.0.weight": torch.ones(2), "features.0.bias": torch.ones(3)}
    assert not is_keras(state) and not is_keras({})
    found = convert(state)
    assert found == state and found is not state


@pytest.mark.parametrize("top", [False, True], ids=["no-top", "full"])
@pytest.mark.parametrize("scoped", [False, True], ids=["keras1", "keras2"])
def test_vgg19_files_load_by_name(top: bool, scoped: bool, tmp_path: Path) -> None:
    layers = vgg19_layers(top=top)
    if scoped:
        for name, weights in layers.items():
            layers[name] = dict(zip(("kernel", "bias"), weights.values(), strict=False))
        layers = dict(reversed(layers.items()))  # by name: the order has no say
    state = read_h5(write_h5(tmp_path / "vgg19.h5", layers, scoped=scoped))
    assert len(state) == (38 if top else 32)

    found = vgg19(state)

    with torch.device("meta"):
        net = tvm.vgg19(weights=None, init_weights=False)
    own = {k: v for k, v in net.state_dict().items() if k.startswith("features.")}
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in own.items()}
    convolutions = [i for i, module in enumerate(net.features) if isinstance(module, nn.Conv2d)]
    names = [
        f"block{b}_conv{n}" for b, (_, m) in enumerate(VGG19_BLOCKS, 1) for n in range(1, m + 1)
    ]
    for index, name in zip(convolutions, names, strict=True):
        kernel, bias = layers[name].values()
        np.testing.assert_array_equal(found[f"features.{index}.weight"].permute(2, 3, 1, 0), kernel)
        np.testing.assert_array_equal(found[f"features.{index}.bias"], bias)


@pytest.fixture(scope="module")
def audio_file() -> State:
    return flat(openl3_layers(1, "audio_embedding_layer"))


def without_last(state: State) -> State:
    return dict(list(state.items())[:-1])


def beta_first(state: State) -> State:
    """As a reader would find them that lists a file instead of reading ``weight_names``."""
    gamma, beta, *others = state
    return {key: state[key] for key in (beta, gamma, *others)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda s: s | {"conv2d_2/kernel:0": torch.zeros(3, 3, 64, 32)},
            r"array 11 of 48, 'conv2d_2/kernel:0', is \[3, 3, 64, 32\] where conv2d_2.weight needs "
            r"\[3, 3, 64, 64\]",
            id="kernel",
        ),
        pytest.param(
            lambda s: s | {"batch_normalization_3/moving_mean:0": torch.zeros(63)},
            r"array 15 of 48, 'batch_normalization_3/moving_mean:0', is \[63\] where "
            r"batch_normalization_3.running_mean needs \[64\]",
            id="statistic",
        ),
        pytest.param(
            lambda _: flat(openl3_layers(3, "vision_embedding_layer")),
            r"array 1 of 48, 'batch_normalization_1/gamma:0', is \[3\]",
            id="other tower",
        ),
        pytest.param(
            without_last, "ends after 47 of 48 arrays.*for audio_embedding_layer.bias", id="short"
        ),
        pytest.param(
            lambda s: s | {"dense_1/kernel:0": torch.ones(2)},
            "array 49 of 49, 'dense_1/kernel:0', is one too many: the network has 48",
            id="long",
        ),
        pytest.param(
            lambda _: {"dense/kernel:0": torch.ones(2, 2)},
            "array 1 of 1, 'dense/kernel:0', is a kernel where",
            id="dense",
        ),
        # Equal shapes in another order: only the name tells.
        pytest.param(
            beta_first,
            "array 1 of 48, 'batch_normalization_1/beta:0', is a beta where batch_normalization_1"
            ".weight needs the gamma",
            id="order",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_position(
    audio_file: State, change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        openl3_audio(change(audio_file))


def test_a_name_that_tells_nothing_is_judged_by_its_shape(audio_file: State) -> None:
    renamed = {f"layer/{number}": value for number, value in enumerate(audio_file.values())}
    found, expected = openl3_audio(renamed), openl3_audio(audio_file)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("block3_conv4/block3_conv4_b_1:0"), "block3_conv4 has 1 arrays instead"),
        (
            lambda s: s.update({"block5_conv1/block5_conv1_b_1:0": torch.ones(3)}),
            r"array 26 of 32, 'block5_conv1/block5_conv1_b_1:0', is \[3\] where features.28.bias",
        ),
        (
            lambda s: s.update({"block6_conv1/block6_conv1_W_1:0": torch.ones(3)}),
            "array 33 of 33, 'block6_conv1/block6_conv1_W_1:0', belongs to no layer of VGG19",
        ),
    ],
)
def test_vgg19_files_that_do_not_fit_are_refused(
    change: Callable[[State], object], message: str
) -> None:
    state = flat(vgg19_layers(top=False))
    change(state)
    with pytest.raises(WeightsError, match=message):
        vgg19(state)


def test_any_network_of_convolutions_and_norms_can_be_described() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, (1, 3)), nn.ReLU(), nn.BatchNorm2d(4))
    keras = {
        "c/kernel:0": torch.arange(24.0).reshape(1, 3, 2, 4),
        "c/bias:0": torch.arange(4.0),
    } | {f"n/{role}:0": torch.full((4,), float(i)) for i, role in enumerate(ROLES)}
    net.load_state_dict(keras_to_torch(keras, layers_of(net)))
    kernel = net[0].weight
    assert kernel[3, 1, 0, 2] == keras["c/kernel:0"][0, 2, 1, 3]
