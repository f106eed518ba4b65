"""The OpenL3 networks: one tower for spectrograms, one for pictures.

Cramer et al., Look, Listen and Learn More, ICASSP 2019; layers and constants as in
openl3/models.py of marl/openl3 0.4.2 (MIT). Modules carry the names of torchopenl3's checkpoints,
and stand in the order in which Keras keeps the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, Literal

from torch import Tensor, nn

from avfeat.errors import UsageError

Representation = Literal["linear", "mel128", "mel256"]

_CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
# Keras' defaults for batch norm. torch's momentum is the other share, and its eps is 1e-5.
_EPS, _MOMENTUM = 1e-3, 1 - 0.99

#: Frequencies and frames of the map that the audio tower takes, by representation.
AUDIO_SHAPES: Final[dict[str, tuple[int, int]]] = {
    "linear": (257, 197),
    "mel128": (128, 199),
    "mel256": (256, 199),
}
# Windows of the last max-pool, which leaves 1 x 1 or 4 x 3 places (frequency, time) of 512.
_AUDIO_POOLS: Final[dict[str, dict[int, tuple[int, int]]]] = {
    "linear": {512: (32, 24), 6144: (8, 8)},
    "mel128": {512: (16, 24), 6144: (4, 8)},
    "mel256": {512: (32, 24), 6144: (8, 8)},
}
_IMAGE_POOLS: Final[dict[int, tuple[int, int]]] = {512: (28, 28), 8192: (7, 7)}


class OpenL3Audio(nn.Sequential):
    """Decibel maps float32 ``[N, 1, frequencies, frames]`` to embeddings ``[N, size]``.

    The embedding is the last convolution's max-pooled map without a ReLU, so it can be negative.
    All sizes share one set of weights.

    Parameters
    ----------
    representation
        ``linear`` (maps of 257 x 197), ``mel128`` (128 x 199) or ``mel256`` (256 x 199).
    size
        512 or 6144 (4 frequencies x 3 times x 512 channels, channels fastest).

    Raises
    ------
    UsageError
        There is no such representation or size.
    """

    def __init__(self, representation: Representation, size: int) -> None:
        """Build the layers with torch's initial weights."""
        _check("OpenL3 representation", representation, _AUDIO_POOLS)
        pools = _AUDIO_POOLS[representation]
        _check("OpenL3 audio embedding size", size, pools)
        super().__init__(
            OrderedDict(
                _tower(1, "audio_embedding_layer"),
                max_pooling2d_4=nn.MaxPool2d(pools[size]),
                flatten=_FlattenChannelsLast(),
            )
        )


class OpenL3Image(nn.Sequential):
    """RGB pictures float32 ``[N, 3, 224, 224]`` in [-1, 1] to embeddings ``[N, size]``.

    As in the audio tower there is no last ReLU, and all sizes share one set of weights.

    Parameters
    ----------
    size
        512 or 8192 (4 rows x 4 columns x 512 channels, channels fastest).
    map
        Give the last convolution's map ``[N, 512, 28, 28]`` instead; ``size`` has no effect then.

    Raises
    ------
    UsageError
        There is no such size.
    """

    def __init__(self, size: int = 512, *, map: bool = False) -> None:
        """Build the layers with torch's initial weights."""
        _check("OpenL3 image embedding size", size, _IMAGE_POOLS)
        layers = _tower(3, "vision_embedding_layer", norm_last={2})
        if not map:
            layers["max_pooling2d_4"] = nn.MaxPool2d(_IMAGE_POOLS[size])
            layers["flatten"] = _FlattenChannelsLast()
        super().__init__(layers)


class _FlattenChannelsLast(nn.Module):
    """``[N, C, H, W]`` to ``[N, H * W * C]``: Keras flattens with channels fastest."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(1, -1).flatten(1)


def _tower(
    n_in: int, last: str, *, norm_last: frozenset[int] | set[int] = frozenset()
) -> OrderedDict[str, nn.Module]:
    """Four blocks of two convolutions, pooled between; the last convolution stands alone.

    ``norm_last`` are the convolutions, from 1, behind which batch norm follows the ReLU instead of
    preceding it.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(batch_normalization_1=_norm(n_in))
    for number, (n_from, n_to) in enumerate(pairwise((n_in, *_CHANNELS)), start=1):
        convolution = nn.Conv2d(n_from, n_to, 3, padding=1)
        if number == len(_CHANNELS):
            layers[last] = convolution
            break
        layers[f"conv2d_{number}"] = convolution
        layers[f"batch_normalization_{number + 1}"] = _norm(n_to)
        layers[f"activation_{number}"] = nn.ReLU(inplace=True)
        if number in norm_last:
            layers.move_to_end(f"batch_normalization_{number + 1}")
        if number % 2 == 0:
            layers[f"max_pooling2d_{number // 2}"] = nn.MaxPool2d(2)
    return layers


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS, momentum=_MOMENTUM)


def _check(what: str, value: object, known: Iterable[object]) -> None:
    known = list(known)
    if value not in known:
        raise UsageError(f"no {what} {value!r}; there are {', '.join(map(str, known))}")
