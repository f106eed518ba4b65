"""The list of published weights, read from registry.yaml beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from avfeat.digest import Digest
from avfeat.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Source:
    """One serialisation of some weights, and the hosts that serve exactly these bytes.

    Parameters
    ----------
    urls
        Hosts of the file, tried in order.
    file
        Name that the file keeps in the cache.
    digest
        What the publisher states of the bytes, as ``kind:hex`` (see `avfeat.digest.Digest`):
        ``sha256:394f9c45``. None where nothing is stated: such a file is pinned at first use.
    size_mib
        Size in MiB where the publisher states it, for messages.

    Raises
    ------
    ValueError
        The digest is of no known kind or length, or the file name has a folder in it.
    """

    urls: tuple[str, ...]
    file: str
    digest: str | None = None
    size_mib: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would only show once the file is wanted."""
        if self.digest is not None:
            Digest.parse(self.digest)
        if not self.file or "/" in self.file or self.file.startswith("."):
            raise ValueError(f"{self.file!r} is no plain file name")

    @property
    def least_bytes(self) -> float | None:
        """Bytes that the file has at least; `size_mib` is rounded to three decimals."""
        return None if self.size_mib is None else self.size_mib * 2**20 - 1024


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """Published weights of one backbone.

    Parameters
    ----------
    name
        ``backbone.tag``.
    sources
        Serialisations of the same weights, tried in order.
    trained_on, licence, citation
        What a paper has to say about them.
    drop
        Keys behind the feature layer, as shell patterns (``fc.*``): as the network calls them,
        after `Backbone.from_published`.
    parts
        Of weights that are put together from several files: for each the submodule of the network
        that it belongs to, and its own entry. There are no sources then.
    """

    name: str
    sources: tuple[Source, ...]
    trained_on: str
    licence: str
    citation: str
    drop: tuple[str, ...] = ()
    parts: tuple[tuple[str, WeightsEntry], ...] = ()

    @property
    def tag(self) -> str:
        """The part of the name after the backbone."""
        return self.name.partition(".")[2]

    @property
    def leaves(self) -> tuple[WeightsEntry, ...]:
        """The entries that have files: itself, or its parts."""
        return tuple(leaf for _, part in self.parts for leaf in part.leaves) or (self,)


@cache
def entries() -> dict[str, WeightsEntry]:
    """All entries of registry.yaml by ``backbone.tag``."""
    listed = yaml.safe_load(files(__package__).joinpath("registry.yaml").read_text("utf-8"))
    found = {name: _single(name, values) for name, values in listed.items() if "sources" in values}
    for name, values in listed.items():
        if "parts" in values:
            parts = {part: found[other] for part, other in values["parts"].items()}
            found[name] = compose(name, parts)
    return found


def compose(name: str, parts: Mapping[str, WeightsEntry]) -> WeightsEntry:
    """Put weights together from the entries of a network's submodules.

    Examples
    --------
    >>> both = {"rgb": entry("i3d_rgb.pgi3d"), "flow": entry("i3d_flow.pgi3d")}
    >>> compose("i3d.pgi3d", both).licence
    'Apache-2.0'
    """

    def together(field: str) -> str:
        return " + ".join(dict.fromkeys(getattr(part, field) for part in parts.values()))

    return WeightsEntry(
        name=name,
        sources=(),
        trained_on=together("trained_on"),
        licence=together("licence"),
        citation=together("citation"),
        parts=tuple(parts.items()),
    )


def entry(name: str) -> WeightsEntry:
    """Look up the weights called ``backbone.tag``.

    Raises
    ------
    UnknownNameError
        registry.yaml has no such entry.
    """
    if name not in entries():
        raise UnknownNameError("weights", name, entries())
    return entries()[name]


def _single(name: str, values: Mapping[str, Any]) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        sources=tuple(
            Source(
                urls=tuple(source["urls"]),
                file=source["file"],
                digest=source["digest"],
                size_mib=source.get("size_mib"),
            )
            for source in values["sources"]
        ),
        trained_on=values["trained_on"],
        licence=values["licence"],
        citation=values["citation"],
        drop=tuple(values.get("drop", ())),
    )
