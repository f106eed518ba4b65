"""The published check of backbones passes for good ones, and says of broken ones what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import tiny
import torch
from torch import Tensor, nn

from avfeat.errors import UnknownNameError
from avfeat.extract.backbones import (
    AudioInput,
    Backbone,
    BackboneSpec,
    Geometry,
    VisualInput,
    register,
    unregister,
)
from avfeat.testing import check_backbone

SPEC = replace(tiny.TinyImage.spec, name="under_test")


@pytest.mark.parametrize(
    "name",
    [
        *("tiny_image", "tiny_image.second", "tiny_snippet", "tiny_audio", "tiny_map"),
        *("timm:test_vit", "timm:test_convnext.second"),
    ],
)
def test_good_backbones_pass(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_backbone(name)
    assert capsys.readouterr() == ("", "")


def test_optical_flow_passes() -> None:
    check_backbone("tiny_two_stream")


def test_seeds_can_be_chosen_and_unknown_names_are_as_everywhere() -> None:
    check_backbone("tiny_image", weights="random:7")
    with pytest.raises(UnknownNameError):
        check_backbone("tiny_imagge")


class Mean(nn.Module):
    """A convolution, then whatever a test does to its map, then the mean over the picture."""

    def __init__(self, then: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=2)
        self.then = then

    def forward(self, pictures: Tensor) -> Tensor:
        return self.then(torch.relu(self.conv(pictures))).flatten(2).mean(-1)


class StubbornNorm(nn.BatchNorm2d):
    """Stays in training mode, as where eval() is overridden or called on another module."""

    def train(self, mode: bool = True) -> StubbornNorm:
        return super().train(True)


class Plain(nn.Module):
    """Lets a function stand for a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Any:
        return self.function(values)


class Counting(Mean):
    """Has a state: the number of calls."""

    calls = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(pictures) * (1 + self.calls % 2)


class Hidden(Mean):
    """Keeps a constant that matters where no state dict holds it, another one in each build."""

    made: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.factor = 1.0 + type(self).made

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures) * self.factor


class Unlisted(Mean):
    """A parameter that matters, with starting values from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(6))

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures) * self.gain


class Odd(Mean):
    """A constant that no state dict takes along, and that loading changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(6), persistent=False)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.gain = torch.full((6,), 2.0)
        super()._load_from_state_dict(*args)

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures) * self.gain


def beside(x: Tensor) -> Tensor:
    """The same for rows beside each other as for a row alone, but for the place of a row."""
    return x * (1 + 1e-6 * torch.arange(len(x)).reshape(-1, 1, 1, 1))


BROKEN: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "random": (
        lambda: Mean(lambda x: nn.functional.dropout(x, 0.1, training=True)),
        "other rows the second time",
        "dropout",
    ),
    "state": (Counting, "other rows the second time", "keep no state"),
    "dim": (
        lambda: nn.Sequential(Mean(), nn.Linear(6, 5)),
        r"give \[8, 5\], the spec's vectors \[N, dim\] are \[8, 6\]",
        "Correct `dim`",
    ),
    "map": (lambda: nn.Conv2d(3, 6, 5), r"give \[8, 6, 28, 28\]", "where `build` cuts"),
    "tuple": (lambda: nn.Sequential(Mean(), Plain(lambda x: (x, x))), "gives tuple", "one tensor"),
    "float64": (
        lambda: nn.Sequential(Mean(), Plain(lambda x: x.double())),
        r"gives torch\.float64",
        r"torch\.float32",
    ),
    "nan": (
        lambda: nn.Sequential(Mean(), Plain(lambda x: (x - x) / (x - x))),
        "NaN or infinity",
        "divisions by zero",
    ),
    "neighbours": (
        lambda: nn.Sequential(StubbornNorm(3), Mean()),
        "depends on the other items of its batch",
        "batch norm must stay in inference mode",
    ),
    "place": (
        lambda: Mean(beside),
        "depends on its place in a batch of 8",
        "Set `cpu_batch=1`",
    ),
    "size": (
        lambda: Mean(lambda x: x * (1 + 0.01 * len(x))),
        r"depend on the size of the batch: by \d",
        "allowed are 1e-04. Compute nothing over the batch",
    ),
    "blind": (
        lambda: Mean(lambda x: torch.ones_like(x)),
        r"forgets its input: rows of different items differ by 0\.0e\+00",
        "layer scale",
    ),
    "constant": (Hidden, "built twice with the same weights", "register constants as buffers"),
    "parameter": (Unlisted, "built twice with the same weights", "starting values"),
    "state_dict": (Odd, "saved and loaded, gives other rows", "persistent buffers"),
}


