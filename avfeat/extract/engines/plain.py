"""The torch engine: a network as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avfeat.extract.engines.precision import Precision, computing


class TorchNetwork:
    """A network on a device. Call it with its input to get its rows.

    On CUDA, weights and input are laid out channels-last, which is what its convolutions are
    fastest in. On a CPU they are not: the plain layout is what oracles compute in, and OpenVINO is
    there for speed.

    Attributes
    ----------
    net
        The network, in evaluation mode.
    """

    def __init__(self, net: nn.Module, *, device: torch.device, precision: Precision) -> None:
        self.net = net.eval().requires_grad_(False).to(device)
        self._device = device
        self._precision: Precision = precision
        if device.type == "cuda":
            for parameter in self.net.parameters():
                parameter.data = channels_last(parameter.data)

    def __call__(self, batch: Tensor) -> Tensor:
        """Run the network.

        Parameters
        ----------
        batch
            float32 on the device, as `Backbone.to_input` gives it.

        Returns
        -------
        Tensor
            ``[N, dim]`` or ``[N, dim, height, width]`` on the device, of whatever type the
            precision gives.
        """
        if self._device.type == "cuda":
            batch = channels_last(batch)
        with computing(self._device, self._precision):
            rows: Tensor = self.net(batch)
        return rows


def channels_last(tensor: Tensor) -> Tensor:
    """Lay out pictures ``[N, C, H, W]`` and snippets ``[N, C, T, H, W]`` with channels fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if tensor.ndim not in formats:
        return tensor
    return tensor.contiguous(memory_format=formats[tensor.ndim])
