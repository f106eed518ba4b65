"""Image models of timm, with the preprocessing their weights were trained with.

Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models. Preprocessing
is that of ``timm.data.create_transform(**resolve_data_config(model.pretrained_cfg))``; features are
those that ``reset_classifier(0)`` leaves; published files go through timm's own conversion.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, get_args

import timm
import timm.models
import torch
from timm.data.config import resolve_data_config
from timm.models import _builder
from torch import Tensor, nn

from avfeat.errors import UnknownNameError, UsageError, WeightsError
from avfeat.extract.backbones.libraries.shared import (
    CPU_BATCH,
    HASHED,
    LibraryModel,
    behind,
    measure,
    weightless,
)
from avfeat.extract.backbones.spec import BackboneSpec, Geometry, Interpolation, VisualInput
from avfeat.extract.weights.registry import Source, WeightsEntry

_TIMM = "Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861"
# timm's order: safetensors where there are some.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_HALVES = (torch.float16, torch.bfloat16)
_BUILDING = threading.Lock()


class TimmModel(LibraryModel):
    """An image model of timm; `make` gives them.

    Attributes
    ----------
    model
        timm's name of it, with the tag.
    """

    model: ClassVar[str]

    def cut(self) -> nn.Module:
        """Build timm's model without its classifier."""
        return _cut(timm.create_model(self.model), self.spec.name)

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the tensors of a file as timm does when it loads them.

        Raises
        ------
        WeightsError
            timm cannot make sense of them.
        """
        loading = _loading(self.model)
        try:
            converted = loading.convert(state)
        except (AssertionError, AttributeError, TypeError) as error:
            raise WeightsError(f"timm cannot convert it: {error}") from error
        own = loading.net.state_dict()
        if not loading.strict:  # where timm knows that files of the model have more than it uses
            converted = {key: value for key, value in converted.items() if key in own}
        return {
            # Some models are published in half precision, which loading widens without loss.
            key: value.to(own[key].dtype) if key in own and value.dtype in _HALVES else value
            for key, value in converted.items()
        }


def make(model: str) -> TimmModel:
    """Make the backbone of a model of timm.

    Parameters
    ----------
    model
        timm's name, with a tag of pretrained weights (``resnet50.a1_in1k``) or without
        (``resnet50``), which means the tag that timm takes.

    Raises
    ------
    UnknownNameError
        timm has no such model, or no such weights of it.
    UsageError
        The model's preprocessing or its output is of a kind that avfeat does not have.

    Examples
    --------
    >>> make("resnet18").spec.name
    'timm:resnet18.a1_in1k'
    """
    arch, tag = timm.models.split_model_name_tag(model)
    if arch not in timm.list_models():  # which leaves deprecated names out
        raise UnknownNameError("timm model", arch, timm.list_models())
    tags = timm.models.get_arch_pretrained_cfgs(arch)
    if tag and model not in tags:
        raise UnknownNameError("timm model", model, timm.list_pretrained(f"{arch}.*") or tags)
    resolved = _cfg(model).get("tag")
    return _make(f"{arch}.{resolved}" if resolved else arch)


@cache
def _make(name: str) -> TimmModel:
    spec_name = f"timm:{name}"
    cfg = _cfg(name)
    taken = visual_input(spec_name, cfg)
    full = weightless(lambda: timm.create_model(name))
    cut = _cut(weightless(lambda: timm.create_model(name)), spec_name)
    found = measure(spec_name, cut, taken.geometry.shape)
    entry = _entry(spec_name, cfg, drop=behind(full, cut))

    class Model(TimmModel):
        __doc__ = f"What ``reset_classifier(0)`` leaves of timm's {name}."

        spec = BackboneSpec(
            name=spec_name,
            modality="visual",
            dim=found.dim,
            layer="features before the classifier" if found.map is None else "last map",
            input=taken,
            weights=() if entry is None else (entry.tag,),
            parameters=found.parameters,
            gmacs_per_item=found.gmacs,
            paper=_citation(cfg),
            description=f"timm's {name}, one row per frame",
            cpu_batch=CPU_BATCH,
            map=found.map,
        )
        model = name
        published = entry

    return Model()


def _cfg(name: str) -> dict[str, Any]:
    cfg = timm.models.get_pretrained_cfg(name)
    return {} if cfg is None else dict(cfg.to_dict())  # type: ignore[no-untyped-call]


def _cut(net: nn.Module, name: str) -> nn.Module:
    if not hasattr(net, "reset_classifier"):
        raise UsageError(f"{name} cannot be used: timm has it as a part of models, not as one")
    net.reset_classifier(0)  # type: ignore[operator]
    return net


def visual_input(name: str, cfg: dict[str, Any]) -> VisualInput:
    """Return the input that timm's evaluation transform makes.

    Parameters
    ----------
    name
        For the messages.
    cfg
        A model's ``pretrained_cfg``.

    Raises
    ------
    UsageError
        avfeat cannot do the same.
    """
    config = resolve_data_config({}, pretrained_cfg=cfg)  # type: ignore[no-untyped-call]
    channels, height, width = config["input_size"]
    percent, mode = config["crop_pct"], config["crop_mode"]
    interpolation: Interpolation = f"pil-{config['interpolation']}"  # type: ignore[assignment]
    wrong = None
    if channels != 3:
        wrong = f"{channels} channels"
    elif interpolation not in get_args(Interpolation):
        wrong = f"{config['interpolation']} interpolation"
    elif mode not in ("center", "squash"):
        wrong = f"the crop mode {mode!r}, where avfeat has center and squash"
    elif percent > 1:
        wrong = f"borders around the picture (crop_pct {percent})"
    elif height != width and (mode, percent) != ("squash", 1.0):
        wrong = f"a crop of {height} x {width}, where avfeat's are square"
    if wrong is not None:
        raise UsageError(f"{name} cannot be used: its preprocessing wants {wrong}")
    scaled = (math.floor(height / percent), math.floor(width / percent))  # timm's rounding
    return VisualInput(
        Geometry(
            resize=scaled if mode == "squash" else scaled[0],
            crop=None if mode == "squash" and scaled == (height, width) else height,
            interpolation=interpolation,
        ),
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _entry(name: str, cfg: dict[str, Any], *, drop: tuple[str, ...]) -> WeightsEntry | None:
    """Say where the weights are; None if they are nowhere, or only in the layout of JAX."""
    sources = []
    if hub := cfg.get("hf_hub_id"):
        repository, _, revision = hub.partition("@")
        base = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}"
        sources += [Source((f"{base}/{file}",), file) for file in _HUB_FILES]
    url = cfg.get("url")
    if url and not url.endswith(".npz"):
        file = url.rpartition("/")[2]
        digits = HASHED.search(file)
        sources.append(Source((url,), file, f"sha256:{digits[1]}" if digits else None))
    if not sources:
        return None
    licence = cfg.get("license", "unknown")
    return WeightsEntry(
        name=name,
        sources=tuple(sources),
        trained_on=f"not stated but in timm's tag, {cfg['tag']}"
        if cfg.get("tag")
        else "not stated",
        licence="not stated" if licence == "unknown" else licence,
        citation=_citation(cfg),
        drop=drop,
    )


def _citation(cfg: dict[str, Any]) -> str:
    """Name the paper where timm does; most of its models leave that to their page."""
    ids = cfg.get("paper_ids") or ()
    named = [cfg.get("paper_name"), *([ids] if isinstance(ids, str) else ids)]
    hub = cfg.get("hf_hub_id")
    pages = [cfg.get("origin_url"), hub and f"https://huggingface.co/{hub.partition('@')[0]}"]
    return "; ".join(dict.fromkeys(filter(None, [*named, *pages, _TIMM])))


@dataclass(frozen=True, slots=True)
class _Loading:
    """How timm loads the published file of a model."""

    net: nn.Module  # on the meta device: only names and shapes are looked at
    filter: Callable[..., dict[str, Tensor]] | None
    strict: bool

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.filter is None:
            return state
        try:
            return dict(self.filter(dict(state), self.net))
        except TypeError:  # timm's own way to tell filters that take the tensors alone
            return dict(self.filter(dict(state)))


def _loading(name: str) -> _Loading:
    """Have timm build a model as if to load its weights, and see what it would do with them.

    Each architecture hands its conversion to timm's builder, and the builder to `load_pretrained`;
    there is no public way to ask for it.
    """
    caught: list[_Loading] = []

    def load_pretrained(
        model: nn.Module,
        *_: object,
        filter_fn: Callable[..., dict[str, Tensor]] | None = None,
        strict: bool = True,
        **__: object,
    ) -> None:
        caught.append(_Loading(model, filter_fn, strict))

    with _BUILDING:
        original = _builder.load_pretrained
        _builder.load_pretrained = load_pretrained
        try:
            weightless(lambda: timm.create_model(name, pretrained=True))
        finally:
            _builder.load_pretrained = original
    if not caught:
        raise WeightsError(f"timm {timm.__version__} loads {name} in a way that avfeat cannot see")
    return caught[0]