@pytest.fixture
def known() -> Iterator[Callable[[type[Backbone]], Backbone]]:
    """Registers a class for the time of a test."""
    names = []

    def add(cls: type[Backbone]) -> Backbone:
        names.append(cls.spec.name)
        return register(cls)()

    yield add
    for name in names:
        unregister(name)


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_networks_are_told(fault: str, known: Callable[[type[Backbone]], Backbone]) -> None:
    make, wrong, advice = BROKEN[fault]

    class Broken(Backbone):
        spec = SPEC

        def build(self) -> nn.Module:
            return make()

    with pytest.raises(AssertionError, match=f"^backbone 'under_test': .*{wrong}") as caught:
        check_backbone(known(Broken))
    caught.match(advice)


def test_the_sound_version_of_the_broken_networks_passes(
    known: Callable[[type[Backbone]], Backbone],
) -> None:
    class Sound(Backbone):
        spec = SPEC

        def build(self) -> nn.Module:
            return nn.Sequential(nn.BatchNorm2d(3), Mean())

    check_backbone(known(Sound))


def test_batches_of_one_are_compared_with_larger_ones(
    known: Callable[[type[Backbone]], Backbone],
) -> None:
    class Broken(Backbone):
        spec = replace(SPEC, cpu_batch=1)

        def build(self) -> nn.Module:
            return nn.Sequential(StubbornNorm(3), Mean())

    with pytest.raises(AssertionError, match="depend on the size of the batch"):
        check_backbone(known(Broken))


@pytest.mark.parametrize(
    ("shape", "map_", "words"),
    [
        ((6, 4, 4), (5, 5), r"give \[8, 6, 4, 4\], the spec's maps .* \[8, 6, 5, 5\]"),
        ((4, 4, 6), (4, 4), r"give \[8, 4, 4, 6\]"),  # channels last
    ],
)
def test_maps_of_another_shape_are_told(
    shape: tuple[int, ...],
    map_: tuple[int, int],
    words: str,
    known: Callable[[type[Backbone]], Backbone],
) -> None:
    class Broken(Backbone):
        spec = replace(SPEC, map=map_)

        def build(self) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 96), nn.Unflatten(1, shape))

    with pytest.raises(AssertionError, match=words):
        check_backbone(known(Broken))


def test_a_backbone_that_nobody_can_name_is_told() -> None:
    class Unregistered(Backbone):
        spec = SPEC

        def build(self) -> nn.Module:
            return Mean()

    with pytest.raises(AssertionError, match=r"not find it by its name\. Decorate .* @register"):
        check_backbone(Unregistered())


@dataclass(frozen=True, slots=True)
class Forgetful(AudioInput):
    """An input whose own setting is not in the recipe."""

    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Silent(VisualInput):
    """An input that leaves a part of its recipe out."""

    hidden: ClassVar[str] = ""

    def recipe(self) -> dict[str, Any]:
        return {k: v for k, v in VisualInput.recipe(self).items() if k != self.hidden}


@dataclass(frozen=True, slots=True)
class Nameless(AudioInput):
    """An input that does not say what its front end is."""

    def recipe(self) -> dict[str, Any]:
        return {k: v for k, v in AudioInput.recipe(self).items() if k != "front_end"}


