"""What the models of all libraries have in common."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from avfeat.errors import UsageError
from avfeat.extract.backbones.base import Backbone
from avfeat.extract.weights.registry import WeightsEntry

CPU_BATCH = 1
"""Items per forward pass on the CPU. In many of these networks (EfficientNet, CaiT, XCiT, CrossViT:
torch 2.14) a row's last bits depend on its place among several, and so on which clips came before
it; retrying a failed clip would not give the bytes of an unbroken run."""

HASHED = re.compile(r"-([0-9a-f]{8,64})\.")
"""Finds the first digits of the SHA-256 where torch.hub's convention puts them in a file's name."""

_SPREAD = 1e-3  # standard deviation below which a parameter counts as constant
_DEAD = 0.1  # absolute value below which a constant stands for zero


class LibraryModel(Backbone):
    """An image model of a library; each model is a class of its own, as each has its own spec.

    Attributes
    ----------
    published
        Where its weights come from; None where the library has none.
    """

    published: ClassVar[WeightsEntry | None]

    @abstractmethod
    def cut(self) -> nn.Module:
        """Build the network without its classifier, on the current device."""

    def build(self) -> nn.Module:
        """Build the network with starting values that depend on nothing but the model.

        Random weights are drawn for convolutions, linear layers and batch norm alone (see
        `avfeat.extract.weights.random`); what else a network has keeps the values from here.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # that of CUDA is left alone
            net = self.cut()
            _enliven(net)
        return net

    def weights_entry(self, tag: str) -> WeightsEntry:
        """Return the one entry that there is: a model's tag is part of its name."""
        assert self.published is not None and tag == self.published.tag  # of those in the spec
        return self.published


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a network once it has run on one picture without values.

    Parameters
    ----------
    dim
        Channels of its output.
    map
        (height, width) of an output that is a map; None for a vector.
    parameters, gmacs
        As in `BackboneSpec`; parameters that repeat count once.
    """

    dim: int
    map: tuple[int, int] | None
    parameters: int
    gmacs: float


def weightless(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device, where its size costs nothing."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # some compute their layers' sizes by tensors
        return build().to("meta")


def measure(name: str, net: nn.Module, size: tuple[int, int]) -> Measured:
    """Measure a network that lies on the meta device, where neither memory nor time is spent.

    Parameters
    ----------
    name
        For the message.
    net
        Takes ``[N, 3, height, width]``.
    size
        (height, width) of its input.

    Raises
    ------
    UsageError
        Its output is neither one vector nor one map ``[N, dim, height, width]`` per picture.
    """
    net.eval().requires_grad_(False)  # or the counter would track modules through the gradient
    with FlopCounterMode(display=False) as counter:
        output = net(torch.empty(1, 3, *size, device="meta"))
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
    if shape is None or len(shape) not in (2, 4):
        found = f"{list(shape)}" if shape else type(output).__name__
        raise UsageError(
            f"{name} cannot be used: without its classifier it gives {found} per picture, neither "
            "one vector nor one map"
        )
    return Measured(
        dim=shape[1],
        map=(shape[2], shape[3]) if len(shape) == 4 else None,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        # A multiplication and an addition count as two operations there.
        gmacs=float(f"{counter.get_total_flops() / 2e9:.5g}"),
    )


def behind(full: nn.Module, cut: nn.Module) -> tuple[str, ...]:
    """List the keys that a network has lost by the cut: those of its classifier.

    Raises
    ------
    UsageError
        The cut renamed others, so that published files no longer fit.
    """
    before, after = set(full.state_dict()), set(cut.state_dict())
    if renamed := after - before:
        raise UsageError(f"the cut renames {', '.join(sorted(renamed))}")
    return tuple(sorted(before - after))


def _enliven(net: nn.Module) -> None:
    """Spread parameters that calibration has no rule for and that start as constants.

    Layer scales of 1e-6, class tokens and gates of zero would switch off whole branches of a
    network with random weights, and a mistake in these would not show.
    """
    ruled = {
        id(parameter)
        for module in net.modules()
        if isinstance(module, _ConvNd | nn.Linear | _BatchNorm)
        for parameter in (module.weight, module.bias)
    }
    with torch.no_grad():
        for parameter in net.parameters():
            if id(parameter) in ruled or parameter.std(correction=0) > _SPREAD:
                continue
            if parameter.abs().mean() > _DEAD:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.75, 1.25))
            else:
                parameter.normal_(0.0, 0.2)
