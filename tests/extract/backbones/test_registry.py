"""Specs, their arithmetic, and how backbones are found."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys

import pytest

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, BackboneSpec, Geometry, VisualInput, registry

NAMES = ["r2plus1d_18", "resnet152", "senet154", "vgg19_bn", "vggish"]


def test_the_five_backbones_are_found_in_a_fixed_order() -> None:
    names = backbones.names()
    assert set(NAMES) <= set(names)
    assert names == sorted(names) == [spec.name for spec in backbones.select("all")]


def test_listing_specs_does_not_import_torch() -> None:
    code = (
        "import sys, avfeat.extract.backbones as b; "
        "assert len(b.select('all')) >= 5; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "rows", "dim", "weights"),
    [
        ("r2plus1d_18", 10, 512, "tv_k400_v1"),
        ("resnet152", 80, 2048, "tv_in1k_v1"),
        ("senet154", 80, 2048, "cadene_in1k"),
        ("vgg19_bn", 80, 4096, "tv_in1k_v1"),
        ("vggish", 10, 128, "audioset"),
    ],
)
def test_rows_of_a_ten_second_clip(name: str, rows: int, dim: int, weights: str) -> None:
    spec = backbones.get(name).spec
    assert spec.rows(10.0, 8.0) == rows
    assert (spec.dim, spec.weights[0]) == (dim, weights)
    assert json.loads(json.dumps(spec.recipe())) == spec.recipe()


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(160_000, 10), (159_600, 10), (159_599, 9), (16_000, 1), (15_600, 1), (15_599, 0), (0, 0)],
)
def test_vggish_wants_96_frames_of_each_whole_second(samples: int, rows: int) -> None:
    assert backbones.get("vggish").spec.input.rows(samples) == rows


@pytest.mark.parametrize(("frames", "rows"), [(80, 10), (79, 9), (82, 10), (8, 1), (7, 0), (0, 0)])
def test_r2plus1d_drops_an_incomplete_snippet(frames: int, rows: int) -> None:
    assert backbones.get("r2plus1d_18").spec.input.rows(frames) == rows


def test_image_networks_share_one_geometry() -> None:
    shared = {backbones.get(name).spec.input for name in ("resnet152", "senet154", "vgg19_bn")}
    assert shared == {VisualInput(Geometry(256, 224))}
    assert backbones.get("r2plus1d_18").spec.input.item_shape == (8, 112, 112, 3)


def test_the_recipe_tells_every_change_of_preprocessing() -> None:
    spec = backbones.get("r2plus1d_18").spec
    assert isinstance(spec.input, VisualInput)
    changes = {
        "geometry": Geometry((128, 171), 112),
        "frames": 16,
        "stride": 4,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(VisualInput)}
    for field, value in changes.items():
        other = dataclasses.replace(spec, input=dataclasses.replace(spec.input, **{field: value}))
        assert other.recipe() != spec.recipe(), field


def test_select_takes_lists_and_drops_duplicates() -> None:
    expected = ["resnet152", "vggish"]
    assert [s.name for s in backbones.select("vggish, resnet152,vggish,")] == expected
    assert [s.name for s in backbones.select(["vggish", "resnet152"])] == expected


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet152'"):
        backbones.get("resnet125")
    with pytest.raises(UnknownNameError, match="'alexnet'"):
        backbones.select("vggish,alexnet")
    with pytest.raises(UsageError, match="no backbone named"):
        backbones.select(" , ")


def test_backbones_can_be_added_at_run_time(tiny: type[backbones.Backbone]) -> None:
    assert "tiny" in backbones.names()
    assert backbones.get("tiny").spec is tiny.spec
    assert backbones.register(tiny) is tiny  # the same class again is no conflict

    class Impostor(tiny):  # type: ignore[misc,valid-type]
        pass

    with pytest.raises(UsageError, match="registered twice"):
        backbones.register(Impostor)


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = importlib.metadata.EntryPoint("zoo", "no_such_package:Net", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    registry._discover.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"plugin 'zoo' \(no_such_package:Net\)"):
            backbones.names()
    finally:
        monkeypatch.undo()
        registry._discover.cache_clear()


def test_a_spec_must_agree_with_its_input() -> None:
    spec = backbones.get("vggish").spec
    with pytest.raises(ValueError, match="visual with AudioInput"):
        dataclasses.replace(spec, modality="visual")
    assert isinstance(spec, BackboneSpec) and isinstance(spec.input, AudioInput)
