"""Which backbones there are: modules of this package, plugin packages, and run-time additions."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.spec import BackboneSpec

ENTRY_POINTS = "avfeat.backbones"

B = TypeVar("B", bound=Backbone)

_backbones: dict[str, Backbone] = {}


def register(cls: type[B]) -> type[B]:
    """Class decorator that makes a backbone known under its spec's name.

    Raises
    ------
    UsageError
        Another class already has that name.
    """
    name = cls.spec.name
    known = _backbones.get(name)
    if known is not None and type(known) is not cls:
        raise UsageError(
            f"backbone {name!r} is registered twice: by {type(known).__module__} and by "
            f"{cls.__module__}; rename one of them"
        )
    _backbones[name] = cls()
    return cls


def unregister(name: str) -> None:
    """Forget a backbone that was registered at run time; unknown names are ignored."""
    _backbones.pop(name, None)


@cache
def _discover() -> None:
    package = importlib.import_module("avfeat.extract.backbones")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:  # `nets` holds networks, which need torch
            importlib.import_module(f"{package.__name__}.{module.name}")
    for plugin in entry_points(group=ENTRY_POINTS):
        try:
            plugin.load()
        except ImportError as error:
            raise UsageError(
                f"backbone plugin {plugin.name!r} ({plugin.value}) cannot be imported: {error}; "
                "repair or uninstall the package that brings it"
            ) from error


def names() -> list[str]:
    """Names of all backbones, sorted: the registry's order, whatever was imported first."""
    _discover()
    return sorted(_backbones)


def get(name: str) -> Backbone:
    """Look up a backbone.

    Raises
    ------
    UnknownNameError
        No backbone has that name; the message offers the nearest one.
    """
    _discover()
    if name not in _backbones:
        raise UnknownNameError("backbone", name, _backbones)
    return _backbones[name]


def select(which: str | Sequence[str]) -> list[BackboneSpec]:
    """Specs of the backbones asked for, in registry order and without duplicates.

    Parameters
    ----------
    which
        ``"all"``, names separated by commas, or a sequence of names.

    Raises
    ------
    UnknownNameError
        A name is not registered.
    UsageError
        Nothing was asked for.

    Examples
    --------
    >>> [spec.name for spec in select("vggish, resnet152, vggish")]
    ['resnet152', 'vggish']
    """
    if which == "all":
        return [get(name).spec for name in names()]
    parts = which.split(",") if isinstance(which, str) else which
    wanted = {part.strip() for part in parts} - {""}
    if not wanted:
        raise UsageError(f"no backbone named in {which!r}; known: {', '.join(names())}")
    return [get(name).spec for name in sorted(wanted)]
