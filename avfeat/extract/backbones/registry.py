"""Which backbones there are: modules of this package, plugin packages, and run-time additions."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract.backbones.base import SECOND, Backbone

ENTRY_POINTS = "avfeat.backbones"

#: Libraries whose image models can be named as they are, and the module that wraps them.
_LIBRARIES = {
    "timm": "avfeat.extract.backbones.libraries.timm_models",
    "torchvision": "avfeat.extract.backbones.libraries.torchvision_models",
}

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
    """Look up a backbone, or a variant of one.

    Parameters
    ----------
    name
        A registered name, followed by options and a weights tag if wanted:
        ``openl3.music.mel128``, ``resnet152.map.second``. Or ``timm:<model>`` or
        ``torchvision:<model>`` for an image model of these libraries.

    Raises
    ------
    UnknownNameError
        No backbone has that name, or it has no such option; the message offers the nearest one.
    UsageError
        Options that exclude each other.

    Examples
    --------
    >>> get("openl3.6144.music").spec.name
    'openl3.music.6144'
    """
    _discover()
    library, colon, model = name.partition(":")
    if colon:
        if library not in _LIBRARIES:
            raise UnknownNameError("model library", library, _LIBRARIES)
        return _from_library(library, model)
    base = name
    while base not in _backbones:
        base, dot, _ = base.rpartition(".")
        if not dot:
            raise UnknownNameError("backbone", name, _backbones)
    options = [option for option in name[len(base) :].split(".") if option]
    return _backbones[base].variant(options) if options else _backbones[base]


def _from_library(library: str, model: str) -> Backbone:
    """Make a backbone of a library's image model; ``.second`` at its end is avfeat's option."""
    stem, dot, option = model.rpartition(".")
    pooled = bool(dot) and option == SECOND
    module = importlib.import_module(_LIBRARIES[library])
    backbone: Backbone = module.make(stem if pooled else model)
    return backbone.variant([SECOND]) if pooled else backbone


def select(which: str | Sequence[str], *, options: Sequence[str] = ()) -> list[Backbone]:
    """Return the backbones asked for, by name and without duplicates.

    Parameters
    ----------
    which
        ``"all"``, names separated by commas, or a sequence of names.
    options
        Chosen for each backbone that has them.

    Raises
    ------
    UnknownNameError
        A name is not registered.
    UsageError
        Nothing was asked for, or no backbone has one of the options.

    Examples
    --------
    >>> [backbone.spec.name for backbone in select("vggish, resnet152, vggish")]
    ['resnet152', 'vggish']
    """
    parts = which.split(",") if isinstance(which, str) else which
    wanted = {part.strip() for part in parts} - {""}
    if not wanted:
        raise UsageError(f"no backbone named in {which!r}; known: {', '.join(names())}")
    if "all" in wanted:
        wanted = (wanted - {"all"}) | set(names())
    chosen = [get(name) for name in sorted(wanted)]
    for option in options:
        if not any(option in backbone.options for backbone in chosen):
            raise UsageError(
                f"{option!r} is an option of none of {', '.join(b.spec.name for b in chosen)}"
            )
        chosen = [b.variant([option]) if option in b.options else b for b in chosen]
    by_name = {backbone.spec.name: backbone for backbone in chosen}
    return [by_name[name] for name in sorted(by_name)]
