"""VGGish's log-mel front end, batched and on the device.

After mel_features.py and vggish_input.py of TensorFlow models (research/audioset, Apache-2.0):
frames of 25 ms every 10 ms without padding, periodic Hann window, zero-padded to 512 at the end,
magnitude (not power), 64 HTK-mel triangles that are linear in mel, not in hertz, and
``log(mel + 0.01)``. librosa centres the window and spaces the triangles otherwise, which moves the
result by up to 2.6.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512
BANDS = 64
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01


def log_mel(waveforms: Tensor) -> Tensor:
    """Log-mel frames of a batch of waveforms at 16 kHz.

    Parameters
    ----------
    waveforms
        Floating point ``[N, samples]`` in [-1, 1], at least 400 samples.

    Returns
    -------
    Tensor
        float64 ``[N, frames, 64]`` with ``frames = 1 + (samples - 400) // 160``. Double precision
        because a float32 transform is off by up to 1.6e-4 where little energy meets the logarithm.
    """
    frames = waveforms.double().unfold(-1, WINDOW, HOP)
    window, triangles = _constants(waveforms.device)
    magnitude = torch.fft.rfft(frames * window, FFT).abs()
    return torch.log(magnitude @ triangles + LOG_OFFSET)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Window ``[400]`` and mel triangles ``[257, 64]``, float64, on the device."""
    position = torch.arange(WINDOW, dtype=torch.float64) / WINDOW
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * position)

    bins = _mel(torch.linspace(0.0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    triangles = torch.minimum(rising, falling).clamp_(min=0.0)
    triangles[0] = 0.0  # HTK leaves out the mean
    return window.to(device), triangles.to(device)


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)
