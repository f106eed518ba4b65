"""Optical flow between consecutive frames: TV-L1 by OpenCV or by torch, and its scaling for I3D."""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avfeat.extract.backbones.spec import FLOW_METHODS

if TYPE_CHECKING:
    import torch

MIN_SIDE = 16  # pixels; the coarsest level of TV-L1's pyramid is no smaller

# Pairs at once, which changes the speed only. One pair's maps fit a processor's cache. A GPU is
# kept busy by many: by all that `avfeat.extract.items` hands over, which is 17 frames at most;
# longer sequences of other callers are cut, which bounds the memory.
_PAIRS_CPU = 1
_PAIRS_GPU = 16


def flow(
    frames: NDArray[np.uint8],
    method: str = "tvl1-opencv",
    *,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Optical flow from each frame to the next.

    Zach, Pock and Bischof's duality based TV-L1 (DAGM 2007) in the form of Sánchez,
    Meinhardt-Llopis and Facciolo (IPOL 2013, doi:10.5201/ipol.2013.26) with OpenCV's default
    parameters, on grey values: what I3D's flow stream was trained on (Carreira and Zisserman,
    arXiv:1705.07750).

    Parameters
    ----------
    frames
        uint8 ``[n + 1, H, W, 3]`` RGB or ``[n + 1, H, W]`` grey, n >= 1, sides of at least 16
        pixels. Colours become grey as by OpenCV's ``COLOR_RGB2GRAY``, for either method.
    method
        ``tvl1-opencv``: ``DualTVL1OpticalFlow`` of OpenCV's contrib modules. ``tvl1-torch``: the
        same steps in torch, see `avfeat.extract.flow_torch`.
    device
        Where ``tvl1-torch`` runs; ``tvl1-opencv`` always runs on the CPU.

    Returns
    -------
    ndarray
        float32 ``[n, H, W, 2]`` in pixels, x (rightwards) then y (downwards), from frame k to
        k + 1. Exactly zero between identical frames. Each pair's flow is the same whatever other
        pairs are asked for, and on one machine has the same bits for any number of threads.

    Raises
    ------
    ValueError
        The method is unknown, or the frames have another type or shape, are fewer than two, or
        have a side shorter than 16.

    Notes
    -----
    The two methods differ by as much as noise of 1e-4 grey levels moves OpenCV's own result, see
    docs/parity.md: where no flow is right, at borders that things cross and in motion too fast for
    the pyramid, rounding decides. OpenCV 4 warps in steps of 1/32 pixel, which 5 does not.

    Either method computes in the calling thread alone, since clips are decoded in threads of their
    own. For that the first use sets OpenCV's number of threads to 1 for the whole process.
    """
    if method not in FLOW_METHODS:
        raise ValueError(f"unknown flow method {method!r}; known: {', '.join(FLOW_METHODS)}")
    images = _grey(frames)
    if method == "tvl1-opencv":
        return _by_opencv(images)
    return _by_torch(images, device)


def normalise(flow: torch.Tensor, *, bound: float = 20.0, quantised: bool = False) -> torch.Tensor:
    """Scale flow to [-1, 1] as I3D wants it.

    Parameters
    ----------
    flow
        Floating point, any shape and device, in pixels.
    bound
        Positive; longer components are cut to it, in pixels. 20 is the published value.
    quantised
        Whether to go through 8-bit levels q, as published features did that were stored as
        pictures: ``q = round((v + bound) / (2 bound) * 255)``, then ``2 q / 255 - 1``. No motion is
        level 128 then, +0.0039 and not 0. Halves are rounded to even.

    Returns
    -------
    Tensor
        float32 of the same shape and device. NaN stays NaN.

    Raises
    ------
    ValueError
        The bound is not positive.
    """
    if not bound > 0:
        raise ValueError(f"bound {bound} must be positive")
    cut = flow.float().clamp(-bound, bound)
    if not quantised:
        return cut / bound
    levels = ((cut + bound) / (2 * bound) * 255).round()
    return levels * 2 / 255 - 1


def _grey(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colour = frames.ndim == 4 and frames.shape[3] == 3
    if frames.dtype != np.uint8 or not (colour or frames.ndim == 3):
        raise ValueError(
            f"frames are uint8 [n, H, W, 3] or [n, H, W], got {frames.dtype} {list(frames.shape)}"
        )
    n, height, width = frames.shape[:3]
    if n < 2 or min(height, width) < MIN_SIDE:
        raise ValueError(
            f"flow needs two or more frames with sides of at least {MIN_SIDE} pixels, "
            f"got {n} of {height} x {width}"
        )
    if not colour:
        return np.ascontiguousarray(frames)
    cv2 = _opencv()
    tall = np.ascontiguousarray(frames).reshape(n * height, width, 3)
    grey: NDArray[np.uint8] = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY)
    return grey.reshape(n, height, width)


def _by_opencv(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    # An object keeps its buffers between pairs, so no two threads may share one. It also keeps, for
    # good, the number of levels that it cut for a small picture; all are of one size here.
    estimator = _opencv().optflow.DualTVL1OpticalFlow_create(
        tau=0.25,
        lambda_=0.15,
        theta=0.3,
        nscales=5,
        warps=5,
        epsilon=0.01,
        innnerIterations=30,  # spelt so
        outerIterations=10,
        scaleStep=0.8,
        gamma=0.0,
        medianFiltering=5,
        useInitialFlow=False,
    )
    flows = np.empty((len(images) - 1, *images.shape[1:], 2), np.float32)
    for k in range(len(flows)):
        flows[k] = estimator.calc(images[k], images[k + 1], None)
    return flows


def _by_torch(images: NDArray[np.uint8], device: torch.device | str) -> NDArray[np.float32]:
    import torch

    from avfeat.extract.flow_torch import tvl1

    device = torch.device(device)
    at_once = _PAIRS_CPU if device.type == "cpu" else _PAIRS_GPU
    on_device = torch.from_numpy(images).to(device)
    flows = np.empty((len(images) - 1, *images.shape[1:], 2), np.float32)
    with _ONE_THREAD:
        for start in range(0, len(flows), at_once):
            part = on_device[start : start + at_once + 1]
            flows[start : start + at_once] = tvl1(part[:-1], part[1:]).movedim(1, -1).cpu().numpy()
    return flows


class _OneThread:
    """Lets torch's operations on the CPU run in the calling thread alone.

    TV-L1 is thousands of short operations. Where processors are busy, each would wait for a thread
    that is not running: 50 times as long with two threads as with one, at worst.

    torch keeps the number per thread, and new threads start with what any thread set last. So it
    is set back to what it was before the first of several threads came in here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    def __enter__(self) -> None:
        import torch

        with self._lock:
            # A thread gets its number when it first asks, which would undo what was set before.
            before = torch.get_num_threads()
            if self._inside == 0:
                self._before = before
            self._inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            torch.set_num_threads(self._before)


_ONE_THREAD = _OneThread()


@functools.cache
def _opencv() -> ModuleType:
    import cv2

    # Threads do not change the result (a test looks), but these would compete with ours.
    cv2.setNumThreads(1)
    module: ModuleType = cv2
    return module
