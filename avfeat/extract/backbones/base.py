"""The contract of a backbone: a spec, a network cut at its layer, and items to network input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from avfeat.extract.backbones.spec import AudioInput, BackboneSpec
from avfeat.extract.weights.registry import WeightsEntry, entry

if TYPE_CHECKING:
    from torch import Tensor, nn


class Backbone(ABC):
    """A feature extractor, as one class per file.

    Subclasses set `spec` and write `build`; torch is imported inside the methods, so that listing
    backbones stays light. A backbone never sees a file, a clip or a store.

    Examples
    --------
    >>> from avfeat.extract.backbones import get
    >>> get("resnet152").spec.dim
    2048
    """

    spec: ClassVar[BackboneSpec]

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network up to its feature layer, with any weights.

        It maps what `to_input` gives to rows ``[N, dim]``. Its state-dict keys are those of the
        published file, so that weights load without renaming.
        """

    def to_input(self, items: Tensor) -> Tensor:
        """Turn a batch of items, already on the device, into the network's float32 input.

        Parameters
        ----------
        items
            uint8 ``[N, H, W, 3]`` or ``[N, T, H, W, 3]``, or float32 waveforms ``[N, window]``.

        Returns
        -------
        Tensor
            ``[N, 3, H, W]`` or ``[N, 3, T, H, W]``, normalised with the spec's mean and std; the
            waveforms themselves for audio, where networks with a front end override this.
        """
        if isinstance(self.spec.input, AudioInput):
            return items
        # Plain contiguous layout: channels-last kernels give other last bits.
        planes = items.movedim(-1, 1).contiguous().float().div_(255)
        shape = (1, 3, *[1] * (planes.ndim - 2))
        mean = planes.new_tensor(self.spec.input.mean).reshape(shape)
        std = planes.new_tensor(self.spec.input.std).reshape(shape)
        return planes.sub_(mean).div_(std)

    def weights_entry(self, tag: str) -> WeightsEntry:
        """Say where the weights called ``tag`` come from.

        Looked up in avfeat's own weights/registry.yaml; a plugin package overrides this.
        """
        return entry(f"{self.spec.name}.{tag}")
