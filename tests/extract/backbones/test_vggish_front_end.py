"""VGGish's log-mel front end against torchvggish's numpy code and a published golden value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvggish import mel_features, vggish_input, vggish_params

from avfeat.extract import backbones
from avfeat.extract.backbones.nets.vggish_mel import log_mel

RATE = 16_000


def clip(seed: int, seconds: float = 10.0) -> NDArray[np.float32]:
    """Tones over pink-ish noise, with a silent stretch, as float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    time = np.arange(n) / RATE
    noise = np.cumsum(rng.normal(0, 1, n)) / 400 + rng.normal(0, 0.02, n)
    wave = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + noise - noise.mean()
    wave[n // 3 : n // 3 + 4000] = 0.0
    return np.clip(wave, -1, 1).astype(np.float32)


def oracle_frames(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    frames: NDArray[np.float64] = mel_features.log_mel_spectrogram(
        wave,
        audio_sample_rate=RATE,
        log_offset=vggish_params.LOG_OFFSET,
        window_length_secs=vggish_params.STFT_WINDOW_LENGTH_SECONDS,
        hop_length_secs=vggish_params.STFT_HOP_LENGTH_SECONDS,
        num_mel_bins=vggish_params.NUM_MEL_BINS,
        lower_edge_hertz=vggish_params.MEL_MIN_HZ,
        upper_edge_hertz=vggish_params.MEL_MAX_HZ,
    )
    return frames


@pytest.mark.parametrize("seed", [1, 2])
def test_frames_equal_the_oracle_in_double_precision(seed: int) -> None:
    wave = clip(seed).astype(np.float64)
    ours = log_mel(torch.from_numpy(wave)[None])[0].numpy()
    assert ours.shape == (998, 64)
    np.testing.assert_allclose(ours, oracle_frames(wave), rtol=0, atol=1e-10)


def test_items_are_the_oracles_examples_of_each_whole_second() -> None:
    wave = clip(3)
    backbone = backbones.get("vggish")
    spec = backbone.spec.input
    assert isinstance(spec, backbones.AudioInput)
    n = spec.items(len(wave) / RATE)
    items = np.stack([wave[i * spec.hop : i * spec.hop + spec.window] for i in range(n)])

    ours = backbone.to_input(torch.from_numpy(items))

    seconds = [wave[s * RATE : (s + 1) * RATE].astype(np.float64) for s in range(10)]
    expected = [vggish_input.waveform_to_examples(s, RATE, return_tensor=False) for s in seconds]
    assert ours.dtype == torch.float32
    assert tuple(ours.shape) == (10, 1, 96, 64)
    # One example per second; the last two of its 98 frames are not used.
    np.testing.assert_allclose(ours[:, 0].numpy(), np.concatenate(expected), rtol=0, atol=1e-6)


def test_golden_statistics_of_a_sine() -> None:
    """The 1 kHz sine of TensorFlow models' smoke test: 3 s at 16 kHz, three examples."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    examples = log_mel(torch.from_numpy(sine)[None])[0, : 3 * 96]
    found = [examples.mean(), examples.std(correction=1), examples.min(), examples.max()]
    expected = [-3.429619, 2.126635, -4.601163, 4.811118]
    np.testing.assert_allclose([float(x) for x in found], expected, rtol=0, atol=2e-6)


def test_silence_is_the_logarithm_of_the_offset() -> None:
    assert torch.equal(
        log_mel(torch.zeros(1, 400)),
        torch.full((1, 1, 64), float(np.log(0.01)), dtype=torch.float64),
    )
