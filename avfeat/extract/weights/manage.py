"""What ``avfeat weights`` does: weights by name, listed, fetched, verified, imported."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avfeat.digest import ANY, Digest
from avfeat.errors import UnknownNameError, UsageError, WeightsError
from avfeat.extract import backbones
from avfeat.extract.backbones import Backbone
from avfeat.extract.weights import cache, convert, pins, registry
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.registry import Source, WeightsEntry

_OWN = (".lock", ".part", ".json", ".import")  # of files that avfeat keeps beside weights


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found of one file.

    Parameters
    ----------
    path
        The file.
    status
        ``"ok"``; ``"damaged"``; ``"unknown"`` for a file that no weights of this installation have.
    weights
        Name of the weights that it belongs to, None if unknown.
    message
        What is wrong with it and what to do; empty if nothing is.
    """

    path: Path
    status: str
    weights: str | None = None
    message: str = ""


def entries() -> dict[str, WeightsEntry]:
    """All weights of all registered backbones, and the parts that some are put together from."""
    found = {entry.name: entry for _, entry in _used()}
    return dict(sorted((registry.entries() | found).items()))


def listed() -> list[WeightsEntry]:
    """All of `entries`, and those of libraries' models (``timm:``, ``torchvision:``) in the cache.

    A model that its library no longer has is left out.
    """
    found = entries()
    for name in sorted(pins.names() - found.keys()):
        if ":" in name:
            with contextlib.suppress(UsageError, WeightsError):
                entry = resolve(name)
                if entry.name == name and cache.is_cached(entry):
                    found[name] = entry
    return list(found.values())


def resolve(name: str) -> WeightsEntry:
    """Say which weights a name means.

    Parameters
    ----------
    name
        A backbone (``resnet152``, ``openl3.music``, ``timm:resnet18.a1_in1k``), which means its
        default weights; a backbone with a tag (``resnet152.tv_in1k_v1``); or an entry that only
        serves as a part of others (``vggish.audioset_pca``).

    Raises
    ------
    UnknownNameError
        It is none of these; the message offers the nearest one.
    WeightsError
        The backbone has no published weights.
    """
    known = entries()
    if name in known:
        return known[name]
    try:
        found = backbones.find_entry(backbones.get(name))
    except UnknownNameError as error:
        # Of a library's models, which are not listed here; of an option, as `extract` has it.
        if ":" in name or name.partition(".")[0] in backbones.names():
            raise
        raise UnknownNameError("weights", name, {*known, *backbones.names()}) from error
    assert isinstance(found, WeightsEntry)  # random weights have to be asked for
    return found


def select(names: Sequence[str]) -> list[WeightsEntry]:
    """Resolve names without duplicates; ``all`` is everything that is listed, parts once."""
    if "all" in names:
        return [entry for entry in entries().values() if not entry.parts]
    return list({entry.name: entry for entry in map(resolve, names)}.values())


def describe_all() -> list[dict[str, Any]]:
    """Describe all of `listed`, with the parameters of the networks that load them."""
    parameters = {entry.name: backbone.spec.parameters for backbone, entry in _used()}
    return [describe(entry, parameters=parameters.get(entry.name)) for entry in listed()]


def describe(entry: WeightsEntry, *, parameters: int | None = None) -> dict[str, Any]:
    """Describe weights as plain data.

    ``size_mib`` is what publishers state; ``estimated_mib`` what the `parameters` of the network
    take, if they are given.

    ``cached`` is about files being there, not being right; ``problems`` are pins that are damaged,
    whose files are refused until these are deleted, and do not count as cached.
    """
    return {
        "name": entry.name,
        "licence": entry.licence,
        "trained_on": entry.trained_on,
        "citation": entry.citation,
        "parts": {part: other.name for part, other in entry.parts},
        "sources": [
            {
                "file": source.file,
                "urls": list(source.urls),
                "digest": source.digest,
                "size_mib": source.size_mib or _pinned_mib(leaf, source),
            }
            for leaf in entry.leaves
            for source in leaf.sources
        ],
        "size_mib": _size_mib(entry),
        "estimated_mib": parameters and round(parameters * 4 / 2**20, 3),
        "cached": cache.is_cached(entry),
        "problems": _problems(entry),
    }


def _problems(entry: WeightsEntry) -> list[str]:
    found = []
    for leaf in entry.leaves:
        for source in leaf.sources:
            try:
                pins.read(leaf.name, source.file)
            except WeightsError as error:
                found.append(str(error))
    return found


