"""What the check of backbones asks of a spec and of a recipe."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from avfeat.errors import UnknownNameError
from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, Backbone, Geometry, VisualInput
from avfeat.extract.backbones.spec import Interpolation
from avfeat.manifests.recipe import LIBRARIES
from avfeat.testing._demands import demand

if TYPE_CHECKING:
    from torch import nn

# Fields that recipes hold as sampling, and those that they hold only where there is flow.
_SAMPLING = {"fps", "rule"}
_FLOW = {"flow", "flow_bits"}


def check_spec(backbone: Backbone) -> None:
    """Look at what is known without building the network."""
    spec = backbone.spec
    demand(
        re.fullmatch(r"[\w.:-]+", spec.name) is not None,
        spec,
        "its name cannot name a folder",
        "Use letters, digits, _, - and dots for variants",
    )
    try:
        known = backbones.get(spec.name)
    except UnknownNameError:
        known = None
    demand(
        known is not None and known.family == backbone.family,
        spec,
        "avfeat does not find it by its name",
        "Decorate the class with @register and name its module as an entry point in the group "
        "avfeat.backbones; variants need `axes` and `specify`",
    )
    counts = {
        **{f"row_shape[{i}]": side for i, side in enumerate(spec.row_shape)},
        **{name: getattr(spec, name) for name in ("pool", "cpu_batch", "cuda_batch")},
    }
    for name, count in counts.items():
        whole = isinstance(count, int) and count >= 1
        demand(whole, spec, f"{name} is {count!r}", "It must be a positive integer")
    recipe = spec.recipe()
    try:
        same = json.loads(json.dumps(recipe, allow_nan=False)) == recipe
    except (TypeError, ValueError):
        same = False
    demand(
        same,
        spec,
        f"its recipe does not survive JSON: {recipe}",
        "Let `recipe` return dicts with string keys, lists, strings and finite numbers",
    )
    for field, changed in _changes(spec.input):
        demand(
            dataclasses.replace(spec, input=changed).recipe() != recipe,
            spec,
            f"its recipe stays the same when the input's {field} changes",
            "Let `recipe` name everything that can change a number in a row, or stores of "
            "different features would pass for one",
        )


def _changes(taken: VisualInput | AudioInput) -> Iterator[tuple[str, Any]]:
    """Yield an input's fields, each with the input where that field alone is another."""
    hints = get_type_hints(type(taken))
    still = isinstance(taken, VisualInput) and taken.stream == "rgb"
    for field in dataclasses.fields(taken):
        if field.name in _SAMPLING or (still and field.name in _FLOW):
            continue
        value = getattr(taken, field.name)
        if isinstance(value, Geometry):
            others: list[tuple[str, Any]] = [
                (f"{field.name}.{part}", other) for part, other in _geometries(value)
            ]
        else:
            others = [(field.name, _other(value, hints[field.name]))]
        for name, other in others:
            yield name, dataclasses.replace(taken, **{field.name: other})


def _other(value: Any, hint: Any) -> Any:
    """Return another value of a field."""
    if get_origin(hint) is Literal:
        return next(one for one in get_args(hint) if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}-other"
    if isinstance(value, tuple):
        return tuple(_other(part, type(part)) for part in value)
    # None stands for none of the other type.
    return "other" if str in get_args(hint) else 1


def _geometries(geometry: Geometry) -> Iterator[tuple[str, Geometry]]:
    """Yield the fields of a geometry, each with one where that field alone is another."""
    resize, crop = geometry.resize, geometry.crop
    yield "resize", dataclasses.replace(geometry, resize=_other(resize, int))
    yield "crop", dataclasses.replace(geometry, crop=(crop or min(geometry.shape)) - 1)
    interpolation = _other(geometry.interpolation, Interpolation)
    yield "interpolation", dataclasses.replace(geometry, interpolation=interpolation)


def check_libraries(backbone: Backbone, net: nn.Module) -> None:
    """Look whether the recipe names the versions of the libraries that the network is made of."""
    known = {_plain(name) for name in (*LIBRARIES[backbone.spec.modality], *backbone.packages)}
    homes = metadata.packages_distributions()
    top = {type(module).__module__.partition(".")[0] for module in net.modules()}
    absent = {
        distribution
        for package in top - {"avfeat"}
        for distribution in homes.get(package, ())
        if _plain(distribution) not in known
    }
    demand(
        not absent,
        backbone.spec,
        f"its network is made of {', '.join(sorted(absent))}, of which its recipe has no version",
        "Name in `libraries` every package whose next release could change a row",
    )


def _plain(distribution: str) -> str:
    """Write a distribution's name as the packaging rules compare it.

    >>> _plain("My_Backbones")
    'my-backbones'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()
