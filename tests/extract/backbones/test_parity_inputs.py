"""What goes into each network against the original pipelines, before any network is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import librosa
import numpy as np
import pretrainedmodels
import pytest
import torch
from av.video.reformatter import Interpolation
from munch import munchify
from numpy.typing import NDArray
from parity_cases import calibrated, noisy
from parity_record import record_input
from parity_tensorflow import QUESTIONS, ask
from PIL import Image
from pretrainedmodels.utils import TransformImage
from torch import Tensor
from torchvggish import vggish_input
from torchvision import transforms as tvt

from avfeat.extract import backbones, transforms
from avfeat.extract.backbones import AudioInput, VisualInput
from avfeat.extract.weights.random import smooth_items

Picture = NDArray[np.uint8]
Pipeline = Callable[[Picture], Tensor]

SIZES = [(240, 320), (240, 426), (256, 455), (1080, 1920), (640, 360), (90, 120)]


def picture(height: int, width: int) -> Picture:
    rng = np.random.default_rng(height + width)
    y, x = np.mgrid[0:height, 0:width]
    shading = 80 * np.sin(x / 23.0 + y / 31.0)[..., None] * np.array([1.0, -0.7, 0.5])
    edges = 60.0 * ((x // 11 + y // 7) % 2)[..., None]
    noise = rng.normal(0, 10, (height, width, 3))
    return np.clip(110 + shading + edges + noise, 0, 255).astype(np.uint8)


def cadene(name: str) -> Pipeline:
    """pretrainedmodels' own transform, with its own settings of the network."""
    settings = pretrainedmodels.pretrained_settings[name]["imagenet"]
    transform = TransformImage(munchify(settings))
    return lambda rgb: transform(Image.fromarray(rgb))


def torchvision(*steps: object) -> Pipeline:
    transform = tvt.Compose([*steps])
    return lambda rgb: transform(Image.fromarray(rgb))


def ave(rgb: Picture) -> Tensor:
    """cv2.resize, and Keras' preprocessing of the Caffe networks in numpy."""
    squashed = cv2.resize(rgb, (224, 224)).astype(np.float32)
    return torch.from_numpy(squashed[..., ::-1] - np.float32([103.939, 116.779, 123.68])).movedim(
        -1, 0
    )


def scaled(low: float, *steps: object) -> Pipeline:
    """White is 1 and black ``low``."""
    to_pixels = tvt.Compose([*steps])

    def pipeline(rgb: Picture) -> Tensor:
        pixels = np.asarray(to_pixels(Image.fromarray(rgb)), np.float64)
        return torch.from_numpy(pixels / 255 * (1 - low) + low).movedim(-1, 0)

    return pipeline


