"""The plain loop that labs extract with: what avfeat is held against.

One backbone and one clip at a time, nothing beside anything else: the ffmpeg command writes every
frame as JPEG, Pillow opens them, torchvision's transforms resize, crop and normalise, and the
network runs in eager float32 on batches of 32 (snippets: as many as 32 frames are), under
``no_grad``, in torch's usual number of threads. Sound goes through a WAV file.
"""

from __future__ import annotations

import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T

from avfeat.extract.backbones import AudioInput, Backbone, VisualInput
from avfeat.extract.weights.random import calibrate

BATCH = 32


class Loop:
    """The loop of one backbone, its network loaded.

    Parameters
    ----------
    backbone
        Whose network, layer, frames and preprocessing.
    device
        Torch device that it runs on.
    """

    def __init__(self, backbone: Backbone, device: str = "cpu") -> None:
        net = backbone.build()
        calibrate(net, backbone, seed=0)
        self.net: nn.Module = net.eval().to(device)
        self._backbone = backbone
        self._device = device

    def __call__(self, clip: Path, folder: Path) -> np.ndarray:
        """Extract one clip; `folder` is empty and holds its frames meanwhile."""
        wanted = self._backbone.spec.input
        if isinstance(wanted, AudioInput):
            items, to_input = _windows(clip, folder, wanted), self._backbone.to_input
            rows = self._forward(lambda first, last: to_input(items[first:last]), len(items), BATCH)
        else:
            rows = self._visual(clip, folder, wanted)
        pool = self._backbone.spec.pool
        if pool > 1:
            rows = rows[: len(rows) // pool * pool].reshape(-1, pool, *rows.shape[1:]).mean(1)
        return rows.numpy()

    def _visual(self, clip: Path, folder: Path, wanted: VisualInput) -> Tensor:
        pattern = folder / "%05d.jpg"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", clip, "-r", str(wanted.fps), pattern]
        subprocess.run(list(map(str, command)), check=True)
        names = sorted(folder.glob("*.jpg"))
        seconds = round(len(names) / wanted.fps)
        picks = np.linspace(0, len(names) - 1, wanted.samples(seconds)).round().astype(int)
        names = [names[pick] for pick in picks]
        transform = transformation(wanted)

        def picture(name: Path) -> Tensor:
            with Image.open(name) as image:
                found: Tensor = transform(image.convert("RGB"))
            return found

        def images(first: int, last: int) -> Tensor:
            return torch.stack([picture(name) for name in names[first:last]])

        if wanted.frames == 1:
            return self._forward(images, len(names), BATCH)
        frames = images(0, len(names))
        edge = wanted.padding
        frames = torch.cat(
            [frames[:1].repeat(edge, 1, 1, 1), frames, frames[-1:].repeat(edge, 1, 1, 1)]
        )
        snippets = frames.unfold(0, wanted.frames, wanted.stride).movedim(-1, 2)
        size = max(1, BATCH // wanted.frames)
        return self._forward(lambda first, last: snippets[first:last], len(snippets), size)

    def _forward(self, batch: Callable[[int, int], Tensor], count: int, size: int) -> Tensor:
        rows = []
        with torch.no_grad():
            for first in range(0, count, size):
                items = batch(first, min(first + size, count)).to(self._device)
                rows.append(self.net(items).cpu())
        return torch.cat(rows)


def transformation(wanted: VisualInput) -> Callable[[Image.Image], Tensor]:
    """Return torchvision's transforms of a preprocessing, on PIL images."""
    geometry = wanted.geometry
    steps: list[Callable[..., object]] = [T.Resize(geometry.resize)]
    if geometry.crop is not None:
        steps.append(T.CenterCrop(geometry.crop))
    steps.append(T.ToTensor())
    if wanted.colour == "BGR":
        steps.append(lambda planes: planes.flip(0))
    if wanted.white != 1.0:
        steps.append(lambda planes: planes * wanted.white)
    steps.append(T.Normalize(wanted.mean, wanted.std))
    composed: Callable[[Image.Image], Tensor] = T.Compose(steps)
    return composed


def _windows(clip: Path, folder: Path, wanted: AudioInput) -> Tensor:
    path = folder / "sound.wav"
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-i",
        clip,
        "-ac",
        "1",
        "-ar",
        wanted.rate,
        path,
    ]
    subprocess.run(list(map(str, command)), check=True)
    with wave.open(str(path)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16) / np.float32(32768)
    return torch.from_numpy(samples.copy()).unfold(0, wanted.window, wanted.hop)
