"""Which stores take part in a collocation: found, compared, and missing ones named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from avfeat.datasets.synthetic import BACKBONES as FAMILY
from avfeat.datasets.synthetic import NAME as SYNTHETIC
from avfeat.errors import CollocationError, RandomWeightsError, UnknownNameError
from avfeat.manifests.recipe import differences
from avfeat.stores.reader import FeatureStore
from avfeat.stores.summary import find_stores
from avfeat.words import counted

Modality = Literal["audio", "visual"]
#: Names of an audio and of a visual backbone.
Pair = tuple[str, str]

#: In place of a split's name: all clips, whatever their split.
ALL = "all"

#: The 3-D network that the papers keep beside whichever 2-D network is tried.
MOTION = "r2plus1d_18"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backbone whose features are at hand.

    Attributes
    ----------
    name
        Of the backbone, as the recipe has it.
    modality
        What it looks or listens to.
    store
        Its rows.
    """

    name: str
    modality: Modality
    store: FeatureStore


@dataclass(frozen=True, slots=True)
class Missing:
    """A backbone that was asked for and has no store; `command` makes it."""

    name: str
    modality: Modality
    command: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The stores of one data set that are compared, and the clips they have in common.

    Attributes
    ----------
    dataset
        Its name.
    audio, visual
        In the order asked for.
    motion
        The 3-D network beside every visual one; None without.
    missing
        Asked for, but without a store.
    left_out
        Backbone name to the reason why its store takes no part although ``all`` were asked for.
    clips
        Ids of the clips that all of them have rows of, in the order of the first store.
    apart
        How many clips some store has and some other has not.
    """

    dataset: str
    audio: tuple[Candidate, ...]
    visual: tuple[Candidate, ...]
    motion: Candidate | None
    missing: tuple[Missing, ...]
    left_out: dict[str, str]
    clips: tuple[str, ...]
    apart: int

    @property
    def pairs(self) -> list[tuple[Candidate, Candidate]]:
        """Every audio beside every visual backbone."""
        return [(audio, visual) for audio in self.audio for visual in self.visual]

    @property
    def all(self) -> list[Candidate]:
        """Everything that rows are read from, each once."""
        motion = [self.motion] if self.motion else []
        return list(dict.fromkeys([*self.audio, *self.visual, *motion]))

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that common clips are in, sorted."""
        reference = self.all[0].store
        return tuple(sorted({reference.clip(clip_id).split for clip_id in self.clips}))

    def split(self, name: str) -> list[str]:
        """Ids of the common clips of a split, or of all splits by the name ``all``.

        Raises
        ------
        CollocationError
            If there are none.
        """
        if name == ALL:
            return list(self.clips)
        reference = self.all[0].store
        found = [clip_id for clip_id in self.clips if reference.clip(clip_id).split == name]
        if not found:
            raise CollocationError(
                f"no clip that all stores have is in split {name!r}; there are "
                f"{', '.join(self.splits)}: choose with --source, --target and --test; {ALL!r} is "
                "every clip, for scores"
            )
        return found