def squashed_by_ffmpeg(rgb: Picture) -> Tensor:
    """Squashed to 256 x 256 by FFmpeg's scaler, then cut as openl3 does."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        256, 256, interpolation=Interpolation.BICUBIC
    )
    top = 256 // 2 - 224 // 2
    pixels = frame.to_ndarray()[top : top + 224, top : top + 224]
    return torch.from_numpy(pixels.astype(np.float64) / 255).movedim(-1, 0)


# Grey levels; the pixels are the same bytes, and what is left is float32 arithmetic. Pillow's
# bicubic kernel is another one (a = -0.5) than FFmpeg's (-0.6), which is a deviation.
ALLOWED = {"openl3_image.compat": (5.0, 0.8)}
EXACT = (1e-3, 1e-3)

KINETICS = tvt.Normalize((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
CROPPED = (tvt.Resize(256), tvt.CenterCrop(224))
PIPELINES: dict[str, tuple[str, Pipeline]] = {
    **{
        name: ("pretrainedmodels: TransformImage", cadene(name))
        for name in ("polynet", "resnet152", "senet154", "vgg19_bn")
    },
    "r2plus1d_18": (
        "torchvision: transforms",
        torchvision(tvt.Resize((112, 112)), tvt.ToTensor(), KINETICS),
    ),
    "r2plus1d_18.tv": (
        "torchvision: transforms",
        torchvision(tvt.Resize((128, 171)), tvt.CenterCrop(112), tvt.ToTensor(), KINETICS),
    ),
    "vgg19.pool5": ("opencv-contrib-python-headless: resize, Keras' formula", ave),
    "openl3_image": ("torchvision: transforms, 2x - 1", scaled(-1.0, *CROPPED)),
    # What moviepy has ffmpeg do, but for the planes of YUV, of which these pictures know nothing.
    "openl3_image.compat": ("av: swscale's bicubic, x", squashed_by_ffmpeg),
    "i3d_rgb": ("torchvision: transforms, 2x - 1", scaled(-1.0, *CROPPED)),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pictures_equal_the_published_pipelines(name: str) -> None:
    backbone = backbones.get(name)
    spec = backbone.spec.input
    assert isinstance(spec, VisualInput)
    label, pipeline = PIPELINES[name]
    worst = []
    for size in SIZES:
        rgb = picture(*size)
        item = torch.from_numpy(transforms.apply(spec.geometry, rgb))
        found = backbone.to_input(item.expand(1, *spec.item_shape))
        assert found.is_contiguous() and found.dtype == torch.float32
        expected = pipeline(rgb)
        if spec.frames > 1:
            expected = expected[:, None].expand(-1, spec.frames, -1, -1)
        assert found[0].shape == expected.shape
        step = torch.tensor(spec.std).reshape(-1, *[1] * (expected.ndim - 1)) * 255 / spec.white
        worst.append(((found[0] - expected).abs() * step).flatten())
    levels = torch.cat(worst)
    record_input(name, label, levels, "grey levels")
    most, mean = ALLOWED.get(name, EXACT)
    assert levels.max() <= most
    assert levels.mean() <= mean


def test_frames_of_a_snippet_stay_in_order() -> None:
    backbone = backbones.get("r2plus1d_18")
    spec = backbone.spec.input
    assert isinstance(spec, VisualInput)
    items = torch.arange(8, dtype=torch.uint8).reshape(1, 8, 1, 1, 1).expand(1, *spec.item_shape)
    found = backbone.to_input(items)
    assert tuple(found.shape) == (1, 3, 8, 112, 112)
    red = found[0, 0, :, 5, 5] * spec.std[0] + spec.mean[0]
    torch.testing.assert_close(red * 255, torch.arange(8.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("i3d_flow", lambda v: np.clip(v, -20, 20) / 20),
        (
            "i3d_flow.8bit",
            lambda v: np.round((np.clip(v, -20, 20) + 20) / 40 * 255) * 2 / 255 - 1,
        ),
    ],
)
def test_flow_is_cut_and_scaled_as_published(
    name: str, formula: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    backbone = backbones.get(name)
    items = smooth_items(backbone.spec.input, 1, torch.Generator().manual_seed(3)) * 3
    assert items.abs().max() > 20
    found = backbone.to_input(items)
    # The float32 flow in double precision: a level's edge must not be decided by rounding.
    expected = torch.from_numpy(formula(items.double().numpy())).movedim(-1, 1)
    difference = (found - expected).abs()
    record_input(name, "numpy formula", difference * 20, "pixels of motion")
    off = difference > 1e-6
    assert off.float().mean() <= 1e-5 and difference.max() <= 2 / 255 + 1e-6


def test_both_streams_take_the_input_of_one() -> None:
    items = smooth_items(backbones.get("i3d").spec.input, 1, torch.Generator().manual_seed(4))
    both = backbones.get("i3d").to_input(items)
    rgb = backbones.get("i3d_rgb").to_input(items[..., :3].to(torch.uint8))
    flow = backbones.get("i3d_flow").to_input(items[..., 3:].contiguous())
    assert torch.equal(both, torch.cat([rgb, flow], dim=1))


@pytest.mark.parametrize("name", ["vggish", "vggish.tf_frames"])
def test_log_mel_examples_equal_torchvggishs(name: str) -> None:
    """Of whole seconds, as AVE does it; or of all of the sound, as TensorFlow does it."""
    backbone = backbones.get(name)
    spec = backbone.spec.input
    assert isinstance(spec, AudioInput)
    sound = waves(16_000, 10).flatten()
    pieces = sound.reshape(10, 16_000) if spec.hop == 16_000 else sound[None]
    expected = np.concatenate(
        [vggish_input.waveform_to_examples(p, 16_000, return_tensor=False) for p in pieces]
    )
    items = sound.astype(np.float32)[np.arange(10)[:, None] * spec.hop + np.arange(spec.window)]
    found = backbone.to_input(torch.from_numpy(items))
    assert tuple(found.shape) == (10, 1, 96, 64)
    difference = (found[:, 0].double() - torch.from_numpy(expected)).abs()
    record_input(name, "torchvggish: float64", difference, "nat")
    assert difference.max() <= 2e-4


def waves(rate: int, n: int) -> NDArray[np.float64]:
    """Seconds of sweeps in noise, faint tones that stop, clicks: [n, rate], float32 values."""
    rng = np.random.default_rng(7)
    time = np.arange(rate) / rate
    rows = []
    for i in range(n):
        sweep = 0.4 * np.sin(2 * np.pi * (100 + 700 * (i + 1) * time) * time)
        noise = rng.normal(0, 10.0 ** -(1 + i % 4), rate)
        faint = np.where(time < 0.6, 1e-3 * np.sin(2 * np.pi * 170 * (i + 1) * time), 0.0)
        clicks = np.zeros(rate)
        clicks[[0, rate // 3, rate - 1]] = 0.5, -0.9, 0.9
        rows.append((sweep + noise, faint + noise * 1e-2, clicks)[i % 3])
    return np.clip(rows, -1, 1).astype(np.float32).astype(np.float64)


# The narrowest low bands lie between two bins of the spectrum, in the originals as well.
@pytest.mark.filterwarnings("ignore:Empty filters detected:UserWarning")
@pytest.mark.parametrize("representation", ["linear", "mel128", "mel256"])
def test_openl3s_maps_equal_librosas(representation: str) -> None:
    """Front end C, which openl3 itself has librosa do; A and B are asked of TensorFlow's side."""
    sound = waves(48_000, 3)
    backbone = backbones.get(f"openl3.{representation}.frontend_c")
    found = backbone.to_input(torch.from_numpy(sound).float())[:, 0]
    for ours, wave in zip(found, sound, strict=True):
        if representation == "linear":
            amplitudes = np.abs(librosa.stft(wave, n_fft=512, hop_length=242, center=False))
        else:
            amplitudes = librosa.feature.melspectrogram(
                y=wave,
                sr=48_000,
                n_mels=int(representation.removeprefix("mel")),
                n_fft=2048,
                hop_length=242,
                power=1.0,
                dtype=np.float64,
            )
        levels = librosa.power_to_db(amplitudes, ref=1.0, amin=1e-10, top_db=80.0)
        assert np.abs(ours.double().numpy() - (levels - levels.max())).max() <= 1e-3


