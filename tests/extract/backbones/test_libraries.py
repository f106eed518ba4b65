"""``timm:`` and ``torchvision:`` models against the libraries themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tvm
from PIL import Image
from safetensors.torch import save_file
from support import Cli
from torch import Tensor, nn

from avfeat import open_store
from avfeat.errors import UnknownNameError, UsageError, WeightsError
from avfeat.extract import backbones, transforms
from avfeat.extract.backbones import Backbone, VisualInput
from avfeat.extract.backbones.libraries import timm_models
from avfeat.extract.weights.random import calibrate, smooth_items
from avfeat.extract.weights.registry import Source
from avfeat.testing import make_clip

CPU = torch.device("cpu")
State = dict[str, Tensor]
SIZES = [(240, 320), (240, 426), (256, 455), (720, 1280), (640, 360), (90, 120), (224, 224)]


def visual(name: str) -> VisualInput:
    taken = backbones.get(name).spec.input
    assert isinstance(taken, VisualInput)
    return taken


def picture(height: int, width: int) -> np.ndarray:
    """Shading, edges and noise: a wrong filter, offset or size shows."""
    rng = np.random.default_rng(height + width)
    y, x = np.mgrid[0:height, 0:width]
    shading = 80 * np.sin(x / 23.0 + y / 31.0)[..., None] * np.array([1.0, -0.7, 0.5])
    edges = 60.0 * ((x // 11 + y // 7) % 2)[..., None]
    noise = rng.normal(0, 10, (height, width, 3))
    return np.clip(110 + shading + edges + noise, 0, 255).astype(np.uint8)


def timm_transform(model: str) -> Callable[[Image.Image], Tensor]:
    cfg = timm.get_pretrained_cfg(model).to_dict()
    config = timm.data.resolve_data_config({}, pretrained_cfg=cfg)
    made: Callable[[Image.Image], Tensor] = timm.data.create_transform(**config, is_training=False)
    return made


def torchvision_transform(model: str) -> Callable[[Image.Image], Tensor]:
    arch, _, tag = model.partition(".")
    made: Callable[[Image.Image], Tensor] = tvm.get_model_weights(arch)[
        tag or "DEFAULT"
    ].transforms()
    return made


INPUTS = {
    "timm:resnet18": timm_transform,  # bicubic, crop_pct 0.95: 224 / 0.95 is no whole number
    "timm:resnet18.tv_in1k": timm_transform,  # bilinear
    "timm:mobilenetv3_small_050": timm_transform,
    "timm:vit_tiny_patch16_224": timm_transform,  # mean and std 0.5
    "timm:vit_base_patch32_clip_224.openai": timm_transform,
    "timm:coat_lite_medium_384": timm_transform,  # squashed, not cropped
    "timm:dm_nfnet_f0": timm_transform,  # squashed and cropped
    "torchvision:resnet18": torchvision_transform,
    "torchvision:resnet50": torchvision_transform,  # 232
    "torchvision:mobilenet_v3_small": torchvision_transform,
    "torchvision:squeezenet1_0": torchvision_transform,
    "torchvision:inception_v3": torchvision_transform,
    "torchvision:efficientnet_b0": torchvision_transform,  # bicubic
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_equal_the_transforms_of_the_library(name: str) -> None:
    backbone = backbones.get(name)
    taken = visual(name)
    oracle = INPUTS[name](name.partition(":")[2])
    for size in SIZES:
        rgb = picture(*size)
        item = torch.from_numpy(transforms.apply(taken.geometry, rgb))
        found = backbone.to_input(item[None])[0]
        expected = oracle(Image.fromarray(rgb))
        assert found.shape == expected.shape
        levels = (found - expected).abs() * torch.tensor(taken.std).reshape(3, 1, 1)
        assert levels.max() <= 2 / 255, size
        assert (levels <= 1 / 255).float().mean() >= 0.999, size


def timm_full(model: str) -> nn.Module:
    net: nn.Module = timm.create_model(model)
    return net


def timm_features(net: Any, inputs: Tensor) -> Tensor:
    """By the other way that timm has to them."""
    features: Tensor = net.forward_head(net.forward_features(inputs), pre_logits=True)
    return features


def torchvision_full(model: str) -> nn.Module:
    settings: dict[str, Any] = {}
    if model == "googlenet":  # as it is with weights, auxiliary heads included
        settings = {"init_weights": False, "transform_input": True, "aux_logits": True}
    net: nn.Module = tvm.get_model_builder(model)(weights=None, **settings)
    return net


def before_the_last_linear(net: nn.Module, inputs: Tensor) -> Tensor:
    """What the last linear layer that runs is given."""
    taken: list[Tensor] = []
    hooks = [
        m.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
        for m in net.modules()
        if isinstance(m, nn.Linear)
    ]
    net(inputs)
    for hook in hooks:
        hook.remove()
    return taken[-1]


def averaged(net: Any, inputs: Tensor) -> Tensor:
    features: Tensor = net.features(inputs).mean((2, 3))
    return features


FEATURES: dict[str, tuple[Callable[[str], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "timm:resnet18": (timm_full, timm_features),
    "timm:mobilenetv3_small_050": (timm_full, timm_features),
    "timm:vit_tiny_patch16_224": (timm_full, timm_features),
    "timm:test_convnext": (timm_full, timm_features),
    "torchvision:resnet18": (torchvision_full, before_the_last_linear),
    "torchvision:mobilenet_v3_small": (torchvision_full, before_the_last_linear),
    "torchvision:squeezenet1_0": (torchvision_full, averaged),
    "torchvision:googlenet": (torchvision_full, before_the_last_linear),
}


def published_state(backbone: Backbone, full: nn.Module, seed: int = 11) -> State:
    """Calibrated weights, and the classifier that published files have too."""
    net = backbone.build()
    calibrate(net, backbone, seed=seed)
    return full.state_dict() | net.state_dict()


def publish(
    backbone: Backbone, state: State, server: Any, folder: Path, patch: pytest.MonkeyPatch
) -> None:
    """Serve a state dict as the file that the backbone's first source is."""
    entry = backbone.weights_entry(backbone.spec.weights[0])
    file = entry.sources[0].file
    if file.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in state.items()}, folder / file)
    else:
        torch.save(state, folder / file)
    server.files[file] = (folder / file).read_bytes()
    served = replace(entry, sources=(Source((server.url(file),), file),))
    patch.setattr(type(backbone), "published", served)