@pytest.mark.parametrize(
    ("hidden", "field"),
    [
        *(("colour", "colour"), ("mean", "mean"), ("padding", "padding")),
        *(("resize", "geometry.resize"), ("crop", "geometry.crop")),
        ("interpolation", "geometry.interpolation"),
    ],
)
def test_every_field_of_an_input_must_be_in_the_recipe(
    hidden: str, field: str, known: Callable[[type[Backbone]], Backbone]
) -> None:
    class Hiding(Silent):
        pass

    Hiding.hidden = hidden

    class Broken(Backbone):
        spec = replace(SPEC, input=Hiding(Geometry(40, 32)))

        def build(self) -> nn.Module:
            return Mean()

    with pytest.raises(AssertionError, match=f"the same when the input's {field} changes"):
        check_backbone(known(Broken))


def test_libraries_of_the_network_must_be_in_the_recipe(
    known: Callable[[type[Backbone]], Backbone],
) -> None:
    class Foreign(Backbone):
        spec = SPEC

        def build(self) -> nn.Module:
            from pytorchcv.models.common.conv import conv3x3_block

            return nn.Sequential(
                conv3x3_block(in_channels=3, out_channels=6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )

    class Named(Foreign):
        libraries = ("PyTorchCV",)

    with pytest.raises(AssertionError, match=r"made of pytorchcv, of which.*Name in `libraries`"):
        check_backbone(known(Foreign))
    unregister(SPEC.name)
    check_backbone(known(Named))


@dataclass(frozen=True)
class Unwritable(BackboneSpec):
    """A spec whose recipe JSON changes."""

    def recipe(self) -> dict[str, Any]:
        return {**super().recipe(), "sides": (1, 2)}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, name="a/b"), "name cannot name a folder"),
        (replace(SPEC, cpu_batch=0), "cpu_batch is 0"),
        (replace(SPEC, dim=6.0), r"row_shape\[0\] is 6\.0"),  # type: ignore[arg-type]
        (
            replace(tiny.TinyAudio.spec, name="under_test", input=Forgetful(16000, 15600, 16000)),
            "stays the same when the input's gain changes",
        ),
        (
            replace(tiny.TinyAudio.spec, name="under_test", input=Nameless(16000, 15600, 16000)),
            "stays the same when the input's front_end changes",
        ),
        (
            Unwritable(**{name: getattr(SPEC, name) for name in BackboneSpec.__slots__}),
            "does not survive JSON",
        ),
        (
            replace(SPEC, input=VisualInput(Geometry(40, 32), frames=600), cpu_batch=1),
            "60 s of media give fewer than two rows",
        ),
    ],
    ids=["name", "batch", "dim", "gain", "front_end", "json", "long"],
)
def test_wrong_specs_are_told(
    spec: BackboneSpec, words: str, known: Callable[[type[Backbone]], Backbone]
) -> None:
    given = spec

    class Broken(Backbone):
        spec = given

        def build(self) -> nn.Module:
            return Mean()

        def to_input(self, items: Tensor) -> Tensor:
            batch = super().to_input(items)
            return batch[:, :, 0] + batch[:, :, -1] if batch.ndim == 5 else batch

    with pytest.raises(AssertionError, match=words):
        check_backbone(known(Broken))


def test_stores_of_other_rows_are_told(
    known: Callable[[type[Backbone]], Backbone],
) -> None:
    """Only a store shows it: the engine loads a network of its own."""

    class Broken(Backbone):
        spec = SPEC
        builds: ClassVar[list[float]] = [1.0, 1.0, 1.0, 2.0]

        def build(self) -> nn.Module:
            factor = self.builds.pop(0)
            return Mean(lambda x: x * factor)

    with pytest.raises(AssertionError, match="read back from a store are not those computed"):
        check_backbone(known(Broken))
