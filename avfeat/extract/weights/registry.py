"""The list of published weights, read from registry.yaml beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

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
    sha256
        Lower-case hex: in full where it is known, else the prefix that its publisher put into the
        file name.
    size_mib
        Size in MiB where the publisher states it, for messages.
    """

    urls: tuple[str, ...]
    file: str
    sha256: str
    size_mib: float | None = None


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """Published weights of one backbone.

    Parameters
    ----------
    name
        ``backbone.tag``.
    sources
        Serialisations of the same weights, tried in order.
    drop
        Keys of the file that lie behind the feature layer, as shell patterns (``fc.*``).
    trained_on, licence, citation
        What a paper has to say about them.
    """

    name: str
    sources: tuple[Source, ...]
    trained_on: str
    licence: str
    citation: str
    drop: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The part of the name after the backbone."""
        return self.name.partition(".")[2]


@cache
def entries() -> dict[str, WeightsEntry]:
    """All entries of registry.yaml by ``backbone.tag``."""
    listed = yaml.safe_load(files(__package__).joinpath("registry.yaml").read_text("utf-8"))
    return {
        name: WeightsEntry(
            name=name,
            sources=tuple(
                Source(
                    urls=tuple(source["urls"]),
                    file=source["file"],
                    sha256=source["sha256"],
                    size_mib=source.get("size_mib"),
                )
                for source in values["sources"]
            ),
            trained_on=values["trained_on"],
            licence=values["licence"],
            citation=values["citation"],
            drop=tuple(values.get("drop", ())),
        )
        for name, values in listed.items()
    }


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
