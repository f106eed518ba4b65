"""Features by the second: the rows of a store, averaged over each second of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import FeaturesError
from avfeat.stores.reader import FeatureStore

# Seconds that a row may lie off its even place, as VGGish's windows of 0.96 s come to over a clip.
_DRIFT = 0.5


def segment_count(stores: Sequence[FeatureStore], clips: Sequence[str]) -> int:
    """Return how many whole seconds every clip has.

    Raises
    ------
    FeaturesError
        If clips differ: segments of one length are compared, as in LLP and AVE. Or if they are
        shorter than a second.
    """
    lengths: dict[int, str] = {}
    for store in stores:
        for clip_id in clips:
            lengths.setdefault(round(store.clip(clip_id).seconds), clip_id)
    shortest, longest = min(lengths), max(lengths)
    if shortest != longest:
        raise FeaturesError(
            f"clips of one length are compared, but {lengths[shortest]} has {shortest} s and "
            f"{lengths[longest]} has {longest} s"
        )
    if shortest < 1:
        raise FeaturesError(f"{lengths[shortest]} and all other clips are shorter than a second")
    return shortest


def by_second(
    rows: NDArray[np.float32], times: NDArray[np.float64], segments: int
) -> NDArray[np.float32]:
    """Average the rows of each second.

    Where there are r rows for every second, segment k is rows r k to r k + r - 1, as consumers of
    published LLP features read its 80 frames of eight per second (Tian et al., ECCV 2020): a frame
    taken for a time that lies a little before it stays in its second. Otherwise their times tell.

    Parameters
    ----------
    rows, times
        float32 [n, d], and seconds in the clip [n], ascending.
    segments
        Seconds of the clip.

    Returns
    -------
    ndarray
        float32 [segments, d]. A second that no row lies in, as the last one of a clip that ends
        early, has the row nearest to its middle.
    """
    if _evenly(times, segments):
        if len(rows) == segments:
            return rows
        means: NDArray[np.float64] = rows.reshape(segments, -1, rows.shape[1]).mean(
            axis=1, dtype=np.float64
        )
        return means.astype(np.float32)
    second = np.clip(times.astype(np.int64), 0, segments - 1)
    found = np.empty((segments, rows.shape[1]), dtype=np.float32)
    starts = np.searchsorted(second, np.arange(segments + 1))
    for number, (first, last) in enumerate(pairwise(starts.tolist())):
        if first == last:
            found[number] = rows[np.abs(times - (number + 0.5)).argmin()]
        else:
            found[number] = rows[first:last].mean(axis=0, dtype=np.float64)
    return found


def _evenly(times: NDArray[np.float64], segments: int) -> bool:
    """Whether every second has as many rows as any other, spread over the whole clip.

    By their number alone, five seconds at two rows each would be taken for ten at one.
    """
    rate, left = divmod(len(times), segments)
    if left or not rate:
        return False
    even = (np.arange(len(times)) + 0.5) / rate
    return bool(np.abs(times - even).max() <= _DRIFT)


def blocks(
    store: FeatureStore, clips: Sequence[str], segments: int, *, size: int = 64
) -> Iterator[NDArray[np.float32]]:
    """Read clips in order, float32 [k, segments, d] with k up to `size`; holds one block.

    Raises
    ------
    FeaturesError
        If a value is infinite.
    IntegrityError
        If stored bytes are damaged, or a value is NaN, which no row has.
    """
    for first in range(0, len(clips), size):
        part = clips[first : first + size]
        block = np.empty((len(part), segments, store.dim), dtype=np.float32)
        for number, (rows, times) in enumerate(store.each(part)):
            if not np.isfinite(rows).all():
                raise FeaturesError(
                    f"{store.url}: clip {part[number]} has infinite features; extract the store "
                    "again, or compare without this backbone"
                )
            block[number] = by_second(rows, times, segments)
        yield block
