"""A decoded frame that is turned into RGB when and where somebody asks, and only the part asked."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from avfeat.extract.media.types import Region

# Formats that swscale turns into RGB block by block, so that a part has the bytes of the whole.
# Elsewhere (more than 8 bits, odd heights, interlaced frames) it filters colours across blocks.
_BLOCKWISE = {"yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (2, 1), "yuvj422p": (2, 1)}
# Columns that swscale handles at once; the last few of a row, where its width is no multiple, come
# from other code, whose rounding differs.
_COLUMNS = 32
# Pixels that a part must save; cutting a frame takes as long as converting so many.
_WORTH = 1 << 18

_threads = threading.local()


class Picture:
    """One decoded frame, upright.

    Holds on to the decoder's frame, in its own format (1.5 bytes per pixel for most video), and to
    what was last converted. It stays valid when the decoder goes on and when the file is closed,
    and may be used in any thread.

    Parameters
    ----------
    frame
        The decoder's frame. Nobody else may write to it.
    turns
        Quarter turns counter-clockwise that set it upright.

    Attributes
    ----------
    height, width
        Of the upright picture, in pixels.
    """

    def __init__(self, frame: VideoFrame, turns: int = 0) -> None:
        self._frame = frame
        self._turns = turns % 4
        size = (frame.height, frame.width)
        self.height, self.width = size if self._turns % 2 == 0 else size[::-1]
        # One attribute, replaced as a whole: threads that ask at once convert twice at worst.
        self._converted: tuple[Region, NDArray[np.uint8]] | None = None

    def rgb(self) -> NDArray[np.uint8]:
        """Return the whole picture, uint8 ``[H, W, 3]``; the very same array every time."""
        return self.region(Region(0, self.height, 0, self.width))

    def region(self, wanted: Region) -> NDArray[np.uint8]:
        """Return a part of the picture, bit by bit as in the whole.

        Returns
        -------
        ndarray
            uint8 ``[h, w, 3]``, not to be written to; rows may lie apart in memory.
        """
        if self._converted is None or not self._converted[0].holds(wanted):
            self._converted = self._convert(wanted)
        held, pixels = self._converted
        if held == wanted:
            return pixels
        return pixels[
            wanted.top - held.top : wanted.bottom - held.top,
            wanted.left - held.left : wanted.right - held.left,
        ]

    def _convert(self, wanted: Region) -> tuple[Region, NDArray[np.uint8]]:
        frame = self._frame
        region = self._convertible(wanted)
        if region is None:
            region = Region(0, self.height, 0, self.width)
        else:
            frame = _cut(frame, region)
        if not hasattr(_threads, "reformatter"):
            _threads.reformatter = VideoReformatter()  # keeps swscale's tables between frames
        # One thread: FFmpeg would start and end as many as there are cores for every frame.
        converted = _threads.reformatter.reformat(frame, format="rgb24", threads=1)
        pixels = cast(NDArray[np.uint8], converted.to_ndarray())
        if self._turns:
            pixels = np.ascontiguousarray(np.rot90(pixels, self._turns))
        return region, pixels

    def _convertible(self, wanted: Region) -> Region | None:
        """Widen a region to one that can be converted by itself; None if the whole is to be."""
        frame = self._frame
        if self._turns or frame.format.name not in _BLOCKWISE:
            return None
        if frame.height % 2 or frame.interlaced_frame:
            return None
        if any(plane.line_size < 0 for plane in frame.planes):  # stored bottom up
            return None
        left, right = wanted.left // _COLUMNS * _COLUMNS, -(-wanted.right // _COLUMNS) * _COLUMNS
        if right > self.width:
            left, right = 0, self.width
        if right % 2:
            return None
        top, bottom = wanted.top // 2 * 2, -(-wanted.bottom // 2) * 2
        saved = self.height * self.width - (bottom - top) * (right - left)
        return Region(top, bottom, left, right) if saved >= _WORTH else None


def _cut(frame: VideoFrame, region: Region) -> VideoFrame:
    """Return a frame that shows a region of another's planes, without copying them."""
    across, down = _BLOCKWISE[frame.format.name]
    planes = []
    for number, plane in enumerate(frame.planes):
        x, y = (across, down) if number else (1, 1)
        lines = np.frombuffer(cast(Any, plane), dtype=np.uint8).reshape(plane.height, -1)
        planes.append(
            lines[region.top // y : region.bottom // y, region.left // x : region.right // x]
        )
    part = VideoFrame.from_dlpack(
        planes,
        format=frame.format.name,
        width=region.right - region.left,
        height=region.bottom - region.top,
    )
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    return part