def _size_mib(entry: WeightsEntry) -> float | None:
    """What is downloaded, in MiB: the first source of each part; None where one is not known."""
    sizes = [
        leaf.sources[0].size_mib or _pinned_mib(leaf, leaf.sources[0]) for leaf in entry.leaves
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _pinned_mib(leaf: WeightsEntry, source: Source) -> float | None:
    try:
        pin = pins.read(leaf.name, source.file)
    except WeightsError:
        return None  # damaged: `_problems` says so
    return None if pin is None else round(pin.size / 2**20, 3)


def paths(entry: WeightsEntry) -> list[Path]:
    """Paths of the verified files of an entry, one per part.

    Raises
    ------
    WeightsError
        One is not in the cache, or not what it should be.
    """
    info = cache.find(entry)
    if info is None:
        raise WeightsError(
            f"weights {entry.name} are not in the cache; `avfeat weights fetch {entry.name}` "
            "downloads them"
        )
    return [part.path for part in leaves(info) if part.path is not None]


def leaves(info: WeightsInfo) -> tuple[WeightsInfo, ...]:
    """The provenance of each file: of the weights themselves, or of their parts."""
    return tuple(leaf for _, part in info.parts for leaf in leaves(part)) or (info,)


def verify() -> Iterator[Checked]:
    """Hash every file of weights in the cache, and every conversion of one."""
    known: dict[Path, tuple[str, Digest, float | None]] = {}
    for pin_path in sorted(pins.folder().glob("*/*.json")):
        try:
            pin = pins.load(pin_path)
        except WeightsError as error:
            yield Checked(pin_path, "damaged", message=str(error))
        else:
            known[cache.folder() / pin.place] = (
                pin.weights,
                Digest("sha256", pin.sha256),
                pin.size,
            )
    for leaf in {leaf.name: leaf for entry in entries().values() for leaf in entry.leaves}.values():
        for source in leaf.sources:
            if source.digest is not None:  # else its pin is the only one to know
                path = cache.folder() / cache.place_of(source)
                known.setdefault(path, (leaf.name, Digest.parse(source.digest), source.least_bytes))
    for path in sorted(cache.folder().glob("*/*")):
        original = path.with_name(path.name.removesuffix(convert.SUFFIX))
        if path in known:
            yield from _check(path, *known[path])
        elif path.is_file() and path.suffix not in _OWN and original not in known:
            yield Checked(path, "unknown", message="no weights of this installation have it")


def _check(path: Path, name: str, digest: Digest, whole: float | None) -> Iterator[Checked]:
    """Check a file and, if it is right, its conversion."""
    difference, sha256 = digest.difference(path)
    if difference is not None:
        short = cache.shortfall(path, whole)
        reason = f"{short}: the download broke off" if short else difference
        mend = f"delete it and run `avfeat weights fetch {name}`"
        yield Checked(path, "damaged", name, f"{reason}; {mend}")
        return
    yield Checked(path, "ok", name)
    match convert.check(path, sha256):
        case "good":
            yield Checked(convert.path_of(path), "ok", name)
        case "damaged":
            again = "it is not what was written; it is made anew when it is next used"
            yield Checked(convert.path_of(path), "damaged", name, again)


def import_file(file: Path, name: str) -> WeightsInfo:
    """Bring a file that came in another way into the cache.

    Its digest must be that of one of the entry's sources, where any is published, and its tensors
    must fit the backbone. Nothing is imported otherwise: weights of another training would fit too,
    so a mirror of which no digest is known lets in only what was pinned as its file.

    Parameters
    ----------
    file
        Of any name.
    name
        Which weights it is to be; see `resolve`.

    Raises
    ------
    UnknownNameError
        There are no such weights.
    WeightsError
        It is another file, or cannot be read, or is of another architecture.
    """
    import torch

    from avfeat.extract.weights.read import read_state
    from avfeat.extract.weights.state import fit

    entry = resolve(name)
    if entry.parts:
        raise WeightsError(
            f"weights {entry.name} are put together from several files; import each: "
            + ", ".join(f"--as {part.name}" for _, part in entry.parts)
        )
    if not file.is_file():
        raise WeightsError(f"cannot import {file}: there is no such file")
    differences = []
    stated = any(source.digest is not None for source in entry.sources)
    for source in entry.sources:
        digest = cache.expected(entry, source)
        if digest is None and stated:
            differences.append(f"  not to be told from {source.file}, which has no known digest")
            continue
        difference, sha256 = (digest or ANY).difference(file)
        if difference is None:
            break
        short = cache.shortfall(file, cache.size_of(entry, source))
        cut = f"; {short}: the download broke off, or it is another file" if short else ""
        differences.append(f"  not {source.file}: {difference}{cut}")
    else:
        size = file.stat().st_size
        raise WeightsError("\n".join([f"{file} ({size} bytes) is not {entry.name}:", *differences]))
    state = read_state(file)
    # Most quickly by a backbone that is nothing else; `timm:` and its like are not registered.
    users = _users(entry) or [(backbones.get(name), "")]
    backbone, part = min(users, key=lambda user: user[1] != "")
    with torch.random.fork_rng(devices=[]):
        net = backbone.build()
    fit(state, net.get_submodule(part), backbone, entry, file)
    return cache.adopt(entry, source, file, sha256)


def _used() -> Iterator[tuple[Backbone, WeightsEntry]]:
    """Every tag of every registered backbone, with the first variant that takes it."""
    for name in backbones.names():
        backbone = backbones.get(name)
        seen = set()
        for chosen in itertools.product(*backbone.axes):
            spec = backbone.specify(chosen) if backbone.axes else backbone.spec
            for tag in spec.weights:
                if tag not in seen:
                    seen.add(tag)
                    options = [option for option in chosen if option]
                    yield backbone.variant(options), backbone.weights_entry(tag)


def _users(entry: WeightsEntry) -> list[tuple[Backbone, str]]:
    """Backbones that load an entry and the submodule that it goes to, ``""`` for the whole."""
    return [
        (backbone, part)
        for backbone, used in _used()
        for part, leaf in [("", used), *used.parts]
        if leaf.name == entry.name
    ]