def gather(
    out: str,
    *,
    dataset: str | None,
    audio: Sequence[str],
    visual: Sequence[str],
    motion: str | None = None,
    trains: bool = True,
    allow_random: bool = False,
) -> Candidates:
    """Find the stores that a collocation compares.

    Parameters
    ----------
    out
        Folder or URL that holds ``<dataset>/<backbone>`` stores.
    dataset
        Name; None for the only one there.
    audio, visual
        Backbone names, or ``all``: every store of that modality there but the motion network's,
        with the registry's other backbones named as missing.
    motion
        Backbone beside every visual one, or ``none``; None for r2plus1d_18 where its store is.
    trains
        Whether pairs will be trained: what only scores them reads no motion network's store, and
        does not depend on its clips.
    allow_random
        Also take stores of random weights.

    Raises
    ------
    CollocationError
        No pair is left, two stores of a backbone that takes part, or stores that have no clip
        in common or annotate one differently.
    StoreNotFoundError
        There are no stores.
    RandomWeightsError
        A store that would take part is of random weights.
    UnknownNameError
        A name is neither a store's nor a backbone's, or a data set has no stores.
    """
    shelf = _open(out, dataset)
    beside = None
    if motion is None:
        beside = shelf.found.get(MOTION)
    elif motion != "none":
        beside = shelf.pick(motion, "visual")
        if beside is None:
            raise CollocationError(
                f"--motion {motion}: there is no store of it; make one, or give --motion none:\n"
                f"  {shelf.command(motion)}"
            )
    missing: dict[str, Missing] = {}
    left_out: dict[str, str] = {}
    chosen: dict[Modality, tuple[Candidate, ...]] = {}
    asked: dict[Modality, Sequence[str]] = {"audio": audio, "visual": visual}
    for modality, names in asked.items():
        picked: dict[Candidate, None] = {}
        absent: dict[str, Missing] = {}
        for name in names:
            if name == "all":
                stored = shelf.of(modality)
                picked |= dict.fromkeys(one for one in stored if one is not beside)
                others = shelf.absent(modality)
                left_out |= {one: why for one, (m, why) in shelf.unfit.items() if m == modality}
            else:
                one = shelf.pick(name, modality)
                picked |= {} if one is None else {one: None}
                others = [name] if one is None else []
            absent |= {other: Missing(other, modality, shelf.command(other)) for other in others}
        if not picked:
            commands = "".join(f"\n  {one.command}" for one in absent.values())
            raise CollocationError(
                f"{out} has no {modality} store of {shelf.dataset} to compare"
                + (f"; make one:{commands}" if commands else "")
            )
        chosen[modality] = tuple(picked)
        missing |= absent
    found = Candidates(
        dataset=shelf.dataset,
        audio=chosen["audio"],
        visual=chosen["visual"],
        motion=beside if trains else None,
        missing=tuple(missing.values()),
        left_out=left_out,
        clips=(),
        apart=0,
    )
    for one in found.all:
        if one.name in shelf.twins:
            raise CollocationError(shelf.twins[one.name])
    if not allow_random:
        _refuse_random(found.all)
    clips, apart = _common(found.all)
    return replace(found, clips=clips, apart=apart)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The stores of one data set: those of vectors by name, and why others are unfit.

    Of several stores of one name the first is found; `twins` has the words to refuse it with.
    """

    dataset: str
    root: str
    found: dict[str, Candidate]
    unfit: dict[str, tuple[Modality, str]]
    twins: dict[str, str]

    def of(self, modality: Modality) -> list[Candidate]:
        """Stores of a modality, by name."""
        return [one for _, one in sorted(self.found.items()) if one.modality == modality]

    def absent(self, modality: Modality) -> list[str]:
        """Backbones of vectors that could be extracted, and are not."""
        from avfeat import datasets
        from avfeat.extract import backbones

        if self.dataset not in datasets.names():
            return []  # the synthetic family: what is not there cannot be made
        specs = {name: backbones.get(name).spec for name in backbones.names()}
        return [
            name
            for name, spec in specs.items()
            if spec.modality == modality and spec.map is None and name not in self.found
        ]

    def pick(self, name: str, modality: Modality) -> Candidate | None:
        """Find a store by its backbone's name; None if it could be made.

        Raises
        ------
        CollocationError
            It is of the other modality, or cannot be compared.
        UnknownNameError
            There is neither store nor backbone of that name.
        """
        from avfeat.extract import backbones

        if name in self.unfit:
            raise CollocationError(f"{name} cannot be compared: {self.unfit[name][1]}")
        one = self.found.get(name)
        if one is None:
            try:
                spec = backbones.get(name).spec
            except UnknownNameError as error:
                known = {*backbones.names(), *self.found}
                raise UnknownNameError("backbone", name, known) from error
            if spec.name != name:
                return self.pick(spec.name, modality)
            if self.dataset == SYNTHETIC and name not in {each.name for each in FAMILY}:
                there = ", ".join(sorted(each.name for each in FAMILY))
                raise CollocationError(f"the synthetic family has no {name}; it has {there}")
        own = one.modality if one else spec.modality
        if own != modality:
            raise CollocationError(f"{name} is no {modality} backbone: its modality is {own}")
        return one

    def command(self, name: str) -> str:
        """Give the command that makes a store beside the others."""
        if self.dataset == SYNTHETIC:
            from avfeat.datasets import synthetic_stores

            return synthetic_stores.command(self.root)
        return f"avfeat extract --backbone {name} --dataset {self.dataset} --out {self.root}"


def _open(out: str, dataset: str | None) -> _Shelf:
    """Open the stores of one data set."""
    by_dataset: dict[str, list[FeatureStore]] = {}
    for url in find_stores(out):
        # Random ones are refused when it is known which take part.
        store = FeatureStore(url, allow_random=True)
        by_dataset.setdefault(store.manifest.dataset["name"], []).append(store)
    if dataset is None:
        if len(by_dataset) > 1:
            raise CollocationError(
                f"{out} has stores of {', '.join(sorted(by_dataset))}: choose one with --dataset"
            )
        (dataset,) = by_dataset
    if dataset not in by_dataset:
        raise UnknownNameError("data set with stores", dataset, by_dataset)
    stores = by_dataset[dataset]
    found: dict[str, Candidate] = {}
    unfit: dict[str, tuple[Modality, str]] = {}
    twins: dict[str, str] = {}
    seen: dict[str, FeatureStore] = {}
    for store in stores:
        name, modality = (store.recipe.backbone[key] for key in ("name", "modality"))
        twin = seen.setdefault(name, store)
        if twin is not store:
            fields = ", ".join(field for field, _, _ in differences(twin.recipe, store.recipe))
            differ = f"their recipes differ in {fields}" if fields else "by one recipe"
            twins[name] = (
                f"{twin.url} and {store.url} both hold {name}, {differ}; move one of them elsewhere"
            )
        elif len(store.row_shape) > 1:
            unfit[name] = (modality, "its rows are maps, not vectors")
        else:
            found[name] = Candidate(name, modality, store)
    root = stores[0].url.rstrip("/").rpartition("/")[0].rpartition("/")[0] or "."
    return _Shelf(dataset, root, found, unfit, twins)


def _refuse_random(candidates: Sequence[Candidate]) -> None:
    drawn = [one.store.url for one in candidates if one.store.recipe.weights["source"] == "random"]
    if drawn:
        raise RandomWeightsError(
            f"made with random weights, whose numbers mean nothing: {', '.join(drawn)}. "
            "Compare others, or give --allow-random where that is wanted, in tests and demos"
        )


def _common(candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], int]:
    """Ids that all have rows of, and how many only some have."""
    each = [dict.fromkeys(one.store.ids()) for one in candidates]
    everything = dict.fromkeys(clip_id for ids in each for clip_id in ids)
    common = tuple(clip_id for clip_id in each[0] if all(clip_id in ids for ids in each))
    if not common:
        sizes = ", ".join(
            f"{one.name} {counted(len(ids), 'clip')}"
            for one, ids in zip(candidates, each, strict=True)
        )
        raise CollocationError(f"the stores have no clip in common ({sizes})")
    first, *others = (one.store for one in candidates)
    for other in others:
        differing = next((one for one in common if other.clip(one) != first.clip(one)), None)
        if differing is not None or other.classes != first.classes:
            what = "name the classes" if differing is None else f"annotate clip {differing}"
            raise CollocationError(
                f"{first.url} and {other.url} {what} differently: extract both with the same "
                "annotations"
            )
    return common, len(everything) - len(common)
