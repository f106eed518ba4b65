"""Features and labels of clips in memory, as trainings take them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avfeat.collocate.han import Sizes
from avfeat.errors import FeaturesError

_BLOCK = 256  # clips looked at at a time, so that memory-mapped arrays stay on disk


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arrays:
    """Features and labels of n clips of T segments and C classes; arrays or memory maps.

    Attributes
    ----------
    audio
        float32 [n, T, d_a].
    visual
        float32 [n, T * r, d_v]: r rows per segment, in order of time.
    motion
        float32 [n, T, d_m]; None where there is no 3-D visual stream.
    weak
        Clip labels, float32 [n, C] in [0, 1].
    dense
        Segment labels, bool [n, T, 2, C], audio 0 and visual 1; None where they are not known.

    Raises
    ------
    FeaturesError
        If shapes do not fit each other, there is no clip or no class, `weak` is not in [0, 1] or
        `dense` not bool.
    """

    audio: NDArray[np.float32]
    visual: NDArray[np.float32]
    motion: NDArray[np.float32] | None = None
    weak: NDArray[np.float32]
    dense: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name, array in self.streams():
            if array.ndim != 3 or 0 in array.shape:
                raise FeaturesError(
                    f"{name} features have shape {array.shape}; wanted is [clips, rows, features], "
                    "none of them 0"
                )
        (clips, segments, _), rows = self.audio.shape, self.visual.shape[1]
        if rows % segments:
            raise FeaturesError(
                f"{rows} visual rows per clip cannot be averaged over {segments} segments: the "
                "number of rows must be a multiple of the segments, such as "
                f"{segments} or {8 * segments}"
            )
        expected: dict[str, tuple[int | None, ...]] = {
            "visual": (clips, rows, None),
            "motion": (clips, segments, None),
            "weak": (clips, None),
            "dense": (clips, segments, 2, self.weak.shape[-1]),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and not _fits(array.shape, shape):
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                raise FeaturesError(
                    f"{name} has shape {array.shape}; beside audio of {self.audio.shape} and weak "
                    f"labels of {self.weak.shape} it must be [{wanted}]"
                )
        if self.dense is not None and self.dense.dtype != np.bool_:
            raise FeaturesError(f"dense labels must be bool, not {self.dense.dtype}")
        if not self.classes or not bool(((self.weak >= 0) & (self.weak <= 1)).all()):
            raise FeaturesError("weak labels must be of one class or more, and in [0, 1]")

    def streams(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Feature arrays that there are, with their names."""
        yield "audio", self.audio
        yield "visual", self.visual
        if self.motion is not None:
            yield "motion", self.motion

    def __len__(self) -> int:
        return len(self.audio)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.weak.shape[1])

    @property
    def sizes(self) -> Sizes:
        """Sizes of a network for them."""
        return Sizes(
            audio=self.audio.shape[2],
            visual=self.visual.shape[2],
            motion=None if self.motion is None else self.motion.shape[2],
            classes=self.classes,
        )

    def averaged(self) -> Arrays:
        """The same with one visual row per segment, the mean of its rows.

        For the network it makes no difference but rounding, and trainings do it anyway: call it
        once where several follow.
        """
        (clips, segments, _), (_, rows, dim) = self.audio.shape, self.visual.shape
        if rows == segments:
            return self
        means = np.empty((clips, segments, dim), np.float32)
        for part in _blocks(clips):
            block = self.visual[part].reshape(-1, segments, rows // segments, dim)
            block.mean(axis=2, dtype=np.float32, out=means[part])
        return replace(self, visual=means)


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """What a training reads at every step: contiguous float32 on its device.

    Attributes
    ----------
    streams
        Audio [n, T, d_a], visual [n, T, d_v] and, where there is one, motion [n, T, d_m].
    weak
        [n, C].
    """

    streams: tuple[Tensor, ...]
    weak: Tensor

    @classmethod
    def of(cls, arrays: Arrays, device: torch.device) -> Tensors:
        """Bring arrays to a device, visual rows averaged.

        On the CPU contiguous float32 arrays are not copied, so that memory maps stay on disk.

        Raises
        ------
        FeaturesError
            If a feature is not finite.
        """
        arrays = arrays.averaged()
        for name, array in arrays.streams():
            _check_finite(name, array)
        streams = tuple(_tensor(array, device) for _, array in arrays.streams())
        return cls(streams, _tensor(arrays.weak, device))

    def __len__(self) -> int:
        return len(self.weak)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (None, size) for size, want in zip(shape, wanted, strict=True)
    )


def _blocks(clips: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, clips, _BLOCK))


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    for part in _blocks(len(array)):
        bad = ~np.isfinite(array[part]).all(axis=(1, 2))
        if bad.any():
            first = part.start + int(bad.argmax())
            raise FeaturesError(
                f"{name} features of clip {first} (from 0) are not finite: NaN or infinite; "
                "`avfeat verify` tells whether the store is damaged"
            )


def _tensor(array: NDArray[np.float32], device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that read-only arrays could be written to through the tensor. Nothing does.
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)
