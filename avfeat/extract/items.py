"""Frames to items: each geometry once per frame, optical flow once per pair, windows cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from avfeat.extract import transforms
from avfeat.extract.backbones.spec import FlowMethod, Geometry, VisualInput
from avfeat.extract.media.picture import Picture
from avfeat.extract.media.types import Region

#: Frames handled at once; bounds memory whatever the clip's length.
_CHUNK_FRAMES = 16

Emit = Callable[[str, np.ndarray, np.ndarray], None]


class VisualItems:
    """Turns the frames of one sampling into the items of every backbone that wants it.

    Parameters
    ----------
    inputs
        Name of a backbone to its input.
    emit
        Called with name, items ``[n, *item_shape]`` and their times, float64 ``[n]``: of the source
        frame, or the mean over a snippet's frames, in seconds in the clip.
    device
        Torch device for optical flow, by the method that can use one.
    """

    def __init__(self, inputs: Mapping[str, VisualInput], emit: Emit, *, device: str) -> None:
        self._emit = emit
        self._inputs = inputs
        self._cutters = {
            name: Cutter(wanted.frames, wanted.stride, padding=wanted.padding)
            for name, wanted in inputs.items()
        }
        self._geometries = {wanted.geometry for wanted in inputs.values()}
        self._flows = {
            (wanted.geometry, wanted.flow): _Flow(wanted.flow, device)
            for wanted in inputs.values()
            if wanted.stream != "rgb"
        }
        # Flow is computed on what the crop cuts off too.
        self._uncropped = {geometry for geometry, _ in self._flows}
        self._picture: Picture | None = None
        self._resized: dict[Geometry, NDArray[np.uint8]] = {}
        self._frames: list[dict[Geometry, NDArray[np.uint8]]] = []
        self._times: list[float] = []

    def push(self, picture: Picture, seconds: float) -> None:
        """Take the next frame and its time; the frame is converted here, in this thread."""
        if picture is not self._picture:  # the same object where a frame is sampled twice
            self._picture = picture
            self._resized = self._resize(picture)
        self._frames.append(self._resized)
        self._times.append(seconds)
        if len(self._frames) == _CHUNK_FRAMES:
            self._flush(last=False)

    def _resize(self, picture: Picture) -> dict[Geometry, NDArray[np.uint8]]:
        """Resize a frame to every geometry, and crop where nobody needs the rest."""
        size = (picture.height, picture.width)
        if self._uncropped:
            region = Region(0, picture.height, 0, picture.width)
        else:
            needed = [transforms.needed(geometry, *size) for geometry in self._geometries]
            region = reduce(Region.union, needed)
        rgb = picture.region(region)
        return {
            geometry: transforms.resize(geometry, rgb)
            if geometry in self._uncropped
            else transforms.cropped(geometry, rgb, region, size)
            for geometry in self._geometries
        }

    def finish(self) -> None:
        """Emit what is left when there are no more frames."""
        self._flush(last=True)

    def _flush(self, *, last: bool) -> None:
        times = np.array(self._times)
        pictures = {
            g: np.stack([frame[g] for frame in self._frames])
            if self._frames
            else np.empty((0, *g.shape, 3), dtype=np.uint8)
            for g in self._geometries
        }
        self._frames, self._times = [], []
        moving = {
            key: flow.push(pictures[key[0]], times, last=last) for key, flow in self._flows.items()
        }
        crops: dict[Geometry, NDArray[np.uint8]] = {}
        for name, wanted in self._inputs.items():
            geometry, stamps = wanted.geometry, times
            entries: np.ndarray
            if wanted.stream == "rgb":
                if geometry not in crops:
                    crops[geometry] = pictures[geometry]
                    if geometry in self._uncropped:
                        crops[geometry] = transforms.crop(geometry, pictures[geometry])
                entries = crops[geometry]
            else:
                frames, flows, stamps = moving[geometry, wanted.flow]
                entries = transforms.crop(geometry, flows)
                if wanted.stream == "rgb+flow":
                    still = transforms.crop(geometry, frames).astype(np.float32)
                    entries = np.concatenate([still, entries], axis=-1)
            _, items = self._cutters[name].push(entries, last=last)
            shown = self._cutters[name].times(stamps, last=last)
            if len(items):
                self._emit(name, items[:, 0] if wanted.frames == 1 else items, shown)


class _Flow:
    """The optical flow of a stream of frames, each frame with the flow to the next one."""

    def __init__(self, method: FlowMethod, device: str) -> None:
        self._method = method
        self._device = device
        self._frame: NDArray[np.uint8] | None = None
        self._time = np.empty(0)
        self._last: NDArray[np.float32] | None = None

    def push(
        self, frames: NDArray[np.uint8], times: NDArray[np.float64], *, last: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
        """Take frames [n, H, W, 3] and their times [n]; return those whose flow is known.

        That is one frame later; the last frame of all gets the flow of the one before it, or none
        (0) where it is the only one.
        """
        if self._frame is not None:
            frames = np.concatenate([self._frame, frames]) if len(frames) else self._frame
            times = np.concatenate([self._time, times])
        height, width = frames.shape[1:3]
        flows = np.empty((0, height, width, 2), dtype=np.float32)
        if len(frames) > 1:
            from avfeat.extract.flow import flow  # torch, which most data sets do without

            flows = flow(frames, method=self._method, device=self._device)
            self._last = flows[-1:]
        if last and len(frames):
            end = self._last
            if end is None:
                end = np.zeros((1, height, width, 2), dtype=np.float32)
            return frames, np.concatenate([flows, end]), times
        known = max(0, len(frames) - 1)
        if len(frames):
            self._frame, self._time = frames[known:], times[known:]
        return frames[:known], flows, times[:known]


class Cutter:
    """Cut a stream that comes in blocks into windows of `size`, every `step`.

    Parameters
    ----------
    size, step
        Values per window, and from the start of one to the next.
    padding
        How often the stream's first and its last value are repeated.
    """

    def __init__(self, size: int, step: int, *, padding: int = 0) -> None:
        self._values = _Windows(size, step, padding)
        self._stamps = _Windows(size, step, padding)
        self._step = step
        self._first = 0

    def push(self, values: np.ndarray, *, last: bool = False) -> tuple[int, np.ndarray]:
        """Add values [n, ...]; return where the new windows start, and them [m, size, ...]."""
        windows = self._values.push(values, last=last)
        first = self._first
        self._first += len(windows) * self._step
        return first, np.ascontiguousarray(np.moveaxis(windows, -1, 1))

    def times(self, stamps: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Add the stamps [n] of pushed values; return the mean stamp of each new window [m]."""
        return np.asarray(self._stamps.push(stamps, last=last).mean(axis=-1))


