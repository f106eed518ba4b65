"""Multimodal multiple-instance learning: attentive pooling over time and modality, and its losses.

Tian, Li and Xu, "Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing",
ECCV 2020, arXiv:2007.10558; repository YapengTian/AVVP-ECCV20.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the authors' code; the paper names no bounds.
_LEAST = 1e-7


class Probabilities(NamedTuple):
    """What a parsing network says of B clips of T segments and C classes; audio 0, visual 1.

    Attributes
    ----------
    segment
        float32 [B, T, 2, C] in [0, 1]: events per segment and modality.
    video
        float32 [B, C]: events per clip, pooled over time and modality. Not clamped: from 0 to 2.
    modality
        float32 [B, 2, C]: events per clip and modality, pooled over time; in [0, 1] up to rounding.
    """

    segment: Tensor
    video: Tensor
    modality: Tensor


class AttentiveMMIL(nn.Module):
    """Segment features to probabilities of segments, clips, and clips by modality.

    One classifier serves both modalities. Time attention is a softmax over the segments of a
    modality, modality attention one over the two modalities of a segment, both per class. A clip's
    probability is the sum of its segments' under both weights. Their products do not add up to 1:
    where the modalities attend to different segments, and each is the one that counts in its own,
    the sum comes near 2. It is given as it is; `mmil_loss` clamps it.
    """

    def __init__(self, width: int, classes: int) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        self.classifier = nn.Linear(width, classes)
        self.time_attention = nn.Linear(width, classes)
        self.modality_attention = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Probabilities:
        """Pool features, float32 [B, T, 2, width]."""
        segment = torch.sigmoid(self.classifier(features))
        by_time = torch.softmax(self.time_attention(features), dim=1) * segment
        by_modality = torch.softmax(self.modality_attention(features), dim=2)
        return Probabilities(segment, (by_time * by_modality).sum(dim=(1, 2)), by_time.sum(dim=1))


def mmil_loss(output: Probabilities, weak: Tensor, *, smoothing: float) -> Tensor:
    """Binary cross-entropy of the clips' joint, audio and visual probabilities, added up.

    Probabilities are clamped to [1e-7, 1 - 1e-7], without gradient outside: the joint one because
    it can exceed 1, the others because rounding may take them there.

    Parameters
    ----------
    weak
        Clip labels Y, float32 [B, C] in [0, 1]: events of either modality.
    smoothing
        Label smoothing s of the visual side, whose target is (1 - s) Y + s / 2: many of the events
        that a clip is labelled with cannot be seen in it. 0.1 in the original.

    Returns
    -------
    Tensor
        float32, scalar: each term is the mean over clips and classes.
    """
    audio, visual = output.modality.unbind(dim=1)
    smooth = (1 - smoothing) * weak + smoothing / 2
    return _entropy(output.video, weak) + _entropy(audio, weak) + _entropy(visual, smooth)


def _entropy(probability: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability.clamp(_LEAST, 1 - _LEAST), target)