@pytest.mark.parametrize("name", FEATURES)
def test_features_equal_the_library(
    name: str,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = backbones.get(name)
    build, features = FEATURES[name]
    full = build(name.partition(":")[2])
    state = published_state(backbone, full)
    full.load_state_dict(state)
    publish(backbone, state, file_server, tmp_path, monkeypatch)

    extract = backbones.load(backbone, device=CPU)

    items = smooth_items(backbone.spec.input, 2, torch.Generator().manual_seed(21))
    inputs = backbone.to_input(items)
    with torch.inference_mode():
        expected = features(full.eval(), inputs)
        noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
        moved = features(full, inputs + 1e-3 * inputs.square().mean().sqrt() * noise)
    rows = extract(items)
    assert rows.shape == expected.shape == (2, backbone.spec.dim)
    assert relative(rows, expected) <= 1e-6
    # Networks that forget their input would agree with any other.
    assert relative(moved, expected) > 1e-4
    assert relative(rows[:1], expected[1:]) > 1e-2
    kept = sum(parameter.numel() for parameter in backbone.build().parameters())
    assert kept == backbone.spec.parameters


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_counts_are_those_of_our_own_backbone_of_the_same_model() -> None:
    ours = backbones.get("resnet152").spec
    theirs = backbones.get("torchvision:resnet152.IMAGENET1K_V1").spec
    assert (theirs.parameters, theirs.gmacs_per_item) == (ours.parameters, ours.gmacs_per_item)
    assert (theirs.input, theirs.dim) == (ours.input, ours.dim)


def test_files_go_through_the_conversion_of_timm(
    file_server: Any, weights_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Early files of ViT have the patch embedding as a matrix, and timm unfolds it."""
    backbone = backbones.get("timm:test_vit")
    state = published_state(backbone, timm.create_model("test_vit"))
    kernel = state["patch_embed.proj.weight"]
    flat = state | {"patch_embed.proj.weight": kernel.flatten(1)}
    publish(backbone, flat, file_server, tmp_path, monkeypatch)
    extract = backbones.load(backbone, device=CPU)
    items = smooth_items(backbone.spec.input, 1)
    expected = backbones.load(backbone, weights="random:11", device=CPU)(items)
    assert torch.equal(extract(items), expected)


def test_every_architecture_of_timm_shows_its_conversion() -> None:
    """In a sample: one function, a partial one, none; strict, and not."""
    for model, converts, strict in [
        ("test_resnet", False, True),
        ("test_vit", True, True),
        ("test_convnext", True, True),
        ("crossvit_tiny_240", True, True),
        ("inception_v3.tv_in1k", False, False),
    ]:
        loading = timm_models._loading(model)
        assert (loading.filter is not None, loading.strict) == (converts, strict), model
        assert next(loading.net.parameters()).is_meta


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_widened_as_timm_does(
    dtype: torch.dtype,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some large models are published so. Anything else is cast by nobody."""
    backbone = backbones.get("timm:test_resnet")
    state = published_state(backbone, timm.create_model("test_resnet"))
    halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    widened = backbone.from_published(halves)
    for key, value in state.items():
        assert torch.equal(widened[key], value.to(dtype).to(value.dtype))
    doubles = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    publish(backbone, doubles, file_server, tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match="float64 instead of float32"):
        backbones.load(backbone, device=CPU)


def test_keys_that_timm_leaves_out_itself_are_left_out() -> None:
    """torchvision's Inception file has an auxiliary head; any other surplus is refused."""
    net = timm.create_model("inception_v3.tv_in1k")
    auxiliary = {"AuxLogits.fc.weight": torch.zeros(1000, 768)}
    backbone = backbones.get("timm:inception_v3.tv_in1k")
    assert backbone.from_published(net.state_dict() | auxiliary).keys() == net.state_dict().keys()
    surplus = backbones.get("timm:test_resnet").from_published(auxiliary)
    assert surplus.keys() == auxiliary.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), r"1 missing: layer1\.0\.conv1\.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda state: state.update({"layer1.0.conv1.weight": torch.zeros(3, 3)}),
            r"1 of another shape: layer1\.0\.conv1\.weight \[3, 3\] instead of",
        ),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18"])
