"""Which backbones there are: modules of this package, plugin packages, and run-time additions."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
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
_broken: list[str] = []  # what is wrong with the plugins that could not be loaded
_log = logging.getLogger(__name__)


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
    _broken.clear()
    plugins = sorted(entry_points(group=ENTRY_POINTS), key=lambda plugin: plugin.name)
    for plugin in plugins:
        wrong = _load(plugin, plugins)
        if wrong is not None:
            _broken.append(f"backbone plugin {plugin.name!r} {_origin(plugin)}: {wrong}")
            _log.warning("%s; left out: repair or uninstall its package", _broken[-1])


def _load(plugin: EntryPoint, plugins: Sequence[EntryPoint]) -> str | None:
    """Register what a plugin brings, and say what is wrong with it if something is."""
    before = dict(_backbones)
    try:
        loaded = plugin.load()
        is_backbone = isinstance(loaded, type) and issubclass(loaded, Backbone)
        if is_backbone and not any(type(known) is loaded for known in _backbones.values()):
            register(loaded)
    except Exception as error:  # noqa: BLE001 - somebody else's code must not stop what works
        # What a failed import registered on its way is gone with its module.
        for name in _backbones.keys() - before.keys():
            if type(_backbones[name]).__module__ not in sys.modules:
                del _backbones[name]
        return f"{type(error).__name__}: {error}"
    new = [backbone for name, backbone in _backbones.items() if name not in before]
    # A plugin that imports another one registers that one's backbones too.
    homes = {_top(one.module): one.dist for one in plugins}
    for backbone in new:
        dist = homes.get(_top(type(backbone).__module__), plugin.dist)
        backbone.distribution = dist.name if dist is not None else None
    brought = {_top(type(backbone).__module__) for backbone in _backbones.values()}
    if not (is_backbone or new or _top(plugin.module) in brought):
        return "it brings no backbone: it is none itself, and its module registers none"
    return None


def _top(module: str) -> str:
    return module.partition(".")[0]


def _origin(plugin: EntryPoint) -> str:
    package = f" of the package {plugin.dist.name} {plugin.dist.version}" if plugin.dist else ""
    return f"({plugin.value}){package}"


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
        No backbone has that name, or it has no such option; the message offers the nearest one,
        and tells of plugins that could not be loaded.
    UsageError
        Options that exclude each other, or one that is empty.

    Examples
    --------
    >>> get("openl3.6144.music").spec.name
    'openl3.music.6144'
    """
    _discover()
    first, *options = name.split(".")
    if first and "" in options:
        meant = ".".join(filter(None, [first, *options]))
        raise UsageError(f"backbone {name!r} has an empty option; is {meant!r} meant?")
    library, colon, model = name.partition(":")
    if colon:
        if library not in _LIBRARIES:
            raise UnknownNameError("model library", library, _LIBRARIES)
        return _from_library(library, model)
    base = name
    while base not in _backbones:
        base, dot, _ = base.rpartition(".")
        if not dot:
            raise UnknownNameError("backbone", name, _backbones, "; ".join(_broken))
    options = name.removeprefix(base).split(".")[1:]
    return _backbones[base].variant(options) if options else _backbones[base]


def _from_library(library: str, model: str) -> Backbone:
    """Make a backbone of a library's image model; ``.second`` at its end is avfeat's option."""
    stem, dot, option = model.rpartition(".")
    pooled = bool(dot) and option == SECOND
    module = importlib.import_module(_LIBRARIES[library])
    backbone: Backbone = module.make(stem if pooled else model)
    return backbone.variant([SECOND]) if pooled else backbone


def select(
    which: str | Sequence[str], *, options: Mapping[str, str] | None = None
) -> list[Backbone]:
    """Return the backbones asked for, by name and without duplicates.

    Parameters
    ----------
    which
        ``"all"``, names separated by commas, or a sequence of names.
    options
        Options that are chosen for each backbone that has them; by option what it was asked for
        with, for messages.

    Raises
    ------
    UnknownNameError
        A name is not registered.
    UsageError
        Nothing was asked for, or none of these backbones has one of the options; the message
        names those that have it.

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
    for option, asked in (options or {}).items():
        if not any(option in backbone.options for backbone in chosen):
            having = [known for known in names() if option in _backbones[known].options]
            raise UsageError(
                f"{asked} does nothing for {', '.join(b.spec.name for b in chosen)}; backbones "
                f"that have it: {', '.join(having) or 'none'}"
            )
        chosen = [b.variant([option]) if option in b.options else b for b in chosen]
    by_name = {backbone.spec.name: backbone for backbone in chosen}
    return [by_name[name] for name in sorted(by_name)]
