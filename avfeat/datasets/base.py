"""What a data set is to avfeat, and the registry of them."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from avfeat.errors import UnknownNameError, UsageError
from avfeat.manifests.clips import ClipManifest


class Dataset(ABC):
    """One corpus: knows its annotation files and how its media files are named.

    Attributes
    ----------
    name
        As given to ``--dataset``.
    title, paper
        For people.
    sampling
        Default frame sampling rule.
    untrimmed
        Whether clips are videos of any length: snippet networks then take them in the windows of
        temporal action localisation, not one per second.
    naming
        How media files are named, in words.
    licence
        Of the annotations, as stated by their authors.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str] = ""
    sampling: ClassVar[str] = "on-screen"
    untrimmed: ClassVar[bool] = False
    naming: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    classes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def load(self, *, annotations: Path | None, data: Path) -> ClipManifest:
        """Read the annotations and look up the media of every clip.

        Parameters
        ----------
        annotations
            Folder with the official annotation files; None to use the cached ones, fetched once.
        data
            Folder with the media.

        Raises
        ------
        AnnotationError
            If the annotation files are absent or are not what they should be.
        MediaNotFoundError
            If `data` cannot be read.
        """

    def describe(self) -> dict[str, Any]:
        """Return the data set's facts as plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "paper": self.paper,
            "classes": list(self.classes),
            "sampling": self.sampling,
            "untrimmed": self.untrimmed,
            "naming": self.naming,
            "licence": self.licence,
        }

    @abstractmethod
    def searched_names(self) -> str:
        """Say which file names were looked for, for the message when there is no media."""


D = TypeVar("D", bound=Dataset)

_REGISTRY: dict[str, Dataset] = {}


def register(cls: type[D]) -> type[D]:
    """Class decorator: make a data set known by its name."""
    _REGISTRY[cls.name] = cls()
    return cls


@cache
def _discover() -> None:
    """Import every module of this package and every ``avfeat.datasets`` entry point."""
    package = importlib.import_module("avfeat.datasets")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for entry_point in metadata.entry_points(group="avfeat.datasets"):
        entry_point.load()


def names() -> list[str]:
    """Names of all data sets, sorted."""
    _discover()
    return sorted(_REGISTRY)


def get(name: str) -> Dataset:
    """Look a data set up by name; UnknownNameError names the nearest."""
    _discover()
    if name == "synthetic" and name not in _REGISTRY:
        raise UsageError(
            "the synthetic family has no media, and nothing to extract: its stores are written by "
            "`avfeat datasets synthesize --out DIR`"
        )
    if name not in _REGISTRY:
        raise UnknownNameError("data set", name, _REGISTRY)
    return _REGISTRY[name]