def test_a_file_of_another_architecture_is_refused(
    name: str,
    change: Callable[[State], object],
    words: str,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = backbones.get(name)
    state = FEATURES["torchvision:resnet18" if "vision" in name else "timm:resnet18"][0](
        name.partition(":")[2]
    ).state_dict()
    change(state)
    publish(backbone, state, file_server, tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=words):
        backbones.load(backbone, device=CPU)


def test_what_timm_cannot_convert_is_an_error_about_weights(
    file_server: Any, weights_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones.get("timm:test_vit")
    publish(backbone, {"pos_embed": torch.zeros(())}, file_server, tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"does not fit timm:test_vit\.r160_in1k"):
        backbones.load(backbone, device=CPU)


def test_weights_say_where_they_come_from() -> None:
    entry = backbones.get("timm:resnet18").weights_entry("a1_in1k")
    assert (entry.name, entry.tag, entry.licence) == (
        "timm:resnet18.a1_in1k",
        "a1_in1k",
        "apache-2.0",
    )
    assert [source.urls[0] for source in entry.sources[:2]] == [
        f"https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/{file}"
        for file in ("model.safetensors", "pytorch_model.bin")
    ]
    assert entry.sources[0].digest is None
    assert (entry.sources[2].file, entry.sources[2].digest) == (
        "resnet18_a1_0-d63eafa0.pth",
        "sha256:d63eafa0",
    )
    assert "arXiv:2110.00476" in entry.citation
    assert entry.drop == ("fc.bias", "fc.weight")
    # Its URL is of a file in JAX's layout. A licence that nobody states is not made up.
    vit = backbones.get("timm:vit_tiny_patch16_224").weights_entry("augreg_in21k_ft_in1k")
    assert len(vit.sources) == 2
    unstated = backbones.get("timm:dla60_res2net.in1k").weights_entry("in1k")
    assert unstated.licence == "not stated"

    resnet = backbones.get("torchvision:resnet50").weights_entry("IMAGENET1K_V2")
    assert resnet.name == "torchvision:resnet50.IMAGENET1K_V2"
    assert resnet.sources == (
        Source(
            urls=("https://download.pytorch.org/models/resnet50-11ad3fa6.pth",),
            file="resnet50-11ad3fa6.pth",
            digest="sha256:11ad3fa6",
            size_mib=97.79,
        ),
    )
    assert resnet.licence == "BSD-3-Clause (code); no separate statement for the weights"
    assert re.search(r"1512\.03385; recipe: https://github\.com/pytorch/vision/", resnet.citation)
    swag = backbones.get("torchvision:vit_b_16.IMAGENET1K_SWAG_LINEAR_V1")
    assert "SWAG/blob/main/LICENSE" in swag.weights_entry("IMAGENET1K_SWAG_LINEAR_V1").licence


def test_models_without_weights_have_none_but_random_ones() -> None:
    backbone = backbones.get("timm:selecsls84")
    assert backbone.spec.weights == ()
    with pytest.raises(WeightsError, match="no published weights"):
        backbones.resolve_weights(backbone)


def test_settings_follow_the_weights() -> None:
    large = visual("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert large.item_shape == (384, 384, 3)
    assert backbones.get("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1").spec.dim == 768
    # Some of torchvision's networks cannot be built without memory.
    assert backbones.get("torchvision:regnet_x_400mf").spec.dim == 400


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("timm:resnet19", UnknownNameError, "Did you mean 'resnet18'"),
        ("timm:resnet50.a1_in2k", UnknownNameError, r"Did you mean 'resnet50\.a1_in1k'"),
        ("timm:", UnknownNameError, "unknown timm model ''"),
        ("torchvision:resnet51", UnknownNameError, "Did you mean 'resnet50'"),
        ("torchvision:resnet50.IMAGENET1K_V3", UnknownNameError, "Did you mean 'IMAGENET1K_V2'"),
        ("torchvision:r2plus1d_18", UnknownNameError, "unknown torchvision image model"),
        ("timm:deepseek_vit_412m", UsageError, "crop mode 'border', where avfeat has center"),
        ("timm:volo_d4_448", UsageError, r"borders around the picture \(crop_pct 1\.15\)"),
        ("timm:qwen3_vit_306m_enc", UsageError, "as a part of models"),
    ],
)
def test_what_cannot_be_had_is_refused(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        backbones.get(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_size": (1, 224, 224)}, "1 channels"),
        ({"interpolation": "hamming"}, "hamming interpolation"),
        ({"input_size": (3, 224, 160)}, "a crop of 224 x 160"),
    ],
)
def test_preprocessing_of_another_kind_is_refused(change: dict[str, Any], words: str) -> None:
    cfg = timm.get_pretrained_cfg("resnet18").to_dict() | change
    with pytest.raises(UsageError, match=f"x cannot be used: its preprocessing wants {words}"):
        timm_models.visual_input("x", cfg)


def test_tags_are_resolved_and_the_mean_of_a_second_is_an_option() -> None:
    names = {
        "timm:resnet18": "timm:resnet18.a1_in1k",
        "timm:resnet18.a1_in1k.second": "timm:resnet18.a1_in1k.second",
        "timm:resnet18.second": "timm:resnet18.a1_in1k.second",
        "torchvision:resnet50": "torchvision:resnet50.IMAGENET1K_V2",
        "torchvision:resnet50.IMAGENET1K_V1": "torchvision:resnet50.IMAGENET1K_V1",
    }
    assert {name: backbones.get(name).spec.name for name in names} == names
    for name in names.values():
        assert backbones.get(name).spec.name == name
    assert backbones.get("timm:resnet18.second").spec.rows(10.0) == 10


@pytest.mark.parametrize(
    "name",
    [
        *("timm:test_vit", "timm:test_vit3", "timm:test_convnext", "timm:test_maxvit"),
        *("timm:test_efficientnet_ln", "timm:test_nfnet", "timm:cait_xxs24_224"),
        *("torchvision:swin_t", "torchvision:regnet_x_400mf"),
    ],
)
def test_random_weights_do_not_forget_their_input(name: str) -> None:
    """Layer scales of 1e-6 and gates of 0 would, and starting values must have a seed."""
    backbone = backbones.get(name)
    items = smooth_items(backbone.spec.input, 2, torch.Generator().manual_seed(3))
    first, second, other = (
        backbones.load(backbone, weights=weights, device=CPU)(items)
        for weights in ("random", "random", "random:1")
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, other, rtol=0.1)
    assert torch.isfinite(first).all()
    assert 1e-3 < first.std() < 1e4
    assert relative(first[:1], first[1:]) > 0.1
    off = [
        key
        for key, parameter in backbone.build().named_parameters()
        if not key.endswith("bias") and parameter.detach().abs().max() < 1e-3
    ]
    assert not off


def test_building_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    backbones.get("timm:test_vit").build()
    assert torch.equal(torch.get_rng_state(), before)


def test_extract_takes_models_by_name(avfeat: Cli, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    make_clip(media / "a.mp4", fps=8, size=(160, 120), duration=2.0)
    names = "timm:test_vit,torchvision:mobilenet_v3_small.second"
    options = ("-d", "folder", "--data", media, "--weights", "random", "--device", "cpu")
    avfeat("extract", "-b", names, *options)
    every = open_store("features/folder/timm_test_vit.r160_in1k", allow_random=True)
    assert every["a.mp4"].shape == (16, 64)
    assert every.recipe.backbone["name"] == "timm:test_vit.r160_in1k"
    mean = open_store(
        "features/folder/torchvision_mobilenet_v3_small.IMAGENET1K_V1.second", allow_random=True
    )
    assert mean["a.mp4"].shape == (2, 1024)
    again = avfeat("extract", "-b", "timm:test_vit.r160_in1k", *options)
    assert "nothing" in again.output.lower() or "0 rows" in again.output
    assert avfeat("extract", "-b", "timm:resnet1", *options, code=2).exit_code == 2
