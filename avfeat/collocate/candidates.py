"""Which stores take part in a collocation: found, compared, and missing ones named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from avfeat.errors import CollocationError, UnknownNameError
from avfeat.manifests.recipe import differences
from avfeat.stores.reader import FeatureStore
from avfeat.stores.summary import find_stores
from avfeat.words import counted

Modality = Literal["audio", "visual"]

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
        Backbone name to the reason why its store takes no part.
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
        return [*self.audio, *self.visual, *([self.motion] if self.motion else [])]

    def split(self, name: str) -> list[str]:
        """Ids of the common clips of a split.

        Raises
        ------
        CollocationError
            If there are none.
        """
        reference = self.all[0].store
        found = [clip_id for clip_id in self.clips if reference.clip(clip_id).split == name]
        if not found:
            splits = sorted({reference.clip(clip_id).split for clip_id in self.clips})
            raise CollocationError(
                f"no clip that all stores have is in split {name!r}; there are "
                f"{', '.join(splits)}: choose with --source and --target"
            )
        return found


def gather(
    out: str,
    *,
    dataset: str | None,
    audio: Sequence[str],
    visual: Sequence[str],
    motion: str | None = None,
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
        Backbone names, or ``all``: every store of that modality there, with the registry's other
        backbones named as missing.
    motion
        Backbone beside every visual one, or ``none``; None for r2plus1d_18 where its store is.
    allow_random
        Also take stores of random weights.

    Raises
    ------
    CollocationError
        No pair is left, or the stores have no clip in common.
    StoreError
        There are no stores, of several data sets, or two recipes of one name.
    RandomWeightsError
        A store is of random weights.
    UnknownNameError
        A name is neither a store's nor a backbone's.
    """
    dataset, stores = _stores(out, dataset, allow_random=allow_random)
    left_out: dict[str, str] = {}
    found: dict[str, Candidate] = {}
    for name, store in stores.items():
        if len(store.row_shape) > 1:
            left_out[name] = "its rows are maps, not vectors"
        else:
            found[name] = Candidate(name, store.recipe.backbone["modality"], store)
    beside = _motion(motion, found, left_out)
    taken_out = {beside.name} if beside is not None and motion is None else set()
    missing: list[Missing] = []
    chosen: dict[Modality, tuple[Candidate, ...]] = {}
    asked: dict[Modality, Sequence[str]] = {"audio": audio, "visual": visual}
    for modality, names in asked.items():
        candidates = []
        for name in _expanded(names, modality, found, left_out, leave=taken_out):
            if name in found:
                candidates.append(_of(modality, found[name]))
            elif name not in left_out:
                missing.append(Missing(name, modality, _command(name, dataset, out)))
            elif name in names:
                raise CollocationError(f"{name} cannot be compared: {left_out[name]}")
        chosen[modality] = tuple(dict.fromkeys(candidates))
    for modality, candidates_ in chosen.items():
        if not candidates_:
            commands = "".join(f"\n  {m.command}" for m in missing if m.modality == modality)
            raise CollocationError(
                f"{out} has no {modality} store of {dataset} to compare; make one:{commands}"
            )
    everything = [*chosen["audio"], *chosen["visual"], *([beside] if beside else [])]
    clips, apart = _common(everything)
    return Candidates(
        dataset=dataset,
        audio=chosen["audio"],
        visual=chosen["visual"],
        motion=beside,
        missing=tuple(missing),
        left_out=left_out,
        clips=clips,
        apart=apart,
    )


def _stores(
    out: str, dataset: str | None, *, allow_random: bool
) -> tuple[str, dict[str, FeatureStore]]:
    """Open the stores of one data set, by backbone name."""
    urls: dict[str, list[str]] = {}
    for url in find_stores(out):
        urls.setdefault(url.rstrip("/").split("/")[-2], []).append(url)
    if dataset is None:
        if len(urls) > 1:
            raise CollocationError(
                f"{out} has stores of {', '.join(sorted(urls))}: choose one with --dataset"
            )
        (dataset,) = urls
    if dataset not in urls:
        raise UnknownNameError("data set with stores", dataset, urls)
    stores: dict[str, FeatureStore] = {}
    for url in urls[dataset]:
        store = FeatureStore(url, allow_random=allow_random)
        name = store.recipe.backbone["name"]
        twin = stores.setdefault(name, store)
        if twin is not store:
            fields = ", ".join(field for field, _, _ in differences(twin.recipe, store.recipe))
            raise CollocationError(
                f"{twin.url} and {url} both hold {name}, and their recipes differ in "
                f"{fields or 'nothing'}; move one of them elsewhere"
            )
    return dataset, stores


def _motion(
    motion: str | None, found: dict[str, Candidate], left_out: dict[str, str]
) -> Candidate | None:
    if motion == "none":
        return None
    if motion is None:
        return found.get(MOTION)
    if motion not in found:
        reason = left_out.get(motion, "there is no store of it")
        raise CollocationError(f"--motion {motion}: {reason}; or --motion none")
    return _of("visual", found[motion])


def _of(modality: Modality, candidate: Candidate) -> Candidate:
    if candidate.modality != modality:
        raise CollocationError(
            f"{candidate.name} is no {modality} backbone: its rows are {candidate.modality}"
        )
    return candidate


def _expanded(
    names: Sequence[str],
    modality: Modality,
    found: dict[str, Candidate],
    left_out: dict[str, str],
    *,
    leave: set[str],
) -> list[str]:
    """Put names for ``all``: the stores there are, then what the registry has besides."""
    from avfeat.extract import backbones

    specs = {name: backbones.get(name).spec for name in backbones.names()}
    known = {*found, *left_out}
    expanded: list[str] = []
    for name in names:
        if name == "all":
            stored = [one.name for one in found.values() if one.modality == modality]
            others = [
                other
                for other, spec in specs.items()
                if spec.modality == modality and spec.map is None and other not in known
            ]
            expanded += [one for one in [*sorted(stored), *others] if one not in leave]
        elif name not in known:
            expanded.append(backbones.get(name).spec.name)
        else:
            expanded.append(name)
    return expanded


def _command(name: str, dataset: str, out: str) -> str:
    return f"avfeat extract --backbone {name} --dataset {dataset} --out {out}"


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
    return common, len(everything) - len(common)
