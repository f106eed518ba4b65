"""Loading by name: precision, weights choices, shapes, and what is refused."""

from __future__ import annotations

import pytest
import torch

from avfeat.errors import UnknownNameError, UsageError, WeightsError
from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, Backbone, BackboneSpec
from avfeat.extract.engines.precision import has_bf16
from avfeat.extract.weights.random import smooth_items

CPU = torch.device("cpu")


@pytest.fixture
def items(tiny: type[Backbone]) -> torch.Tensor:
    return smooth_items(tiny.spec.input, 5, torch.Generator().manual_seed(1))


def test_rows_are_float32_on_the_cpu(items: torch.Tensor) -> None:
    extract = backbones.load("tiny", weights="random", device=CPU)
    rows = extract(items)
    assert (rows.dtype, rows.device.type, tuple(rows.shape)) == (torch.float32, "cpu", (5, 4))
    assert not rows.requires_grad
    assert torch.equal(rows, extract(items))
    assert extract(items[:0]).shape == (0, 4)


@pytest.mark.skipif(not has_bf16(), reason="the processor has no bfloat16 instructions")
def test_bf16_is_near_and_only_when_asked(items: torch.Tensor) -> None:
    plain = backbones.load("tiny", weights="random", device=CPU)(items)
    half = backbones.load("tiny", weights="random", device=CPU, precision="bf16")(items)
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    torch.testing.assert_close(plain, half, rtol=0.05, atol=0.05)


def test_random_weights_say_so_and_follow_the_seed(items: torch.Tensor) -> None:
    first = backbones.load("tiny", weights="random", device=CPU)
    assert first.weights.to_dict() == {
        "source": "random",
        "tag": None,
        "file": None,
        "sha256": None,
        "url": None,
        "licence": None,
        "citation": None,
        "tensors": None,
        "seed": 0,
        "method": "calibrated-normal-v2",
    }
    again = backbones.load("tiny", weights="random:0", device=CPU)
    other = backbones.load("tiny", weights="random:7", device=CPU)
    assert again.weights == first.weights != other.weights
    assert torch.equal(again(items), first(items))
    assert not torch.allclose(other(items), first(items))


@pytest.mark.parametrize(
    "weights", ["random:", "random:x", "random:-1", "random:²", "random:" + "9" * 20]
)
def test_a_seed_is_a_small_integer(tiny: type[Backbone], weights: str) -> None:
    with pytest.raises(UsageError, match="seed must be an integer"):
        backbones.resolve_weights("tiny", weights)


def test_unknown_tags_are_named(tiny: type[Backbone]) -> None:
    with pytest.raises(UnknownNameError, match=r"weights tag of tiny 'v3'.*Known: .*v1"):
        backbones.resolve_weights("tiny", "v3")


def test_items_of_another_shape_or_type_are_refused(items: torch.Tensor) -> None:
    extract = backbones.load("tiny", weights="random", device=CPU)
    with pytest.raises(ValueError, match=r"takes torch.uint8 \[N, 12, 12, 3\], got torch.float32"):
        extract(items.float())
    with pytest.raises(ValueError, match=r"got torch.uint8 \[5, 3, 12, 12\]"):
        extract(items.movedim(-1, 1))


def test_the_global_random_state_is_left_alone(tiny: type[Backbone]) -> None:
    before = torch.get_rng_state()
    backbones.load("tiny", weights="random", device=CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_audio_without_a_front_end_gets_the_waveform_and_needs_no_published_weights() -> None:
    @backbones.register
    class Loudness(Backbone):
        spec = BackboneSpec(
            name="loudness",
            modality="audio",
            dim=1,
            layer="mean square",
            input=AudioInput(rate=8000, window=80, hop=40),
            weights=(),
            parameters=0,
            gmacs_per_item=0.0,
            paper="none",
            description="for tests",
        )

        def build(self) -> torch.nn.Module:
            return torch.nn.LPPool1d(2, 80)

    try:
        extract = backbones.load("loudness", weights="random", device=CPU)
        rows = extract(torch.ones(3, 80))
        torch.testing.assert_close(rows, torch.full((3, 1), 80.0**0.5))
        with pytest.raises(
            WeightsError, match="no published weights; use `avfeat extract --weights random`"
        ):
            backbones.resolve_weights("loudness")
    finally:
        backbones.unregister("loudness")
