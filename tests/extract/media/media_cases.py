"""What the media tests share besides fixtures."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from avfeat.testing import AudioTrack

SIZE = (160, 120)
TONE = AudioTrack(tones=[(1.0, 2.0, 440.0, 0.5)])
MakeClip = Callable[..., Path]


def uneven(seed: int, kind: str, base: int, length: float = 5.0) -> list[float]:
    """Timestamps of a variable rate: jitter, gaps, slow, bursts or late."""
    rnd = random.Random(seed)
    time, times = (rnd.uniform(0, 2) if kind == "late" else 0.0), []
    while time < length:
        times.append(round(time, 4))
        step = 1 / base
        if kind == "jitter":
            step = max(0.0005, rnd.gauss(1 / base, 0.3 / base))
        elif kind == "gaps" and rnd.random() > 0.9:
            step = rnd.uniform(0.05, 1.2)
        elif kind == "slow":
            step = rnd.uniform(0.02, 0.6)
        elif kind == "bursts":
            step = rnd.choice([0.0002, 0.001, 0.01, 0.2, 0.12, 0.13, 0.125])
        time += step
    return sorted(set(times))


def decode_all(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Every frame of a file by its pts, by the plainest decoding there is."""
    with av.open(str(path)) as container:
        return {frame.pts: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
