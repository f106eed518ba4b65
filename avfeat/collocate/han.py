"""The hybrid attention network for weakly supervised audio-visual video parsing.

Tian, Li and Xu, "Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing",
ECCV 2020, arXiv:2007.10558; repository YapengTian/AVVP-ECCV20.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avfeat.collocate.mmil import AttentiveMMIL, Probabilities

WIDTH = 512  # of every layer, whatever the backbones' feature dimensions are


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the ends of a network have to fit.

    Attributes
    ----------
    audio, visual
        Feature dimensions of the two streams.
    motion
        Feature dimension of the 3-D visual stream (the original has R(2+1)D-18's 512); None if
        there is none.
    classes
        Number of classes.
    """

    audio: int = 128
    visual: int = 2048
    motion: int | None = 512
    classes: int = 25


class HAN(nn.Module):
    """Features of clips to probabilities of their segments and of the clips.

    Each stream is projected to 512 by a linear layer. Where there is a motion stream, it and the
    visual one are concatenated and projected to 512 again; else the visual 512 go on as they are.
    One hybrid attention layer, with the same weights for both modalities, adds to every segment
    what it attends to in the other modality and in its own; `AttentiveMMIL` pools.

    Holds those parameters of the original that receive a gradient: 4,569,675 for the default sizes.
    The original has another 4.7 million in layers whose output it drops.

    Parameters
    ----------
    sizes
        Feature dimensions and number of classes.
    dropout
        Rate at the places where a transformer layer has it, among them the attention weights.
    """

    def __init__(self, sizes: Sizes, *, dropout: float = 0.1) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        self.sizes = sizes
        self.audio = nn.Linear(sizes.audio, WIDTH)
        self.visual = nn.Linear(sizes.visual, WIDTH)
        if sizes.motion is not None:
            self.motion = nn.Linear(sizes.motion, WIDTH)
            self.fusion = nn.Linear(2 * WIDTH, WIDTH)
        self.attention = HybridAttention(dropout)
        self.pooling = AttentiveMMIL(WIDTH, sizes.classes)

    def forward(self, audio: Tensor, visual: Tensor, motion: Tensor | None = None) -> Probabilities:
        """Parse B clips of T segments.

        Parameters
        ----------
        audio
            float32 [B, T, sizes.audio].
        visual
            float32 [B, T * r, sizes.visual]: r rows per segment in order of time (8 in the
            original), or their mean as the only one.
        motion
            float32 [B, T, sizes.motion], if the network has that stream; else None.
        """
        clips, segments, _ = audio.shape
        # The original averages behind the linear layer. Before it the mean is the same up to
        # rounding, for an r-th of the work.
        seen = self.visual(visual.reshape(clips, segments, -1, self.sizes.visual).mean(dim=2))
        if self.sizes.motion is not None:
            seen = self.fusion(torch.cat([seen, self.motion(motion)], dim=-1))
        return self._parse(self.audio(audio), seen)

    def _parse(self, heard: Tensor, seen: Tensor) -> Probabilities:
        # Both directions in one batch: they share the weights.
        both = self.attention(torch.cat([heard, seen]), torch.cat([seen, heard]))
        output: Probabilities = self.pooling(torch.stack(both.chunk(2), dim=2))
        return output


class HybridAttention(nn.Module):
    """Self-attention and cross-modal attention side by side, then a feed-forward layer; post-norm.

    One head, width 512 throughout, ReLU.
    """

    def __init__(self, dropout: float) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, 1, dropout=dropout, batch_first=True)
        self.cross = nn.MultiheadAttention(WIDTH, 1, dropout=dropout, batch_first=True)
        self.drop_own = nn.Dropout(dropout)
        self.drop_cross = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(WIDTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, WIDTH),
            nn.Dropout(dropout),
        )
        self.norm_out = nn.LayerNorm(WIDTH)

    def forward(self, query: Tensor, other: Tensor) -> Tensor:
        """Add to `query`, float32 [B, T, 512], what it attends to in itself and in `other`."""
        cross, _ = self.cross(query, other, other, need_weights=False)
        own, _ = self.own(query, query, query, need_weights=False)
        mixed = self.norm(query + self.drop_cross(cross) + self.drop_own(own))
        output: Tensor = self.norm_out(mixed + self.feed_forward(mixed))
        return output
