"""OpenL3's spectrogram front ends against plain numpy loops (A, B) and librosa (C)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from avfeat.errors import UsageError
from avfeat.extract.backbones.nets.openl3 import AUDIO_SHAPES, Representation
from avfeat.extract.backbones.nets.openl3_mel import FrontEnd, decibel_map, mel_filters
from avfeat.extract.media import ClipReader, Window

RATE, HOP = 48_000, 242
BANDS = {"mel128": 128, "mel256": 256}
Array = NDArray[np.float64]

each_representation = pytest.mark.parametrize("representation", get_args(Representation))
each_front_end = pytest.mark.parametrize("front_end", get_args(FrontEnd))
# The narrowest low bands lie between two bins of the spectrum, in the originals as well.
pytestmark = pytest.mark.filterwarnings("ignore:Empty filters detected:UserWarning")


def amplitudes(wave: Array, n_fft: int) -> Array:
    """Spectrum of every whole frame: [frequency, time]."""
    hann = 0.5 * (1 - np.cos(2 * np.pi * np.arange(n_fft) / n_fft))
    starts = range(0, len(wave) - n_fft + 1, HOP)
    return np.stack([np.abs(np.fft.rfft(wave[s : s + n_fft] * hann)) for s in starts], axis=1)


def below_maximum(amplitude: Array) -> Array:
    levels = 10 * np.log10(np.maximum(amplitude, 1e-10))
    found: Array = np.maximum(levels - levels.max(), -80.0)
    return found


def tf_padding(n: int, n_fft: int) -> int:
    """Zeros that TensorFlow adds in all, by its definition of "same" and of ``pad_end``."""
    return (int(np.ceil(n / HOP)) - 1) * HOP + n_fft - n


def kapre_0_1_4(wave: Array, representation: str) -> Array:
    if representation == "linear":
        return below_maximum(amplitudes(wave, 512))
    zeros = tf_padding(len(wave), 2048)
    padded = np.pad(wave, (zeros // 2, zeros - zeros // 2))
    mel = librosa.filters.mel(
        sr=RATE, n_fft=2048, n_mels=BANDS[representation], htk=True, norm="slaney", dtype=np.float64
    )
    return below_maximum(np.sqrt(mel @ amplitudes(padded, 2048) ** 2))


def kapre_0_3(wave: Array, representation: str) -> Array:
    if representation == "linear":
        return below_maximum(amplitudes(wave, 512))
    padded = np.pad(wave, (0, tf_padding(len(wave), 2048)))
    mel = librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=BANDS[representation], dtype=np.float64)
    return below_maximum(mel @ amplitudes(padded, 2048))


def librosa_0_9(wave: Array, representation: str) -> Array:
    """As openl3/core.py calls librosa."""
    if representation == "linear":
        amplitude = np.abs(librosa.stft(wave, n_fft=512, hop_length=HOP, center=False))
    else:
        amplitude = librosa.feature.melspectrogram(
            y=wave,
            sr=RATE,
            n_mels=BANDS[representation],
            n_fft=2048,
            hop_length=HOP,
            center=True,
            power=1.0,
            dtype=np.float64,
        )
    levels: Array = librosa.power_to_db(amplitude, ref=1.0, amin=1e-10, top_db=80.0)
    return levels - levels.max()


ORACLES: dict[str, Callable[[Array, str], Array]] = {
    "kapre-0.1.4": kapre_0_1_4,
    "kapre-0.3": kapre_0_3,
    "librosa": librosa_0_9,
}


@pytest.fixture(scope="module")
def real(shared: Path) -> NDArray[np.float32]:
    """Ten windows of a real clip: [10, 48000]."""
    with ClipReader(shared / "media" / "BjCEufrlXm4.mp4") as reader:
        blocks = reader.audio([RATE], window=Window(0, 10, whole=True), block_seconds=10.0)
        return np.concatenate([block[RATE] for block in blocks]).reshape(10, RATE)


def synthetic() -> NDArray[np.float32]:
    """A sweep in noise, a faint tone that stops, and clicks at both ends."""
    rng = np.random.default_rng(5)
    time = np.arange(RATE) / RATE
    sweep = 0.4 * np.sin(2 * np.pi * (100 + 9000 * time) * time) + rng.normal(0, 1e-3, RATE)
    faint = np.where(time < 0.6, 1e-4 * np.sin(2 * np.pi * 700 * time), 0.0)
    clicks = np.zeros(RATE)
    clicks[[0, 1, RATE - 1]] = 0.5, -1.0, 1.0
    return np.stack([sweep, faint, clicks]).astype(np.float32)


@each_front_end
@each_representation
def test_maps_equal_the_oracle(
    representation: Representation, front_end: FrontEnd, real: NDArray[np.float32]
) -> None:
    waves = np.concatenate([synthetic(), real[[0, 4, 9]]])
    ours = decibel_map(torch.from_numpy(waves), representation, front_end)
    assert ours.dtype == torch.float64 and ours.is_contiguous()
    assert tuple(ours.shape[1:]) == AUDIO_SHAPES[representation]
    assert ours.amax((1, 2)).eq(0).all() and ours.min() == -80
    for row, wave in zip(ours.numpy(), waves, strict=True):
        expected = ORACLES[front_end](wave.astype(np.float64), representation)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)


@each_front_end
def test_a_click_is_in_the_frames_that_cover_it(front_end: FrontEnd) -> None:
    """Where each padding puts the sound: at the edges and in the middle."""
    first = {"kapre-0.1.4": -982, "kapre-0.3": 0, "librosa": -1024}[front_end]
    at = torch.tensor([0, 1, 981, 1065, 1066, 24_000, 46_975, 46_976, 47_999])
    waves = torch.zeros(len(at), RATE)
    waves[torch.arange(len(at)), at] = 1.0
    waves[:, 12_000] = 1.0  # what the levels are relative to
    heard = (decibel_map(waves, "mel128", front_end) > -80).any(1)
    starts = first + HOP * torch.arange(199)

    # The window's first sample is 0; all others leave more than -80 dB.
    def inside(sample: Tensor) -> Tensor:
        return (sample > starts) & (sample < starts + 2048)

    assert torch.equal(heard, inside(at[:, None]) | inside(torch.tensor(12_000)))


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize(
    ("n_bands", "n_fft", "rate"),
    [(128, 2048, 48_000), (256, 2048, 48_000), (40, 512, 16_000), (10, 64, 1600)],
)
def test_mel_filters_equal_librosas(scale: str, n_bands: int, n_fft: int, rate: int) -> None:
    ours = mel_filters(n_bands, scale=scale, n_fft=n_fft, rate=rate)  # type: ignore[arg-type]
    expected = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=n_bands, htk=scale == "htk", norm="slaney", dtype=np.float64
    )
    np.testing.assert_allclose(ours.numpy().T, expected, rtol=0, atol=1e-12)
    # What TensorFlow and torchopenl3 multiply with is this in float32.
    single = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_bands, htk=scale == "htk")
    np.testing.assert_allclose(ours.numpy().T, single, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("representation", "pair", "low", "high"),
    [
        ("mel256", ("kapre-0.1.4", "kapre-0.3"), 3.5, 6.0),
        ("mel256", ("kapre-0.1.4", "librosa"), 3.0, 4.8),
        ("mel256", ("kapre-0.3", "librosa"), 2.3, 4.2),
        ("mel128", ("kapre-0.1.4", "kapre-0.3"), 3.0, 5.2),
        ("mel128", ("kapre-0.1.4", "librosa"), 2.3, 4.0),
    ],
)
def test_front_ends_differ_on_real_sound_as_reported(
    representation: Representation,
    pair: tuple[FrontEnd, FrontEnd],
    low: float,
    high: float,
    real: NDArray[np.float32],
) -> None:
    """Decibels on average; 4.5, 3.7, 3.0 and 3.7, 2.9 on the clip first measured."""
    maps = [decibel_map(torch.from_numpy(real), representation, front_end) for front_end in pair]
    assert low < float((maps[0] - maps[1]).abs().mean()) < high


def test_linear_maps_are_one_definition(real: NDArray[np.float32]) -> None:
    waves = torch.from_numpy(real[:2])
    maps = [decibel_map(waves, "linear", front_end) for front_end in get_args(FrontEnd)]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


@each_front_end
@each_representation
def test_windows_do_not_touch_each_other(
    representation: Representation, front_end: FrontEnd
) -> None:
    loud = torch.from_numpy(synthetic()[:1])
    waves = torch.cat([loud, torch.zeros(1, RATE), loud / 16, torch.full((1, RATE), torch.nan)])
    maps = decibel_map(waves, representation, front_end)
    assert torch.equal(maps[1], torch.zeros_like(maps[1]))  # silence is its own maximum
    torch.testing.assert_close(maps[2], maps[0], rtol=0, atol=1e-9)  # levels are relative
    assert torch.isfinite(maps[:3]).all() and maps[3].isnan().all()


@each_front_end
@each_representation
@pytest.mark.parametrize("n", [5, 10])
def test_bits_do_not_depend_on_the_place_in_a_batch(
    representation: Representation, front_end: FrontEnd, n: int
) -> None:
    waves = torch.rand(n, RATE, generator=torch.Generator().manual_seed(n)) - 0.5
    maps = decibel_map(waves, representation, front_end)
    assert torch.equal(decibel_map(waves.flip(0), representation, front_end).flip(0), maps)
    assert torch.equal(decibel_map(waves[2:3], representation, front_end)[0], maps[2])


@pytest.mark.parametrize("shape", [(48_000,), (2, 47_999), (1, 480_000), (1, 1, 48_000)])
def test_other_lengths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N, 48000\], got"):
        decibel_map(torch.zeros(shape), "linear", "librosa")


@pytest.mark.parametrize(("representation", "front_end"), [("mel64", "librosa"), ("linear", "A")])
def test_unknown_names_are_refused(representation: str, front_end: str) -> None:
    with pytest.raises(UsageError, match=r"'(mel64|A)'; there are (linear|kapre-0\.1\.4), "):
        decibel_map(torch.zeros(1, RATE), representation, front_end)  # type: ignore[arg-type]
