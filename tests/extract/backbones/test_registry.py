"""Specs, their arithmetic, and how backbones are found."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract import backbones
from avfeat.extract.backbones import AudioInput, BackboneSpec, Geometry, VisualInput
from avfeat.extract.backbones.spec import FLOW_REVISIONS

# name: rows of a ten-second clip, shape of a row, default weights
TABLE = {
    "i3d": (10, (2048,), "pgi3d"),
    "i3d_flow": (10, (1024,), "pgi3d"),
    "i3d_rgb": (10, (1024,), "pgi3d"),
    "openl3": (10, (512,), "v0_4_0_mel256_env"),
    "openl3_image": (80, (512,), "v0_4_0_mel256_env"),
    "polynet": (80, (2048,), "cadene_in1k"),
    "r2plus1d_18": (10, (512,), "tv_k400_v1"),
    "resnet152": (80, (2048,), "tv_in1k_v1"),
    "senet154": (80, (2048,), "cadene_in1k"),
    "vgg19.pool5": (10, (7, 7, 512), "keras_in1k"),
    "vgg19_bn": (80, (4096,), "tv_in1k_v1"),
    "vggish": (10, (128,), "audioset"),
}


def test_the_backbones_are_found_in_a_fixed_order() -> None:
    names = backbones.names()
    assert set(TABLE) <= set(names)
    assert names == sorted(names) == [backbone.spec.name for backbone in backbones.select("all")]


def test_listing_specs_does_not_import_torch() -> None:
    code = (
        "import sys, avfeat.extract.backbones as b; "
        "assert len(b.select('all')) >= 5; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", TABLE)
def test_rows_of_a_ten_second_clip(name: str) -> None:
    spec = backbones.get(name).spec
    assert (spec.rows(10.0), spec.row_shape, spec.weights[0]) == TABLE[name]
    assert json.loads(json.dumps(spec.recipe())) == spec.recipe()


@pytest.mark.parametrize(
    ("name", "rows", "shape"),
    [
        ("resnet152.map", 80, (7, 7, 2048)),
        ("senet154.map", 80, (7, 7, 2048)),
        ("polynet.map", 80, (9, 9, 2048)),
        ("vgg19_bn.map", 80, (14, 14, 512)),
        ("openl3_image.map", 80, (28, 28, 512)),
        ("openl3_image.8192", 80, (8192,)),
        ("resnet152.second", 10, (2048,)),
        ("polynet.map.second", 10, (9, 9, 2048)),
        ("openl3.6144", 10, (6144,)),
        ("openl3.hop_500ms", 19, (512,)),
        ("openl3.hop_100ms", 91, (512,)),
        ("vggish.tf_frames", 10, (128,)),
        ("r2plus1d_18.tv", 9, (512,)),
        ("i3d.chunks", 15, (2048,)),
        ("i3d_rgb.centred", 10, (1024,)),
    ],
)
def test_rows_of_variants(name: str, rows: int, shape: tuple[int, ...]) -> None:
    spec = backbones.get(name).spec
    assert (spec.name, spec.rows(10.0), spec.row_shape) == (name, rows, shape)


def test_variants_have_one_name_and_one_recipe_each() -> None:
    assert (
        backbones.get("openl3.frontend_a.env.512.48k.mel256").spec == backbones.get("openl3").spec
    )
    assert backbones.get("openl3.16k.linear.music").spec.name == "openl3.music.linear.16k"
    pca8 = backbones.get("vggish.tf_frames.audioset_pca8")
    assert pca8.spec == backbones.get("vggish.audioset_pca8").spec
    assert pca8.chosen == backbones.get("vggish.audioset_pca8").chosen


@pytest.mark.parametrize("family", TABLE)
def test_every_combination_of_options_has_a_recipe_of_its_own(family: str) -> None:
    """Or the name of the other combination with the same one, so that there is one store."""
    backbone = backbones.get(family)
    names = {}
    for chosen in itertools.product(*backbone.alternatives):
        variant = backbone.variant(list(filter(None, chosen)))
        assert backbones.get(variant.spec.name).spec == variant.spec
        kinds = itertools.product((False, True), ("cpu", "cuda"))
        recipes = [variant.adapted(untrimmed=u, device=d).spec.recipe() for u, d in kinds]
        rates = [getattr(variant.spec.input, "fps", None), variant.spec.weights]
        known = json.dumps([[r | {"name": ""} for r in recipes], rates])
        assert names.setdefault(known, variant.spec.name) == variant.spec.name
    assert len(set(names.values())) == len(names)


def test_a_weights_tag_may_stand_in_a_name() -> None:
    named = backbones.get("resnet152.tv_in1k_v1")
    assert (named.spec.name, named.tag) == ("resnet152", "tv_in1k_v1")
    with pytest.raises(UsageError, match="do not fit"):
        backbones.get("openl3.music.v0_4_0_mel256_env")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("resnet152.mpa", UnknownNameError, "Did you mean 'map'"),
        ("openl3.mel256.mel128", UsageError, "mel256 and mel128 exclude each other"),
        ("r2plus1d_18.second", UnknownNameError, "option of r2plus1d_18"),
        ("vgg19.pool5.second", UnknownNameError, "option of vgg19.pool5"),
        ("vgg19", UnknownNameError, "Did you mean"),
        ("tim:resnet18", UnknownNameError, "Did you mean 'timm'"),
        ("resnet152.", UsageError, "'resnet152.' has an empty option; is 'resnet152' meant"),
        ("resnet152..map", UsageError, "is 'resnet152.map' meant"),
        ("openl3.", UsageError, "empty option"),
        ("vgg19.pool5.", UsageError, "is 'vgg19.pool5' meant"),
        ("timm:test_resnet.", UsageError, "is 'timm:test_resnet' meant"),
        ("torchvision:resnet18..second", UsageError, "is 'torchvision:resnet18.second' meant"),
        (".resnet152", UnknownNameError, "unknown backbone"),
    ],
)
def test_wrong_options_are_refused(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        backbones.get(name)


def test_options_are_chosen_for_those_that_have_them() -> None:
    chosen = backbones.select(
        "vggish,resnet152,polynet.second", options={"second": "--pool second"}
    )
    assert [b.spec.name for b in chosen] == ["polynet.second", "resnet152.second", "vggish"]
    asked = {"16k": "--audio-rate 16000"}
    with pytest.raises(UsageError) as caught:
        backbones.select("resnet152,vggish", options=asked)
    assert str(caught.value).startswith(  # tests register others
        "--audio-rate 16000 does nothing for resnet152, vggish; backbones that have it: openl3"
    )
    with pytest.raises(UsageError, match=r"that have it: .*openl3_image, polynet, resnet152, sen"):
        backbones.select("vggish", options={"second": "--pool second"})


def test_i3d_takes_the_grid_of_the_data_set_and_the_flow_of_the_device() -> None:
    i3d = backbones.get("i3d")
    clips = i3d.adapted(untrimmed=False, device="cpu").spec
    videos = i3d.adapted(untrimmed=True, device="cuda").spec
    assert clips.name == videos.name == "i3d"
    assert isinstance(clips.input, VisualInput) and isinstance(videos.input, VisualInput)
    assert (clips.input.fps, clips.input.stride, clips.input.padding) == (8.0, 8, 4)
    assert (videos.input.fps, videos.input.stride, videos.input.padding) == (25.0, 16, 0)
    assert (clips.input.flow, videos.input.flow) == ("tvl1-opencv", "tvl1-torch")
    forced = backbones.get("i3d.centred.tvl1_opencv").adapted(untrimmed=True, device="cuda").spec
    assert isinstance(forced.input, VisualInput)
    assert (forced.input.fps, forced.input.flow) == (8.0, "tvl1-opencv")
    assert videos.rows(201 / 25) == 12  # W-TALC: 201 frames give 12 rows


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(160_000, 10), (159_600, 10), (159_599, 9), (16_000, 1), (15_600, 1), (15_599, 0), (0, 0)],
)
def test_vggish_wants_96_frames_of_each_whole_second(samples: int, rows: int) -> None:
    assert backbones.get("vggish").spec.input.items(samples / 16_000) == rows


@pytest.mark.parametrize(("samples", "rows"), [(160_000, 10), (154_000, 10), (153_600, 9)])
def test_tensorflow_framing_of_vggish(samples: int, rows: int) -> None:
    assert backbones.get("vggish.tf_frames").spec.rows(samples / 16_000) == rows


@pytest.mark.parametrize(("frames", "rows"), [(80, 10), (79, 9), (82, 10), (8, 1), (7, 0), (0, 0)])
def test_r2plus1d_drops_an_incomplete_snippet(frames: int, rows: int) -> None:
    assert backbones.get("r2plus1d_18").spec.input.items(frames / 8) == rows


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
        "padding": 4,
        "stream": "flow",
        "white": 255.0,
        "colour": "BGR",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    elsewhere = {"fps", "rule", "flow", "flow_bits"}  # in `sampling`; only where there is flow
    assert changes.keys() | elsewhere == {field.name for field in dataclasses.fields(VisualInput)}
    for field, value in changes.items():
        other = dataclasses.replace(spec, input=dataclasses.replace(spec.input, **{field: value}))
        assert other.recipe() != spec.recipe(), field


def test_a_revision_is_in_the_recipe_once_there_is_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stores that exist were made by the first, and are to go on."""
    spec = backbones.get("i3d_flow.tvl1_torch").spec
    plain = spec.recipe()
    assert "revision" not in plain and "flow_revision" not in plain["input"]
    assert dataclasses.replace(spec, revision=2).recipe() == plain | {"revision": 2}
    monkeypatch.setitem(FLOW_REVISIONS, "tvl1-torch", 2)
    assert spec.recipe()["input"] == plain["input"] | {"flow_revision": 2}
    other = backbones.get("i3d_flow.tvl1_opencv").spec.recipe()
    assert "flow_revision" not in other["input"]
    assert "flow_revision" not in backbones.get("i3d_rgb").spec.recipe()["input"]


def test_select_takes_lists_and_drops_duplicates() -> None:
    expected = ["resnet152", "vggish"]
    assert [b.spec.name for b in backbones.select("vggish, resnet152,vggish,")] == expected
    assert [b.spec.name for b in backbones.select(["vggish", "resnet152"])] == expected


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


def test_a_spec_must_agree_with_its_input() -> None:
    spec = backbones.get("vggish").spec
    with pytest.raises(ValueError, match="visual with AudioInput"):
        dataclasses.replace(spec, modality="visual")
    assert isinstance(spec, BackboneSpec) and isinstance(spec.input, AudioInput)
