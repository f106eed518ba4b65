"""Keras weights to torch state dicts: in order of layers, or by the layers' names.

Keras loads an .h5 file by position: the n-th array is the n-th weight of the model, whatever it is
called (layer names carry counters that depend on what else the session had built). Only VGG19's
layers have names of their own, and its two files differ in what follows the convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avfeat.errors import WeightsError
from avfeat.extract.backbones.nets.openl3 import OpenL3Audio, OpenL3Image

State = dict[str, Tensor]

# What Keras keeps of a layer, in its order, and torch's name for it.
_WEIGHTS = {
    "conv": {"kernel": "weight", "bias": "bias"},
    "norm": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
}
_ROLES = frozenset(role for weights in _WEIGHTS.values() for role in weights)
# Keras 1, which wrote the files of VGG19, called them block1_conv1_W_1:0 and block1_conv1_b_1:0.
_OLD_NAME = re.compile(r"_(W|b)(_\d+)?$")
_OLD_ROLES = {"W": "kernel", "b": "bias"}
_VGG19_TOP = frozenset({"fc1", "fc2", "predictions"})


@dataclass(frozen=True)
class Layer:
    """A layer with weights in a torch network: its name, its kind and its weight's torch shape."""

    name: str
    kind: Literal["conv", "norm"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Target:
    """One array that a file must hold: Keras' word for it, torch's key, its shape in Keras."""

    role: str
    key: str
    shape: tuple[int, ...]


def is_keras(state: Mapping[str, Tensor]) -> bool:
    """Tell Keras' ``layer/weight`` from torch's ``module.parameter``.

    Examples
    --------
    >>> import torch
    >>> is_keras({"conv2d_1/kernel:0": torch.ones(3, 3, 1, 64)})
    True
    >>> is_keras({"conv2d_1.weight": torch.ones(64, 1, 3, 3)})
    False
    """
    return bool(state) and all("/" in key for key in state)


def layers_of(net: nn.Module) -> tuple[Layer, ...]:
    """List a network's convolutions and batch norms in the order in which they were registered."""
    layers = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            layers.append(Layer(name, "conv", tuple(module.weight.shape)))
        elif isinstance(module, nn.BatchNorm2d):
            layers.append(Layer(name, "norm", (module.num_features,)))
    return tuple(layers)


def keras_to_torch(state: Mapping[str, Tensor], layers: Sequence[Layer]) -> State:
    """Map arrays to layers by position, as Keras itself does.

    Parameters
    ----------
    state
        ``<layer>/<weight>`` (any slashes between) to array, in the order of the file's
        ``layer_names`` and ``weight_names``. Kernels are ``[height, width, in, out]``.
    layers
        The network's layers in Keras' order; see `layers_of`.

    Returns
    -------
    dict
        torch's keys, kernels as contiguous ``[out, in, height, width]``. Without
        ``num_batches_tracked``, which Keras does not count.

    Raises
    ------
    WeightsError
        An array has another shape, or by its name another meaning, than the layer at its position
        needs, or there are too few or too many; the first such is named with its position.
    """
    targets = [target for layer in layers for target in _targets(layer)]
    found: State = {}
    for position, (key, target) in enumerate(zip(state, targets, strict=False), start=1):
        place = f"array {position} of {len(state)}"
        found[target.key] = _converted(place, key, state[key], target)
    if len(state) < len(targets):
        raise WeightsError(
            f"the file ends after {len(state)} of {len(targets)} arrays: there is none for "
            f"{targets[len(state)].key}"
        )
    if len(state) > len(targets):
        raise WeightsError(
            f"array {len(targets) + 1} of {len(state)}, {list(state)[len(targets)]!r}, is one too "
            f"many: the network has {len(targets)}"
        )
    return found


def openl3_audio(state: Mapping[str, Tensor]) -> State:
    """Weights of `OpenL3Audio` from an openl3 .h5 file or a torchopenl3 checkpoint.

    They are the same for all embedding sizes. The constants of the spectrogram, which
    torchopenl3 keeps under ``speclayer.``, are left out.

    Raises
    ------
    WeightsError
        As `keras_to_torch`. What has torch's layout is not checked.
    """
    return _openl3(state, lambda: OpenL3Audio("mel256", 512))


def openl3_image(state: Mapping[str, Tensor]) -> State:
    """Weights of `OpenL3Image` from an openl3 .h5 file; torch's layout passes through.

    Raises
    ------
    WeightsError
        As `keras_to_torch`.
    """
    return _openl3(state, lambda: OpenL3Image(512))


def vgg19(state: Mapping[str, Tensor]) -> State:
    """Convolutions of torchvision's ``vgg19`` from Keras' full or no-top file, by layer names.

    These are Caffe's weights: they want BGR pictures, 0 to 255 minus the mean. The three dense
    layers are left out; torch's layout passes through.

    Raises
    ------
    WeightsError
        A layer is missing, unknown, or has an array of another shape.
    """
    if not is_keras(state):
        return dict(state)
    layers = _vgg19_layers()
    places = {key: f"array {position} of {len(state)}" for position, key in enumerate(state, 1)}
    arrays: dict[str, list[str]] = {}
    for key in state:
        arrays.setdefault(key.partition("/")[0], []).append(key)
    for name, keys in arrays.items():
        if name not in layers and name not in _VGG19_TOP:
            raise WeightsError(f"{places[keys[0]]}, {keys[0]!r}, belongs to no layer of VGG19")
    found: State = {}
    for name, layer in layers.items():
        keys, targets = arrays.get(name, []), _targets(layer)
        if len(keys) != len(targets):
            raise WeightsError(f"layer {name} has {len(keys)} arrays instead of {len(targets)}")
        for key, target in zip(keys, targets, strict=True):
            found[target.key] = _converted(places[key], key, state[key], target)
    return found


def _openl3(state: Mapping[str, Tensor], network: Callable[[], nn.Module]) -> State:
    if not is_keras(state):
        return {key: value for key, value in state.items() if not key.startswith("speclayer.")}
    with torch.device("meta"):  # the layers' names and shapes, no memory
        layers = layers_of(network())
    return keras_to_torch(state, layers)


def _vgg19_layers() -> dict[str, Layer]:
    """Keras' names of the convolutions, and where torchvision has them."""
    layers, index, n_in = {}, 0, 3
    for block, (n_out, convolutions) in enumerate(
        [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)], start=1
    ):
        for number in range(1, convolutions + 1):
            shape = (n_out, n_in, 3, 3)
            layers[f"block{block}_conv{number}"] = Layer(f"features.{index}", "conv", shape)
            index, n_in = index + 2, n_out  # a ReLU lies between
        index += 1  # the pooling
    return layers


