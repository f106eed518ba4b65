"""Image networks that can give the map which they otherwise pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.spec import BackboneSpec

if TYPE_CHECKING:
    from torch import nn


class MapOption(Backbone):
    """A backbone whose one option is ``map``: its last convolutions' map, before any pool.

    Attributes
    ----------
    map_spec
        The spec with that option.
    """

    axes = (("", "map"),)
    map_spec: ClassVar[BackboneSpec]

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        """Return the spec of the vectors or of the map."""
        return self.map_spec if "map" in chosen else type(self).spec


def unflattened(spec: BackboneSpec) -> nn.Module:
    """Make a map ``[N, dim, height, width]`` again of what a network's forward has flattened."""
    from torch import nn

    assert spec.map is not None
    return nn.Unflatten(1, (spec.dim, *spec.map))
