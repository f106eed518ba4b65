"""Features by the second: the rows of a store, averaged over each second of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import FeaturesError
from avfeat.stores.reader import FeatureStore


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
    second = np.clip(times.astype(np.int64), 0, segments - 1)
    if len(rows) == segments and np.array_equal(second, np.arange(segments)):
        return rows
    found = np.empty((segments, rows.shape[1]), dtype=np.float32)
    starts = np.searchsorted(second, np.arange(segments + 1))
    for number, (first, last) in enumerate(pairwise(starts.tolist())):
        if first == last:
            found[number] = rows[np.abs(times - (number + 0.5)).argmin()]
        else:
            found[number] = rows[first:last].mean(axis=0, dtype=np.float64)
    return found


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
