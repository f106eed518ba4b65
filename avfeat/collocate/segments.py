"""Features by the second: the rows of a store, averaged over each second of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from avfeat.errors import FeaturesError
from avfeat.stores.reader import FeatureStore

# Seconds that rows may drift from their even places over a clip, as VGGish's windows of 0.96 s do;
# all of them may lie off by half of their share of a second besides, as frames of its beginning do.
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
        Of k clips, float32 [k, n, d] and seconds in the clip [k, n], ascending.
    segments
        Seconds of each clip.

    Returns
    -------
    ndarray
        float32 [k, segments, d]; `rows` themselves where those are by the second. A second that no
        row lies in, as the last one of a clip that ends early, has the row nearest to its middle.
    """
    even = _evenly(times, segments)
    if even.all() and rows.shape[1] == segments:
        return rows
    found = np.empty((len(rows), segments, rows.shape[2]), np.float32)
    if even.any():
        chosen = rows if even.all() else rows[even]
        each = chosen.reshape(len(chosen), segments, -1, rows.shape[2])
        found[even] = each.mean(axis=2, dtype=np.float64)
    for number in np.flatnonzero(~even):
        found[number] = _by_time(rows[number], times[number], segments)
    return found


def _by_time(
    rows: NDArray[np.float32], times: NDArray[np.float64], segments: int
) -> NDArray[np.float32]:
    """Average the rows of each second of one clip by their times."""
    second = np.clip(times.astype(np.int64), 0, segments - 1)
    found = np.empty((segments, rows.shape[1]), dtype=np.float32)
    starts = np.searchsorted(second, np.arange(segments + 1))
    for number, (first, last) in enumerate(pairwise(starts.tolist())):
        if first == last:
            found[number] = rows[np.abs(times - (number + 0.5)).argmin()]
        else:
            found[number] = rows[first:last].mean(axis=0, dtype=np.float64)
    return found


def _evenly(times: NDArray[np.float64], segments: int) -> NDArray[np.bool_]:
    """Find the clips of which every second has as many rows as any other, over the whole clip.

    By their number alone, five seconds at two rows each would be taken for ten at one.
    """
    rate, left = divmod(times.shape[1], segments)
    if left or not rate:
        return np.zeros(len(times), bool)
    places = (np.arange(times.shape[1]) + 0.5) / rate
    away = times - places
    drift: NDArray[np.float64] = np.abs(away).max(axis=1)
    even: NDArray[np.bool_] = (drift <= _DRIFT + 0.5 / rate) & (np.ptp(away, axis=1) <= _DRIFT)
    return even


def blocks(
    store: FeatureStore, clips: Sequence[str], segments: int, *, size: int = 64
) -> Iterator[NDArray[np.float32]]:
    """Read clips in order, float32 [k, segments, d] with k up to `size`, all about as many.

    All blocks are in one array: copy what is kept when the next one comes.

    Raises
    ------
    FeaturesError
        If a value is infinite.
    IntegrityError
        If stored bytes are damaged, or a value is NaN, which no row has.
    """
    whole = np.empty((min(size, len(clips)), segments, store.dim), dtype=np.float32)
    for first, end in even_spans(len(clips), -(-len(clips) // size)):
        part = clips[first:end]
        block = whole[: len(part)]
        done = 0
        for rows, times in store.together(part, reuse=True):
            taken = block[done : done + len(rows)]
            with np.errstate(invalid="ignore"):  # of infinite ones; told below
                taken[:] = by_second(rows, times, segments)
            # The mean of a second is finite where its rows are.
            finite = np.isfinite(taken).all(axis=(1, 2))
            if not finite.all():
                raise FeaturesError(
                    f"{store.url}: clip {part[done + int(finite.argmin())]} has infinite features; "
                    "extract the store again, or compare without this backbone"
                )
            done += len(rows)
        yield block


def even_spans(count: int, number: int) -> Iterator[tuple[int, int]]:
    """Cut `count` things into `number` spans, none of them more than one longer than another."""
    if number == 0:
        return iter(())
    return pairwise(count * place // number for place in range(number + 1))


def read_all(store: FeatureStore, clips: Sequence[str], segments: int) -> NDArray[np.float32]:
    """Read all clips, float32 [n, segments, d]; otherwise as `blocks`."""
    found = np.empty((len(clips), segments, store.dim), np.float32)
    first = 0
    for block in blocks(store, clips, segments):
        found[first : first + len(block)] = block
        first += len(block)
    return found