class _Windows:
    def __init__(self, size: int, step: int, padding: int) -> None:
        self._size, self._step, self._padding = size, step, padding
        self._begun = False
        self._kept: np.ndarray | None = None
        self._end: np.ndarray | None = None
        # Values still to be passed over before the next window, where windows have gaps.
        self._gap = 0

    def push(self, new: np.ndarray, *, last: bool) -> np.ndarray:
        """Return the windows [m, ..., size] that are complete now."""
        if self._padding:
            new = self._padded(new, last=last)
        passed = min(self._gap, len(new))
        self._gap -= passed
        new = new[passed:]
        data = new if self._kept is None else np.concatenate([self._kept, new])
        count = max(0, (len(data) - self._size) // self._step + 1)
        if not count:
            self._kept = data
            return np.empty((0, *data.shape[1:], self._size), dtype=data.dtype)
        used = count * self._step
        self._gap = max(0, used - len(data))
        self._kept = data[used:].copy()
        return sliding_window_view(data, self._size, axis=0)[:: self._step][:count]

    def _padded(self, new: np.ndarray, *, last: bool) -> np.ndarray:
        if len(new):
            self._end = new[-1:].copy()
        if self._end is None:
            return new
        before = new[:1] if not self._begun else new[:0]
        self._begun = True
        after = self._end if last else new[:0]
        return np.concatenate(
            [np.repeat(before, self._padding, axis=0), new, np.repeat(after, self._padding, axis=0)]
        )
