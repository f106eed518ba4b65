"""What trainings read: features by the second and labels, once per process."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avfeat.collocate.arrays import Arrays
from avfeat.collocate.candidates import Candidate, Candidates
from avfeat.collocate.segments import read_all, segment_count
from avfeat.errors import FeaturesError
from avfeat.manifests.clips import Clip
from avfeat.manifests.jsonfile import digest
from avfeat.metrics import avvp
from avfeat.stores.files import Files
from avfeat.stores.reader import FeatureStore

#: Bytes of features that a process keeps for the next training. LLP's 10,000 training clips by the
#: second take 0.8 GB per 2048 features.
_KEPT_BYTES = 3 << 30


@dataclass(frozen=True, slots=True)
class Source:
    """Where a backbone's rows are: what a worker needs to open them."""

    name: str
    url: str
    fingerprint: str

    @classmethod
    def of(cls, candidate: Candidate) -> Source:
        """Refer to a candidate's store, wherever a worker was started."""
        store = candidate.store
        url = str(Files(store.url).local or store.url)
        return cls(candidate.name, url, store.fingerprint)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The clips that pairs are compared on. Picklable; holds no features.

    Attributes
    ----------
    dataset
        Its name.
    classes
        Canonical order.
    segments
        Seconds per clip.
    splits
        Split name to its clips, as annotated.
    digests
        Split name to sha256 (hex) of these.
    contents
        Split name to backbone name to what says which rows its clips have; media may change where
        recipes and annotations do not. See `FeatureStore.content`.
    allow_random
        Whether stores of random weights may be opened.
    """

    dataset: str
    classes: tuple[str, ...]
    segments: int
    splits: dict[str, tuple[Clip, ...]]
    digests: dict[str, str]
    contents: dict[str, dict[str, str]]
    allow_random: bool

    @classmethod
    def of(cls, candidates: Candidates, splits: set[str], *, allow_random: bool) -> Corpus:
        """Take the common clips of some splits.

        Raises
        ------
        FeaturesError
            The data set has no classes, or clips differ in length.
        CollocationError
            A split has no common clip.
        """
        store = candidates.all[0].store
        if not store.classes:
            raise FeaturesError(
                f"{candidates.dataset} has no classes: nothing can be trained on it"
            )
        taken = {
            split: tuple(store.clip(clip_id) for clip_id in candidates.split(split))
            for split in sorted(splits)
        }
        everything = [clip.id for clips in taken.values() for clip in clips]
        segments = segment_count([store], everything)
        digests = {
            split: digest([dataclasses.asdict(clip) for clip in clips])
            for split, clips in taken.items()
        }
        contents = {
            split: {
                one.name: one.store.content(clip.id for clip in clips) for one in candidates.all
            }
            for split, clips in taken.items()
        }
        return cls(
            candidates.dataset, store.classes, segments, taken, digests, contents, allow_random
        )

    def features(self, source: Source, split: str) -> NDArray[np.float32]:
        """Read a backbone's features of a split, float32 [n, segments, d]; kept for the next."""
        return _cache.get(self, source, split)

    def arrays(self, audio: Source, visual: Source, motion: Source | None, split: str) -> Arrays:
        """Put together what a training takes of a split."""
        clips = self.splits[split]
        dense = None
        if any(clip.events for clip in clips):
            dense = avvp.dense_labels(clips, self.classes, segments=self.segments)
        return Arrays(
            audio=self.features(audio, split),
            visual=self.features(visual, split),
            motion=None if motion is None else self.features(motion, split),
            weak=avvp.weak_labels(clips, self.classes),
            dense=dense,
        )


class _Cache:
    """Features of this process, the longest unused thrown out first.

    What was asked for last is kept, however large it is.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[object, ...], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, corpus: Corpus, source: Source, split: str) -> NDArray[np.float32]:
        ids = tuple(clip.id for clip in corpus.splits[split])
        content = corpus.contents[split][source.name]
        key = (source, content, corpus.segments, ids)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            store = FeatureStore(source.url, allow_random=corpus.allow_random)
            if (store.fingerprint, store.content(ids)) != (source.fingerprint, content):
                raise FeaturesError(
                    f"{source.url} was changed while it was being used; the same command starts "
                    "with what is there now"
                )
            found = read_all(store, ids, corpus.segments)
            found.flags.writeable = False
            self._held[key] = found
            while len(self._held) > 1 and self._bytes() > _KEPT_BYTES:
                self._held.popitem(last=False)
            return found

    def _bytes(self) -> int:
        return sum(one.nbytes for one in self._held.values())


_cache = _Cache()
