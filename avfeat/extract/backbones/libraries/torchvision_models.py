"""Classification models of torchvision, with the preprocessing their weights were trained with.

https://docs.pytorch.org/vision/stable/models.html. Preprocessing is that of
``weights.transforms()`` on PIL images; the network is cut before its last linear layer.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any, ClassVar

import torchvision.models as tvm
from torch import nn

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract.backbones.libraries.shared import (
    CPU_BATCH,
    HASHED,
    LibraryModel,
    behind,
    measure,
    weightless,
)
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, VisualInput
from avfeat.extract.weights.registry import Source, WeightsEntry

# Heads that only training uses. Files have them, and so must the network that files are fitted to.
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
# torchvision states one for a few weights only; its own is about code.
_LICENCE = "BSD-3-Clause (code); no separate statement for the weights"
_PAPER = re.compile(r"`([^`]+?)\s*<(https?://[^>]+)>`")


class TorchvisionModel(LibraryModel):
    """A classification model of torchvision; `make` gives them.

    Attributes
    ----------
    model, settings
        torchvision's name of it, and the arguments that its weights want it built with.
    """

    model: ClassVar[str]
    settings: ClassVar[dict[str, Any]]

    def cut(self) -> nn.Module:
        """Build torchvision's model without its last layer and its auxiliary heads."""
        return _cut(_full(self.model, self.settings), self.spec.name, self.settings["num_classes"])


def make(model: str) -> TorchvisionModel:
    """Make the backbone of a classification model of torchvision.

    Parameters
    ----------
    model
        torchvision's name, with weights (``resnet50.IMAGENET1K_V1``) or without (``resnet50``),
        which means the library's DEFAULT.

    Raises
    ------
    UnknownNameError
        torchvision has no such model, or no such weights of it.
    UsageError
        The model has no layer to be cut at.

    Examples
    --------
    >>> make("resnet50").spec.name
    'torchvision:resnet50.IMAGENET1K_V2'
    """
    arch, _, tag = model.partition(".")
    known = tvm.list_models(module=tvm)
    if arch not in known:
        raise UnknownNameError("torchvision image model", arch, known)
    weights = tvm.get_model_weights(arch)
    if tag and tag not in weights.__members__:
        raise UnknownNameError(f"weights of torchvision:{arch}", tag, weights.__members__)
    return _make(arch, weights[tag or "DEFAULT"].name)


@cache
def _make(arch: str, tag: str) -> TorchvisionModel:
    name = f"torchvision:{arch}.{tag}"
    weights = tvm.get_model_weights(arch)[tag]
    preset = weights.transforms()
    taken = VisualInput(
        Geometry(
            resize=preset.resize_size[0],
            crop=preset.crop_size[0],
            interpolation=f"pil-{preset.interpolation.value}",  # type: ignore[arg-type]
        ),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    wanted = _settings(arch, weights.meta)
    full = weightless(lambda: _full(arch, wanted))
    cut = _cut(weightless(lambda: _full(arch, wanted)), name, wanted["num_classes"])
    found = measure(name, cut, taken.geometry.shape)
    cited = _PAPER.search(inspect.getdoc(tvm.get_model_builder(arch)) or "")
    paper = f"{' '.join(cited[1].split())}, {cited[2]}" if cited else "not stated"

    class Model(TorchvisionModel):
        __doc__ = f"What torchvision's {arch} gives to its last layer."

        spec = BackboneSpec(
            name=name,
            modality="visual",
            dim=found.dim,
            layer="before the last layer",
            input=taken,
            weights=(tag,),
            parameters=found.parameters,
            gmacs_per_item=found.gmacs,
            paper=paper,
            description=f"torchvision's {arch}, one row per frame",
            cpu_batch=CPU_BATCH,
        )
        model = arch
        settings = wanted
        published = _entry(name, weights, paper, drop=behind(full, cut))

    return Model()


def _settings(arch: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that torchvision's builders take from an entry of their weights."""
    settings: dict[str, Any] = {"num_classes": len(meta["categories"])}
    if arch.startswith("vit_"):
        settings["image_size"] = meta["min_size"][0]
    elif arch.startswith("maxvit"):
        settings["input_size"] = meta["min_size"]
    elif arch in ("googlenet", "inception_v3"):
        settings |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    return settings


def _full(arch: str, settings: dict[str, Any]) -> nn.Module:
    net: nn.Module = tvm.get_model_builder(arch)(weights=None, **settings)
    return net


def _cut(net: nn.Module, name: str, classes: int) -> nn.Module:
    """Take out what scores the classes: the last such linear layer, else the last convolution."""
    for head in _AUXILIARY:
        if hasattr(net, head):
            setattr(net, head, None)
    named = list(net.named_modules())
    linear = [n for n, m in named if isinstance(m, nn.Linear) and m.out_features == classes]
    # SqueezeNet's; what it takes is averaged over the picture after the layer as before.
    convolutions = [n for n, m in named if isinstance(m, nn.Conv2d) and m.out_channels == classes]
    layers = linear or convolutions
    if not layers:
        raise UsageError(f"{name} cannot be used: it has no layer of {classes} outputs to cut at")
    parent, _, child = layers[-1].rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return net


def _entry(name: str, weights: Any, paper: str, *, drop: tuple[str, ...]) -> WeightsEntry:
    file = weights.url.rpartition("/")[2]
    digits = HASHED.search(file)
    recipe = weights.meta.get("recipe")
    return WeightsEntry(
        name=name,
        sources=(
            Source(
                urls=(weights.url,),
                file=file,
                digest=f"sha256:{digits[1]}" if digits else None,
                size_mib=weights.meta.get("_file_size"),
            ),
        ),
        trained_on="ImageNet-1k" if "IMAGENET1K" in name else "not stated",
        licence=weights.meta.get("license", _LICENCE),
        citation="; ".join(filter(None, [paper, recipe and f"recipe: {recipe}"])),
        drop=drop,
    )
