"""Decoding on a GPU's video engine (NVDEC), by torchcodec; the frames are picked as ever.

PyAV still reads the timestamps and chooses the frames, torchcodec (extra ``gpu``) decodes them.
What NVDEC cannot decode, torchcodec decodes on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import MediaError, UsageError
from avfeat.extract.media.container import THREADS, Media
from avfeat.extract.media.picture import Picture
from avfeat.extract.media.scan import Scan
from avfeat.extract.media.types import DecodeReport, Region

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

#: Frames decoded at once; bounds memory.
_FRAMES = 16


class HardwarePicture(Picture):
    """A picture that came as RGB, uint8 ``[H, W, 3]``, upright."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.height, self.width = pixels.shape[:2]
        self._converted = (Region(0, self.height, 0, self.width), pixels)


def check_available(device: str) -> None:
    """Make sure that video can be decoded on `device`.

    Raises
    ------
    UsageError
        It is no CUDA device, or torchcodec is not installed or does not load.
    """
    if not device.startswith("cuda"):
        raise UsageError(f"--nvdec decodes on a CUDA device, not on {device}; leave it out")
    try:
        import torchcodec.decoders  # noqa: F401 - to see whether it loads
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"--nvdec needs torchcodec (pip install 'avfeat[gpu]') and FFmpeg's libraries: {error}"
        ) from error


def pictures(
    media: Media, scan: Scan, names: list[int], report: DecodeReport, *, device: str
) -> Iterator[tuple[int, Picture]]:
    """Pair each asked name (pts, ascending) with its frame, decoded on `device`.

    A frame that is not there is replaced by the one shown at its time, and counted as corrupt.
    Damage that does not stop the decoder is not seen: torchcodec does not tell.

    Raises
    ------
    MediaError
        ``undecodable``.
    """
    base = media.video.time_base
    own = sorted({int(tick) - scan.offset for tick in scan.timeline.ticks})
    # A frame is asked for by an instant within the time it is shown, not at its edge.
    inside = min((b - a for a, b in pairwise(own)), default=1) / 2
    asked = list(dict.fromkeys(names))
    try:
        decoder = _open(media, device)
        for first in range(0, len(asked), _FRAMES):
            chunk = asked[first : first + _FRAMES]
            batch = decoder.get_frames_played_at([float((name + inside) * base) for name in chunk])
            found: dict[int, Picture] = {}
            for name, pixels, seconds in zip(
                chunk, batch.data.cpu().numpy(), batch.pts_seconds.tolist(), strict=True
            ):
                report.corrupt_frames += abs(seconds - float(name * base)) > float(inside * base)
                found[name] = HardwarePicture(pixels)
            yield from ((name, found[name]) for name in names if name in found)
    except (RuntimeError, ValueError, IndexError) as error:
        raise MediaError("undecodable", f"{media.name}: {error}") from error


def _open(media: Media, device: str) -> VideoDecoder:
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    return VideoDecoder(
        media.path,
        stream_index=media.video.index,
        dimension_order="NHWC",
        device=device,
        num_ffmpeg_threads=THREADS,
    )