def _targets(layer: Layer) -> list[_Target]:
    out = layer.shape[:1]
    return [
        _Target(role, f"{layer.name}.{name}", _keras_shape(layer) if role == "kernel" else out)
        for role, name in _WEIGHTS[layer.kind].items()
    ]


def _keras_shape(layer: Layer) -> tuple[int, ...]:
    n_out, n_in, *window = layer.shape
    return (*window, n_in, n_out)


def _converted(place: str, key: str, array: Tensor, target: _Target) -> Tensor:
    role = _role(key)
    if role not in (None, target.role):
        # Same shapes everywhere in a batch norm: only the name shows that a reader lost the order.
        raise WeightsError(
            f"{place}, {key!r}, is a {role} where {target.key} needs the {target.role}: the arrays "
            "are not in the order of Keras, or of another network"
        )
    if tuple(array.shape) != target.shape:
        raise WeightsError(
            f"{place}, {key!r}, is {list(array.shape)} where {target.key} needs "
            f"{list(target.shape)}: the file is of another network"
        )
    return array.permute(3, 2, 0, 1).contiguous() if target.role == "kernel" else array


def _role(key: str) -> str | None:
    """What an array is by its name, None where the name does not tell."""
    name = key.rpartition("/")[2].partition(":")[0]
    if old := _OLD_NAME.search(name):
        return _OLD_ROLES[old[1]]
    return name if name in _ROLES else None
