"""VGGish on whole seconds, as the AVE and AVVP code bases extract it.

Hershey et al., CNN Architectures for Large-Scale Audio Classification, arXiv:1609.09430; weights of
torchvggish, converted from TensorFlow models (research/audioset). One row per whole second from the
first 96 of its 98 log-mel frames, after the last ReLU, without PCA: the published AVE and LLP
features are non-negative floats. TensorFlow's own examples follow each other every 0.96 s instead
(``tf_frames``) and, since 2020, leave out that ReLU (``pre_activation``); AudioSet's released
features went through PCA and 8 bits (``audioset_pca8``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.registry import register
from avfeat.extract.backbones.spec import AudioInput, BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class VGGish(Backbone):
    """The 128-d embedding after its ReLU: ``[N, 128]``, non-negative.

    ``audioset_pca8``: PCA, clipped to [-2, 2], truncated to 0, 1, … 255, of examples every 0.96 s,
    as AudioSet's are: it means ``tf_frames`` too.
    """

    axes = (("", "tf_frames"), ("", "pre_activation", "audioset_pca8"))
    converts = True
    spec = BackboneSpec(
        name="vggish",
        modality="audio",
        dim=128,
        layer="fc 128 after ReLU",
        # 15 600 samples hold exactly 96 windows of 25 ms every 10 ms.
        input=AudioInput(rate=16_000, window=15_600, hop=16_000, front_end="vggish-log-mel"),
        weights=("audioset",),
        parameters=72_141_184,
        gmacs_per_item=0.864,
        paper="Hershey et al., ICASSP 2017, arXiv:1609.09430",
        description="AudioSet audio features, one row per second",
        # 16, not the 10 of a clip: there the linear layers' last bits depend on the position.
        cpu_batch=16,
        cuda_batch=160,
    )

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of a choice of framing and of what follows the last linear layer."""
        frames, after = chosen
        spec = type(self).spec
        assert isinstance(spec.input, AudioInput)
        if frames or after == "audioset_pca8":
            spec = replace(
                spec,
                input=replace(spec.input, hop=15_360),  # 96 frames of 10 ms
                description="AudioSet audio features, one row per 0.96 s",
            )
        if after == "pre_activation":
            spec = replace(spec, layer="fc 128 before ReLU")
        if after == "audioset_pca8":
            layer = "fc 128 after ReLU, PCA, 8 bits"
            spec = replace(spec, layer=layer, weights=("audioset_pca8",))
        return spec

    def canonical(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Leave out the framing where the second choice implies it."""
        frames, after = chosen
        return ("" if after == "audioset_pca8" else frames, after)

    def build(self) -> nn.Module:
        """Build the network with the key names of torchvggish."""
        from torch import nn

        from avfeat.extract.backbones.nets.vggish import VGGishNet
        from avfeat.extract.backbones.nets.vggish_pca import VGGishPCA

        net = VGGishNet(relu="pre_activation" not in self.chosen)
        if "audioset_pca8" not in self.chosen:
            return net
        return nn.Sequential(OrderedDict(net=net, pca=VGGishPCA()))

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Shape the arrays of the PCA file; the network's file is as it should be."""
        from avfeat.extract.backbones.nets.vggish_pca import pca_state

        return pca_state(state) if "pca_means" in state else state

    def to_input(self, items: Tensor) -> Tensor:
        """Log-mel examples float32 ``[N, 1, 96, 64]`` of waveforms float32 ``[N, 15600]``."""
        from avfeat.extract.backbones.nets.vggish_mel import log_mel

        return log_mel(items).float().unsqueeze(1)
