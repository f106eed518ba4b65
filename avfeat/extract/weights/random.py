"""Random weights that behave like trained ones: seeded, and calibrated on random pictures.

A deep network with a framework's initial weights forgets its input: its output hardly moves when
the picture does, so neither a wrong crop nor a wrong padding would show. Here convolutions and
linear layers are drawn from N(0, 2/fan_in) (He et al., arXiv:1502.01852), batch norm gets spread
scales and offsets, and its running statistics come from one forward pass, so that every layer works
in its normal range. Such features mean nothing; the recipe says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from avfeat.extract.backbones.spec import AudioInput, VisualInput
from avfeat.extract.threads import computing_with

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

_BIAS_STD = 0.01
_SMOOTH = 8  # side of the noise that is blown up to a picture: blobs, not static


def calibrate(net: nn.Module, backbone: Backbone, *, seed: int) -> None:
    """Draw all weights of a network on the CPU, in place, from a seed.

    Only the function's own generator is used. The same seed gives the same bits on one machine,
    whatever the number of threads; elsewhere the running statistics can differ by rounding.

    Parameters
    ----------
    net
        What `Backbone.build` gave. Its layers without rules here keep the weights they have.
    backbone
        Gives the shape of an item and the way from items to the network's input.
    seed
        Non-negative.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        _draw(module, generator)
    items = smooth_items(backbone.spec.input, 2, generator)
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    # Batch norm alone is set to training: dropout stays off, wherever a network hides it.
    net.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad(), computing_with(1):
        net(backbone.to_input(items))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def smooth_items(
    spec: VisualInput | AudioInput, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """``n`` smooth random items: blobs that move, or band-limited noise.

    Returns
    -------
    Tensor
        uint8 ``[n, *item_shape]``, float32 ``[n, window]`` in [-1, 1], or float32 with flow of up
        to 10 pixels.
    """
    if isinstance(spec, AudioInput):
        noise = torch.rand((n, 1, spec.window // 4), generator=generator) * 2 - 1
        wave = nn.functional.interpolate(noise, size=spec.window, mode="linear")
        return wave[:, 0]
    height, width = spec.geometry.shape
    coarse = torch.rand((n, spec.channels, spec.frames, _SMOOTH, _SMOOTH), generator=generator)
    fine = nn.functional.interpolate(coarse, size=(spec.frames, height, width), mode="trilinear")
    items = fine.mul(255).round().movedim(1, -1)  # [n, T, H, W, C]
    if spec.stream != "rgb":
        items[..., -2:] = items[..., -2:] * (20 / 255) - 10
    items = items.to(getattr(torch, spec.item_dtype))
    return (items[:, 0] if spec.frames == 1 else items).contiguous()


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        if isinstance(module, _ConvNd | nn.Linear):
            fan_in = module.weight[0].numel()  # per group: [out, in / groups, *kernel]
            module.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0.0, _BIAS_STD, generator=generator)
        elif isinstance(module, _BatchNorm) and module.affine:
            module.weight.uniform_(0.75, 1.25, generator=generator)
            module.bias.normal_(0.0, 0.2, generator=generator)