FRONT_ENDS = {
    "a": ("", "numpy formula of kapre 0.1.4", ""),
    "b": ("frontend_b", "float64", "kapre"),
    "c": ("frontend_c", "float64", "librosa"),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", ["openl3", "openl3.mel128", "openl3.linear"])
def test_openl3s_maps_equal_the_front_ends(name: str, tmp_path: Path) -> None:
    backbone = backbones.get(name)
    sound = torch.from_numpy(waves(48_000, 3)).float()
    # The network is asked too, so that it is asked once with sound as it comes.
    inputs = backbone.to_input(sound)
    answer = ask(
        *(QUESTIONS[name], calibrated(name), tmp_path),
        **{"input": inputs, "moved": noisy(inputs), "items": sound},
    )
    for key, (option, what, package) in FRONT_ENDS.items():
        variant = backbones.get(f"{name}.{option}" if option else name)
        found = variant.to_input(sound)[:, 0].double()
        difference = (found - answer.outputs[f"front_end/{key}"]).abs()
        label = answer.label(what, package) if package else what
        record_input(variant.spec.name, label, difference, "dB")
        assert difference.max() <= 1e-3
        if key == "b":
            single = (found - answer.outputs["front_end/b_float32"].double()).abs()
            # What openl3 computes: its rounding, not ours, so it is noted and not judged.
            label = answer.label("float32, as shipped", package)
            record_input(variant.spec.name, label, single, "dB")


@pytest.mark.parity
def test_vgg19_pictures_equal_keras(tmp_path: Path) -> None:
    backbone = backbones.get("vgg19.pool5")
    items = torch.from_numpy(np.stack([cv2.resize(picture(240, 320), (224, 224))]))
    inputs = backbone.to_input(items)
    answer = ask(
        *(QUESTIONS["vgg19-no-top"], calibrated("vgg19.pool5"), tmp_path),
        **{"input": inputs, "moved": noisy(inputs), "items": items},
    )
    difference = (inputs - answer.outputs["front_end/caffe"]).abs()
    record_input(
        "vgg19.pool5", answer.label("preprocess_input", "keras"), difference, "grey levels"
    )
    assert difference.max() <= 1e-3
