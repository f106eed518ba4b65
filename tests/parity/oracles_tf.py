"""TensorFlow's side of the parity tests, run by the Python of `.venv-parity`.

``python oracles_tf.py NETWORK FOLDER`` reads ``state.npz`` (a torch state dict with the key names
that the published torch files have) and ``inputs.npz`` from the folder. It builds the network from
its published description in Keras or plain TensorFlow, gives it those weights by a mapping written
here, and leaves behind

* ``outputs.npz``: what the network and the original front ends make of the inputs,
* ``weights.h5``, for networks that are published as Keras files: written by Keras itself,
* ``versions.json``: the libraries that took part.

Nothing of avfeat is imported: this is the other side of the comparison.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import librosa
import numpy as np
import tensorflow as tf
from kapre.composed import get_melspectrogram_layer, get_stft_magnitude_layer
from numpy.typing import NDArray
from tensorflow.keras import Model, layers
from tensorflow.keras.applications.vgg19 import VGG19, preprocess_input

Array = NDArray[np.generic]
Arrays = dict[str, Array]

NORM = (
    "weight",
    "bias",
    "running_mean",
    "running_var",
)  # Keras' order: gamma, beta, mean, variance


def channels_last(maps: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(maps, 1, -1))


def set_weights(model: Model, state: Arrays, names: Iterator[str]) -> None:
    """Fill a Keras model layer by layer; ``names`` are torch's, in Keras' order of layers."""
    for layer in model.layers:
        if not layer.weights:
            continue
        name = next(names)
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([state[f"{name}.{kind}"] for kind in NORM])
        else:  # [out, in, height, width] to [height, width, in, out]
            kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
            layer.set_weights([kernel, state[f"{name}.bias"]])
    assert next(names, None) is None


# OpenL3: openl3/models.py of marl/openl3. Both towers are the same but for one pair of layers.


def openl3_tower(shape: tuple[int, int, int], last: str, *, swapped: bool) -> Model:
    inputs = layers.Input(shape)
    maps = layers.BatchNormalization()(inputs)
    for block, channels in enumerate((64, 128, 256, 512), start=1):
        maps = layers.Conv2D(channels, 3, padding="same")(maps)
        maps = layers.BatchNormalization()(maps)
        maps = layers.Activation("relu")(maps)
        if block == 4:
            break
        maps = layers.Conv2D(channels, 3, padding="same")(maps)
        # Only the first block of the image tower has its batch norm behind the ReLU.
        if swapped and block == 1:
            maps = layers.Activation("relu")(maps)
            maps = layers.BatchNormalization()(maps)
        else:
            maps = layers.BatchNormalization()(maps)
            maps = layers.Activation("relu")(maps)
        maps = layers.MaxPooling2D(2, strides=2)(maps)
    return Model(inputs, layers.Conv2D(512, 3, padding="same", name=last)(maps))


def openl3_names(last: str) -> Iterator[str]:
    """torchopenl3's names in Keras' order, in which batch norm and convolution alternate."""
    for number in range(1, 9):
        yield f"batch_normalization_{number}"
        yield last if number == 8 else f"conv2d_{number}"


def pooled(maps: Array, window: tuple[int, int]) -> Array:
    """As openl3 sizes an embedding: max-pool, then flatten with the channels fastest."""
    pool = layers.MaxPooling2D(window, padding="same")(tf.constant(maps))
    return layers.Flatten()(pool).numpy()


def openl3(representation: str, state: Arrays, given: Arrays, folder: Path) -> Arrays:
    shapes = {"linear": (257, 197), "mel128": (128, 199), "mel256": (256, 199)}
    windows = {"512": (16, 24), "6144": (4, 8)}
    if representation != "mel128":
        windows = {size: (2 * height, width) for size, (height, width) in windows.items()}
    model = openl3_tower((*shapes[representation], 1), "audio_embedding_layer", swapped=False)
    set_weights(model, state, openl3_names("audio_embedding_layer"))
    model.save_weights(folder / "weights.h5")
    found: Arrays = {}
    for what in ("input", "moved"):
        maps = model.predict(channels_last(given[what]), verbose=0)
        found |= {f"{what}/{size}": pooled(maps, window) for size, window in windows.items()}
    waves = given["items"].astype(np.float64)
    found["front_end/a"] = np.stack([kapre_0_1_4(wave, representation) for wave in waves])
    found["front_end/b"] = kapre_0_3(waves, representation, "float64")
    found["front_end/b_float32"] = kapre_0_3(waves, representation, "float32")
    found["front_end/c"] = np.stack([by_librosa(wave, representation) for wave in waves])
    return found


RATE, HOP = 48_000, 242
BANDS = {"mel128": 128, "mel256": 256}


def below_maximum(amplitudes: Array) -> Array:
    """Ten times the logarithm of an amplitude, down to 80 below the maximum of the window."""
    levels = 10 * np.log10(np.maximum(amplitudes, 1e-10))
    return np.maximum(levels - levels.max(), -80.0)


def kapre_0_1_4(wave: Array, representation: str) -> Array:
    """kapre 0.1.4 needs a TensorFlow of 2019, so its definition in numpy.

    Convolution with Hann-windowed sines; mel maps pad as TensorFlow's ``same``, filter the power
    spectrum with HTK triangles of equal area, and take the square root.
    """
    n_fft = 512 if representation == "linear" else 2048
    if representation != "linear":
        missing = (-(-len(wave) // HOP) - 1) * HOP + n_fft - len(wave)
        wave = np.pad(wave, (missing // 2, missing - missing // 2))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    starts = range(0, len(wave) - n_fft + 1, HOP)
    spectrum = np.stack([np.fft.rfft(hann * wave[s : s + n_fft]) for s in starts], axis=1)
    if representation == "linear":
        return below_maximum(np.abs(spectrum))
    mel = librosa.filters.mel(
        sr=RATE, n_fft=n_fft, n_mels=BANDS[representation], htk=True, dtype=np.float64
    )
    return below_maximum(np.sqrt(mel @ np.abs(spectrum) ** 2))


def kapre_0_3(waves: Array, representation: str, dtype: str) -> Array:
    """kapre's own layers, with the arguments that openl3 0.4 gives them.

    kapre works in Keras' default type. In double precision its rounding does not blur the
    comparison; in float32 it is what users of openl3 get.
    """
    tf.keras.backend.set_floatx(dtype)
    try:
        common = {
            "input_shape": (1, RATE),
            "hop_length": HOP,
            "return_decibel": False,
            "input_data_format": "channels_first",
            "output_data_format": "channels_last",
        }
        if representation == "linear":
            layer = get_stft_magnitude_layer(n_fft=512, **common)
        else:
            layer = get_melspectrogram_layer(
                n_fft=2048, n_mels=BANDS[representation], sample_rate=RATE, pad_end=True, **common
            )
        maps = layer(tf.constant(waves[:, None], dtype)).numpy()  # [N, time, frequency, 1]
    finally:
        tf.keras.backend.set_floatx("float32")
    return np.stack([below_maximum(rows[..., 0].T) for rows in maps])


def by_librosa(wave: Array, representation: str) -> Array:
    """``frontend="librosa"`` of openl3 0.4."""
    if representation == "linear":
        amplitudes = np.abs(librosa.stft(wave, n_fft=512, hop_length=HOP, center=False))
    else:
        amplitudes = librosa.feature.melspectrogram(
            y=wave,
            sr=RATE,
            n_mels=BANDS[representation],
            n_fft=2048,
            hop_length=HOP,
            center=True,
            power=1.0,
            dtype=np.float64,
        )
    levels = librosa.power_to_db(amplitudes, ref=1.0, amin=1e-10, top_db=80.0)
    return levels - levels.max()


def openl3_image(state: Arrays, given: Arrays, folder: Path) -> Arrays:
    model = openl3_tower((224, 224, 3), "vision_embedding_layer", swapped=True)
    set_weights(model, state, openl3_names("vision_embedding_layer"))
    model.save_weights(folder / "weights.h5")
    found: Arrays = {}
    for what in ("input", "moved"):
        maps = model.predict(channels_last(given[what]), verbose=0)
        found |= {f"{what}/512": pooled(maps, (28, 28)), f"{what}/8192": pooled(maps, (7, 7))}
        found[f"{what}/map"] = maps
    return found


# VGG19: the application of Keras that AVE took its features from.


def vgg19(state: Arrays, given: Arrays, folder: Path, *, top: bool) -> Arrays:
    model = VGG19(weights=None, include_top=top, input_shape=(224, 224, 3))
    # torchvision counts ReLUs and pools as well.
    places, index = [], 0
    for convolutions in (2, 2, 4, 4, 4):
        places += [f"features.{index + 2 * number}" for number in range(convolutions)]
        index += 2 * convolutions + 1
    convolutional = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    for layer, name in zip(convolutional, places, strict=True):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        layer.set_weights([kernel, state[f"{name}.bias"]])
    model.save_weights(folder / "weights.h5")
    features = Model(model.input, model.get_layer("block5_pool").output)
    found = {
        f"{what}/map": features.predict(channels_last(given[what]), verbose=0)
        for what in ("input", "moved")
    }
    pictures = preprocess_input(given["items"].astype(np.float32))
    return {**found, "front_end/caffe": np.moveaxis(pictures, -1, 1)}


# VGGish: vggish_slim.py of TensorFlow models (research/audioset), NHWC, with its variables' names.


def vggish(state: Arrays, given: Arrays, _: Path) -> Arrays:
    convolutions = ["conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2"]
    convolutions += ["conv4/conv4_1", "conv4/conv4_2"]
    dense = ["fc1/fc1_1", "fc1/fc1_2", "fc2"]
    variables: dict[str, tf.Variable] = {}
    for name, index in zip(convolutions, (0, 3, 6, 8, 11, 13), strict=True):
        kernel = state[f"features.{index}.weight"].transpose(2, 3, 1, 0)
        variables[f"vggish/{name}/weights"] = tf.Variable(kernel)
        variables[f"vggish/{name}/biases"] = tf.Variable(state[f"features.{index}.bias"])
    for name, index in zip(dense, (0, 2, 4), strict=True):
        variables[f"vggish/{name}/weights"] = tf.Variable(state[f"embeddings.{index}.weight"].T)
        variables[f"vggish/{name}/biases"] = tf.Variable(state[f"embeddings.{index}.bias"])

    def affine(op: Callable[..., tf.Tensor], values: tf.Tensor, name: str, **how: str) -> tf.Tensor:
        weights, biases = (variables[f"vggish/{name}/{kind}"] for kind in ("weights", "biases"))
        return op(values, weights, **how) + biases

    def embed(examples: Array) -> tf.Tensor:
        maps = tf.constant(channels_last(examples))
        for name in convolutions:
            maps = tf.nn.relu(affine(tf.nn.conv2d, maps, name, strides=1, padding="SAME"))
            if name not in ("conv3/conv3_1", "conv4/conv4_1"):
                maps = tf.nn.max_pool2d(maps, 2, 2, "SAME")
        rows = tf.reshape(maps, (len(examples), -1))
        for name in dense[:-1]:
            rows = tf.nn.relu(affine(tf.matmul, rows, name))
        return affine(tf.matmul, rows, dense[-1])

    found: Arrays = {}
    for what in ("input", "moved"):
        before = embed(given[what])
        found |= {f"{what}/pre": before.numpy(), f"{what}/relu": tf.nn.relu(before).numpy()}
    return found


# I3D: i3d.py of google-deepmind/kinetics-i3d, with TensorFlow's own SAME padding.

MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def i3d(state: Arrays, given: Arrays, _: Path) -> Arrays:
    def unit(maps: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        kernel = state[f"{name}.conv3d.weight"].transpose(2, 3, 4, 1, 0)  # [T, H, W, in, out]
        maps = tf.nn.conv3d(maps, kernel, [1, stride, stride, stride, 1], "SAME")
        gamma, beta, mean, variance = (state[f"{name}.bn.{kind}"] for kind in NORM)
        return tf.nn.relu(tf.nn.batch_normalization(maps, mean, variance, beta, gamma, 1e-3))

    def mixed(maps: tf.Tensor, name: str) -> tf.Tensor:
        around = tf.nn.max_pool3d(maps, 3, 1, "SAME")
        branches = [
            unit(maps, f"{name}.b0"),
            unit(unit(maps, f"{name}.b1a"), f"{name}.b1b"),
            unit(unit(maps, f"{name}.b2a"), f"{name}.b2b"),
            unit(around, f"{name}.b3b"),
        ]
        widths = [MIXED[name[-2:]][i] for i in (0, 2, 4, 5)]
        assert [branch.shape[-1] for branch in branches] == widths
        return tf.concat(branches, -1)

    def features(snippets: Array) -> tf.Tensor:
        maps = unit(tf.constant(channels_last(snippets)), "Conv3d_1a_7x7", 2)
        maps = tf.nn.max_pool3d(maps, (1, 3, 3), (1, 2, 2), "SAME")
        maps = unit(unit(maps, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
        maps = tf.nn.max_pool3d(maps, (1, 3, 3), (1, 2, 2), "SAME")
        for before, name in pairwise(("", *MIXED)):
            if (before, name) == ("3c", "4b"):
                maps = tf.nn.max_pool3d(maps, 3, 2, "SAME")
            elif (before, name) == ("4f", "5b"):
                maps = tf.nn.max_pool3d(maps, 2, 2, "SAME")
            maps = mixed(maps, f"Mixed_{name}")
        pool = tf.nn.avg_pool3d(maps, (2, 7, 7), 1, "VALID")
        return tf.reduce_mean(pool, (1, 2, 3))

    return {f"{what}/rows": features(given[what]).numpy() for what in ("input", "moved")}


def main(network: str, folder: Path) -> None:
    tf.config.threading.set_inter_op_parallelism_threads(1)
    state, given = (dict(np.load(folder / f"{name}.npz")) for name in ("state", "inputs"))
    family, _, option = network.partition(".")
    if family == "openl3":
        found = openl3(option, state, given, folder)
    elif family == "vgg19":
        found = vgg19(state, given, folder, top=option == "full")
    else:
        found = {"openl3_image": openl3_image, "vggish": vggish, "i3d": i3d}[family](
            state, given, folder
        )
    np.savez(folder / "outputs.npz", **found)
    packages = ("tensorflow-cpu", "keras", "kapre", "librosa", "numpy")
    (folder / "versions.json").write_text(json.dumps({name: version(name) for name in packages}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
