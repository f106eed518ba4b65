"""OpenL3's spectrogram front ends, batched and on the device.

Three definitions are in use, and each gives other features from the same weights:

``kapre-0.1.4`` (A)
    openl3 up to 0.3.1, torchopenl3, and the training of the published weights. The mel maps filter
    the *power* spectrum, then take the square root; HTK scale; 982 zeros on either side.
``kapre-0.3`` (B)
    The default of openl3 since 0.4. Amplitudes are filtered; Slaney's scale; zeros at the end only.
``librosa`` (C)
    ``frontend="librosa"`` of openl3 since 0.4, on librosa from 0.9 on. Amplitudes are filtered;
    Slaney's scale; 1024 zeros on either side (librosa before 0.9 mirrored the sound instead).

The linear map is the same in all three but for rounding. Sources: openl3/models.py and core.py of
marl/openl3 (MIT), kapre 0.1.4 and 0.3.7 (MIT), librosa 0.11 (ISC).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from avfeat.errors import UsageError
from avfeat.extract.backbones.nets.openl3 import Representation

FrontEnd = Literal["kapre-0.1.4", "kapre-0.3", "librosa"]
Scale = Literal["htk", "slaney"]

RATE = 48_000
WINDOW = 48_000  # samples of one item
HOP = 242
FLOOR = 1e-10  # amplitude
DYNAMIC_RANGE = 80.0  # decibels below the window's maximum


class _Mel(NamedTuple):
    padding: tuple[int, int]  # zeros before and behind the window
    power: int  # exponent of the amplitudes that are filtered
    scale: Scale


_LINEAR_FFT, _MEL_FFT = 512, 2048
_BANDS: Final[dict[str, int]] = {"mel128": 128, "mel256": 256}
# All three end in 199 frames. TensorFlow, padding on both sides ("same") or at the end only, adds
# what ceil(48000 / 242) frames need: 198 * 242 + 2048 - 48000 = 1964 zeros. librosa's centred
# frames number 1 + 48000 // 242, and leave the last 168 of its zeros unused.
_MELS: Final[dict[str, _Mel]] = {
    "kapre-0.1.4": _Mel((982, 982), power=2, scale="htk"),
    "kapre-0.3": _Mel((0, 1964), power=1, scale="slaney"),
    "librosa": _Mel((1024, 1024), power=1, scale="slaney"),
}


def decibel_map(waveforms: Tensor, representation: Representation, front_end: FrontEnd) -> Tensor:
    """Spectrograms in decibels below each window's own maximum.

    Parameters
    ----------
    waveforms
        Floating point ``[N, 48000]`` in [-1, 1]: windows of one second at 48 kHz.
    representation
        ``linear``, ``mel128`` or ``mel256``.
    front_end
        ``kapre-0.1.4``, ``kapre-0.3`` or ``librosa``; see the module.

    Returns
    -------
    Tensor
        float64 ``[N, frequencies, frames]`` in [-80, 0]: 257 x 197, 128 x 199 or 256 x 199.
        Ten times, not twenty times, the logarithm of an amplitude, so 80 dB reach down to 1e-8 of
        the maximum, which a float32 transform does not resolve: on real sound its rounding moves
        linear maps by 0.03 to 0.09 dB on average and single quiet values by 12 dB, hence double
        precision. A silent window is 0 everywhere, as in the originals.

    Raises
    ------
    UsageError
        There is no such representation or front end.
    ValueError
        The waveforms are not windows of 48 000 samples.

    Examples
    --------
    >>> import torch
    >>> decibel_map(torch.rand(2, 48_000), "mel256", "kapre-0.1.4").shape
    torch.Size([2, 256, 199])
    """
    if waveforms.ndim != 2 or waveforms.shape[1] != WINDOW:
        raise ValueError(f"expected waveforms [N, {WINDOW}], got {list(waveforms.shape)}")
    for what, value, known in (
        ("representation", representation, get_args(Representation)),
        ("front end", front_end, get_args(FrontEnd)),
    ):
        if value not in known:
            raise UsageError(f"no OpenL3 {what} {value!r}; there are {', '.join(known)}")
    waveforms = waveforms.double()
    if representation == "linear":
        amplitudes = _spectrum(waveforms, _LINEAR_FFT).abs()
    else:
        mel = _MELS[front_end]
        spectrum = _spectrum(functional.pad(waveforms, mel.padding), _MEL_FFT)
        filters = _filters(_BANDS[representation], mel.scale, waveforms.device)
        # One product per window: in a joint one the last bits depend on the place in the batch.
        bands = torch.bmm(spectrum.abs() ** mel.power, filters.expand(len(waveforms), -1, -1))
        amplitudes = bands ** (1 / mel.power)
    levels = 10.0 * torch.log10(amplitudes.clamp(min=FLOOR))
    levels -= levels.amax((1, 2), keepdim=True)
    return levels.clamp_(min=-DYNAMIC_RANGE).mT.contiguous()


def mel_filters(n_bands: int, *, scale: Scale, n_fft: int, rate: int) -> Tensor:
    """Triangular mel filters from 0 Hz to half the rate, each of area 2 (Slaney's norm).

    The same as ``librosa.filters.mel(norm="slaney")`` transposed. Bands narrower than the
    spectrum's bins can be empty.

    Parameters
    ----------
    n_bands
        Number of filters.
    scale
        ``htk``, or ``slaney`` (Auditory Toolbox: linear up to 1 kHz, logarithmic above). Centres
        are evenly spaced on it; the triangles are linear in hertz.
    n_fft
        Samples of the transform.
    rate
        Samples per second.

    Returns
    -------
    Tensor
        float64 ``[n_fft // 2 + 1, n_bands]``.
    """
    to_mel, to_hertz = _SCALES[scale]
    hertz = torch.linspace(0.0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    top = to_mel(rate / 2)
    edges = to_hertz(torch.linspace(0.0, top, n_bands + 2, dtype=torch.float64))
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz - lower) / (centre - lower), (upper - hertz) / (upper - centre)
    return torch.minimum(rising, falling).clamp_(min=0.0) * (2.0 / (upper - lower))


def _spectrum(waveforms: Tensor, n_fft: int) -> Tensor:
    """Complex ``[N, frames, n_fft // 2 + 1]`` of whole frames under a periodic Hann window."""
    frames = waveforms.unfold(-1, n_fft, HOP) * _hann(n_fft, waveforms.device)
    spectrum: Tensor = torch.fft.rfft(frames)
    return spectrum


@lru_cache(maxsize=8)
def _hann(n: int, device: torch.device) -> Tensor:
    return torch.hann_window(n, dtype=torch.float64).to(device)


@lru_cache(maxsize=8)
def _filters(n_bands: int, scale: Scale, device: torch.device) -> Tensor:
    return mel_filters(n_bands, scale=scale, n_fft=_MEL_FFT, rate=RATE).to(device)


def _htk_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _htk_hertz(mel: Tensor) -> Tensor:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


# Slaney's scale: 200/3 Hz to a mel up to 1 kHz, then 27 mels to a factor of 6.4.
_LINEAR_STEP = 200.0 / 3.0
_KNEE_HERTZ = 1000.0
_KNEE_MEL = _KNEE_HERTZ / _LINEAR_STEP
_LOG_STEP = math.log(6.4) / 27.0


def _slaney_mel(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz / _LINEAR_STEP
    return _KNEE_MEL + math.log(hertz / _KNEE_HERTZ) / _LOG_STEP


def _slaney_hertz(mel: Tensor) -> Tensor:
    above = _KNEE_HERTZ * torch.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return torch.where(mel < _KNEE_MEL, _LINEAR_STEP * mel, above)


_SCALES: Final = {"htk": (_htk_mel, _htk_hertz), "slaney": (_slaney_mel, _slaney_hertz)}
