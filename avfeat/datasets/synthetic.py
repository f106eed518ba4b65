"""A synthetic family of feature stores whose best pair of backbones is known by construction.

The family has LLP's shape: its 25 classes, ten segments of one second per clip, weak labels, and
audio and visual events in val and test. There is no media: features are drawn, not extracted.

*Scenes.* A clip has one to three classes, each as one event that is audible and visible, audible
only, or visible only, and lasts the whole clip or from one second to another. Its weak labels are
these classes. A *context* of `CONTEXT` numbers stands for all that stays the same in a clip and has
nothing to do with its labels.

*Backbones.* Each has a *quality* per block of five classes, and a *context share*. Its latent row
has a coordinate per class, ``STRENGTH * quality`` in segments where its modality has the class and
0 elsewhere, and `CONTEXT` coordinates of its own context. To these come noise of each segment
(standard deviation 1 on classes) and of each row. The backbone's own random map and a ReLU make
the feature of it. As noise is added before the map, quality is what an optimal detector of a class
has to go by, whatever the width of the features is.

*Alignment.* The context of a backbone is ``sqrt(s)`` times the clip's and ``sqrt(1 - s)`` times one
of its own, so that the contexts of two backbones correlate by ``sqrt(s_1 s_2)``. They look aligned
by it and parse no better. What makes two backbones belong together is `coverage`: the share of
classes that at least one of them sees. The hybrid attention network takes from one modality what
it does not see in the other, so blocks that complement each other outweigh blocks seen twice.

*Truth.* vggish and polynet are the best single networks. Both see blocks 0 to 2, share their
context, and leave blocks 3 and 4 to nobody. vgg19_bn, only third of the visual networks, sees
just these: it belongs to vggish. So the best pair is not that of the best singles, as Wu et al.
found on LLP (Toward a perceptive pretraining framework for Audio-Visual Video Parsing, Information
Sciences 2022), where PolyNet is the best single visual network and VGG19_bn pairs best with VGGish.
Numbers are this module's own, and say nothing about the networks that lend their names.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avfeat.datasets.llp import Llp
from avfeat.errors import UsageError
from avfeat.manifests.clips import Clip, Event

NAME = "synthetic"
#: Changed whenever the numbers that one seed gives change.
VERSION = 1

CLASSES = Llp.classes
SEGMENTS = 10
SPLITS = ("train", "val", "test")
#: Clips of LLP's splits.
LLP_CLIPS = (10_000, 649, 1_200)

BLOCKS = 5
#: Probabilities of 1, 2 and 3 classes in a clip: those of LLP's training split.
CLASS_COUNTS = (0.4032, 0.5879, 0.0089)
#: Probabilities of an event that is audible and visible, audible only, visible only.
EVENT_KINDS = (0.70, 0.15, 0.15)
#: Probability of an event that lasts the whole clip.
WHOLE = 0.3

CONTEXT = 8
STRENGTH = 6.0
SEGMENT_NOISE, CONTEXT_NOISE, ROW_NOISE = 1.0, 0.3, 0.5
#: Added before the ReLU, so that more than half of a feature's values are not 0.
OFFSET = 0.5

# Latents and maps are multiples of 1/64: their products and sums are then exact in float64, and
# features the same to the bit whatever order a BLAS adds in.
_GRID = 64.0

Width = Literal["small", "real"]


@dataclass(frozen=True, slots=True)
class SyntheticBackbone:
    """A backbone of the family.

    Attributes
    ----------
    name, modality
        Of the network that lends its name.
    rows
        Rows per second.
    real, small
        Features per row at the two widths; ``real`` is that of the network.
    quality
        How well each block of classes is seen, from 0 to 1. Class c is in block ``c % 5``.
    context
        Share s of the clip's context in its own, from 0 to 1.
    """

    name: str
    modality: Literal["audio", "visual"]
    rows: int
    real: int
    small: int
    quality: tuple[float, ...]
    context: float

    def dim(self, width: Width) -> int:
        """Features per row."""
        return self.real if width == "real" else self.small

    @property
    def mean_quality(self) -> float:
        """How good the backbone is alone: its mean quality over classes."""
        return float(np.mean(self.quality))


AUDIO = (
    SyntheticBackbone("vggish", "audio", 1, 128, 64, (0.95, 0.95, 0.95, 0.05, 0.05), 0.9),
    SyntheticBackbone("openl3", "audio", 1, 512, 64, (0.05, 0.85, 0.05, 0.85, 0.05), 0.5),
)
VISUAL = (
    SyntheticBackbone("vgg19_bn", "visual", 8, 4096, 64, (0.05, 0.05, 0.05, 1.00, 1.00), 0.1),
    SyntheticBackbone("resnet152", "visual", 8, 2048, 64, (0.90, 0.05, 0.05, 0.90, 0.05), 0.5),
    SyntheticBackbone("senet154", "visual", 8, 2048, 64, (0.30, 0.95, 0.95, 0.05, 0.05), 0.7),
    SyntheticBackbone("polynet", "visual", 8, 2048, 64, (1.00, 1.00, 1.00, 0.05, 0.05), 0.9),
    SyntheticBackbone("openl3_image", "visual", 8, 512, 64, (0.30, 0.05, 0.05, 0.05, 0.70), 0.5),
)
#: Beside every pair, for the 3-D branch of task models.
MOTION = (
    SyntheticBackbone("r2plus1d_18", "visual", 1, 512, 64, (0.80, 0.05, 0.05, 0.05, 0.05), 0.5),
)
BACKBONES = (*AUDIO, *VISUAL, *MOTION)


def coverage(audio: SyntheticBackbone, visual: SyntheticBackbone) -> float:
    """Share of classes that at least one of two backbones sees: the mean of 1 - (1 - q)(1 - r)."""
    unseen = (1 - np.array(audio.quality)) * (1 - np.array(visual.quality))
    return float(1 - unseen.mean())


def context_alignment(audio: SyntheticBackbone, visual: SyntheticBackbone) -> float:
    """Correlation of the contexts that two backbones see."""
    return float(np.sqrt(audio.context * visual.context))


def like_llp(total: int) -> tuple[int, int, int]:
    """Share a number of clips, 3 or more, out to train, val and test as LLP has it."""
    val, test = (max(1, round(total * count / sum(LLP_CLIPS))) for count in LLP_CLIPS[1:])
    return total - val - test, val, test


class Scene(NamedTuple):
    """What happens in a clip.

    Attributes
    ----------
    labels
        Its classes, in canonical order.
    active
        bool [2, SEGMENTS, classes]: which segments have an event; audio 0, visual 1.
    events
        The same as events; those that are audible and visible come twice.
    context
        float64 [CONTEXT].
    """

    labels: tuple[str, ...]
    active: NDArray[np.bool_]
    events: tuple[Event, ...]
    context: NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """One draw of the family: a seed, a number of clips per split, a width.

    A clip depends on the seed, its split and its number there, on nothing else: a larger family
    begins with the same clips.

    Parameters
    ----------
    seed
        From 0 to 2**32 - 1.
    clips
        Clips of train, val and test, at least 1 each.
    width
        ``small`` features, or as wide as the networks' that lend their names.

    Raises
    ------
    UsageError
        For other values.
    """

    seed: int = 0
    clips: tuple[int, int, int] = (600, 300, 400)
    width: Width = "small"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed is {self.seed}; it must be from 0 to 2**32 - 1")
        if min(self.clips) < 1:
            raise UsageError(
                f"{','.join(map(str, self.clips))} clips: train, val and test need 1 at least"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """What its numbers depend on, beside its clips; ready for JSON."""
        return {
            "class_counts": list(CLASS_COUNTS),
            "event_kinds": list(EVENT_KINDS),
            "whole": WHOLE,
            "context": CONTEXT,
            "strength": STRENGTH,
            "segment_noise": SEGMENT_NOISE,
            "context_noise": CONTEXT_NOISE,
            "row_noise": ROW_NOISE,
            "offset": OFFSET,
        }

    def truth(self) -> dict[str, Any]:
        """State what is true of the family by construction; ready for JSON.

        Returns
        -------
        dict
            ``best_pair``: that of the highest `coverage`, which parses best. ``best_singles``: the
            best backbones alone. ``pairs``: coverage and context alignment of each pair, best
            coverage first; below the best one this is no ranking of their scores. Then what the
            family was made from.
        """
        pairs = [
            {
                "audio": audio.name,
                "visual": visual.name,
                "coverage": round(coverage(audio, visual), 6),
                "context_alignment": round(context_alignment(audio, visual), 6),
            }
            for audio, visual in itertools.product(AUDIO, VISUAL)
        ]
        pairs.sort(key=lambda pair: -pair["coverage"])  # type: ignore[operator]
        best = {
            modality: max(of, key=lambda backbone: backbone.mean_quality).name
            for modality, of in (("audio", AUDIO), ("visual", VISUAL))
        }
        return {
            "dataset": NAME,
            "best_pair": {modality: pairs[0][modality] for modality in ("audio", "visual")},
            "best_singles": best,
            "pairs": pairs,
            "backbones": [
                {**asdict(one), "dim": one.dim(self.width), "mean_quality": one.mean_quality}
                for one in BACKBONES
            ],
            "blocks": {name: index % BLOCKS for index, name in enumerate(CLASSES)},
            "seed": self.seed,
            "version": VERSION,
            "clips": dict(zip(SPLITS, self.clips, strict=True)),
            "width": self.width,
            "parameters": self.parameters,
        }

    @cached_property
    def manifest_clips(self) -> tuple[Clip, ...]:
        """All clips, split by split; those of train have weak labels alone, as LLP's."""
        return tuple(
            self._clip(split, number)
            for split, count in zip(SPLITS, self.clips, strict=True)
            for number in range(count)
        )

    def _clip(self, split: str, number: int) -> Clip:
        scene = self.scene(split, number)
        events = () if split == "train" else scene.events
        return Clip(f"{split}_{number:06d}", 0.0, float(SEGMENTS), split, scene.labels, events)

    def scene(self, split: str, number: int) -> Scene:
        """Draw what happens in a clip: number `number`, from 0, of `split`."""
        rng = self._rng(0, split, number)
        count = rng.choice(len(CLASS_COUNTS), p=CLASS_COUNTS) + 1
        chosen = np.sort(rng.choice(len(CLASSES), count, replace=False))
        active = np.zeros((2, SEGMENTS, len(CLASSES)), dtype=np.bool_)
        events = []
        for index in chosen:
            kind = rng.choice(len(EVENT_KINDS), p=EVENT_KINDS)
            whole = rng.random() < WHOLE
            onset = 0 if whole else int(rng.integers(SEGMENTS - 1))
            offset = SEGMENTS if whole else int(rng.integers(onset + 1, SEGMENTS + 1))
            for place, modality in enumerate(("audio", "visual")):
                if kind in (0, place + 1):
                    active[place, onset:offset, index] = True
                    events.append(Event(modality, CLASSES[index], onset, offset))  # type: ignore[arg-type]
        labels = tuple(CLASSES[index] for index in chosen)
        return Scene(labels, active, tuple(events), rng.standard_normal(CONTEXT))

    def features(
        self, backbone: SyntheticBackbone, split: str, number: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Draw the rows of a clip.

        Returns
        -------
        features, times
            float32 [SEGMENTS * backbone.rows, dim], not negative; float64 [SEGMENTS *
            backbone.rows], seconds: the middle of the second where it has one row, else those of
            frames.
        """
        scene = self.scene(split, number)
        rng = self._rng(1 + BACKBONES.index(backbone), split, number)
        quality = np.resize(backbone.quality, len(CLASSES))
        own = rng.standard_normal(CONTEXT)
        share = backbone.context
        classes = STRENGTH * quality * scene.active[0 if backbone.modality == "audio" else 1]
        context = np.sqrt(share) * scene.context + np.sqrt(1 - share) * own
        latent = np.hstack([classes, np.tile(context, (SEGMENTS, 1))])
        spread = np.repeat([SEGMENT_NOISE, CONTEXT_NOISE], [len(CLASSES), CONTEXT])
        latent += spread * rng.standard_normal(latent.shape)
        latent = latent.repeat(backbone.rows, axis=0)
        latent += ROW_NOISE * spread * rng.standard_normal(latent.shape)
        values = np.rint(latent * _GRID) @ self._maps[backbone] / _GRID**2 + OFFSET
        middle = 0.5 if backbone.rows == 1 else 0.0
        times = np.arange(len(values), dtype=np.float64) / backbone.rows + middle
        return np.maximum(values, 0).astype(np.float32), times

    @cached_property
    def _maps(self) -> dict[SyntheticBackbone, NDArray[np.float64]]:
        """Each backbone's random map: float64 [latents, dim], whole numbers, to be over `_GRID`."""
        latents = len(CLASSES) + CONTEXT
        return {
            backbone: np.rint(
                _GRID
                / np.sqrt(latents)
                * np.random.default_rng([self.seed, 1 + number]).standard_normal(
                    (latents, backbone.dim(self.width))
                )
            )
            for number, backbone in enumerate(BACKBONES)
        }

    def _rng(self, stream: int, split: str, number: int) -> np.random.Generator:
        # Splits count from 1: numpy takes seeds that differ in trailing zeros for one.
        return np.random.default_rng([self.seed, stream, SPLITS.index(split) + 1, number])
