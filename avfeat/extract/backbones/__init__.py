"""Backbones: networks cut at a named layer, with the preprocessing their weights were trained on.

Listing them (`names`, `select`) imports no torch. A new backbone is one new file in this package,
or a plugin package with an entry point in the group ``avfeat.backbones``; nothing else is edited.
"""

from avfeat.extract.backbones.base import Backbone
from avfeat.extract.backbones.extractor import (
    Extractor,
    find_entry,
    load,
    peek_weights,
    resolve_weights,
)
from avfeat.extract.backbones.registry import get, names, register, select, unregister
from avfeat.extract.backbones.spec import FPS, AudioInput, BackboneSpec, Geometry, VisualInput
from avfeat.extract.weights.info import WeightsInfo

__all__ = [
    "FPS",
    "AudioInput",
    "Backbone",
    "BackboneSpec",
    "Extractor",
    "Geometry",
    "VisualInput",
    "WeightsInfo",
    "find_entry",
    "get",
    "load",
    "names",
    "peek_weights",
    "register",
    "resolve_weights",
    "select",
    "unregister",
]
