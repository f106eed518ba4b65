"""Which engine runs a backbone, in which precision, and what the recipe and the user are told."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from support import Cli, Corpus, tree
from torch import Tensor, nn

from avfeat.errors import UnknownNameError, UsageError
from avfeat.extract import backbones, engines
from avfeat.extract.backbones import Backbone
from avfeat.extract.engines import precision
from avfeat.extract.engines.trial import _known
from avfeat.stores.reader import open_store

CPU = torch.device("cpu")


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.fixture
def stubborn(tiny: type[Backbone], monkeypatch: pytest.MonkeyPatch) -> type[Backbone]:
    """`tiny` with an operation that OpenVINO has not."""

    class Spectrum(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return torch.linalg.eigvalsh(maps @ maps.mT).mean(-1)

    build = tiny.build

    def odd(self: Backbone) -> nn.Module:
        convolution = build(self)
        return nn.Sequential(*list(convolution.children())[:3], Spectrum())

    monkeypatch.setattr(tiny, "build", odd)
    return tiny


def test_auto_is_openvino_on_a_cpu_and_torch_elsewhere() -> None:
    assert engines.resolve("auto", device="cpu").engine == "openvino"
    assert engines.resolve("auto", device="cuda:1") == engines.Choice("torch", "the device is cuda")
    assert engines.resolve("torch", device="cpu") == engines.Choice("torch", "asked for")


@pytest.mark.usefixtures("not_installed")
def test_without_the_package_auto_is_torch_and_says_what_to_install() -> None:
    choice = engines.resolve("auto", device="cpu")
    assert choice.engine == "torch"
    assert "pip install 'avfeat[openvino]'" in choice.reason
    with pytest.raises(UsageError, match=r"not installed; pip install 'avfeat\[openvino\]'"):
        engines.resolve("openvino", device="cpu")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="not on cuda; use --device cpu"):
        engines.resolve("openvino", device="cuda")
    with pytest.raises(UnknownNameError, match=r"engine 'onnx'.*Known: auto, openvino, torch"):
        engines.resolve("onnx", device="cpu")


@pytest.mark.parametrize(
    ("asked", "device", "message"),
    [
        ("tf32", "cpu", "tf32 is for CUDA devices; on cpu there are fp32 and bf16"),
        ("fp16", "cpu", "fp16 is for CUDA devices"),
        ("int8", "cuda", "unknown precision 'int8'; known: fp32, tf32, bf16, fp16"),
    ],
)
def test_precisions_that_a_device_lacks_are_refused(asked: str, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engines.check_precision(asked, device=device)


@pytest.mark.parametrize("asked", ["fp32", "tf32", "bf16", "fp16"])
def test_cuda_has_all_precisions(asked: str) -> None:
    assert engines.check_precision(asked, device="cuda:0") == asked


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not precision.has_bf16()
    with pytest.raises(UsageError, match="no bfloat16 instructions"):
        engines.check_precision("bf16", device="cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert engines.check_precision("bf16", device="cpu") == "bf16"


def test_torchs_switches_are_put_back() -> None:
    """On CUDA; the flags can be set without a GPU."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32)
    for name, tf32 in (("fp32", False), ("tf32", True)):
        with precision.computing(torch.device("cuda"), name):  # type: ignore[arg-type]
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (tf32, tf32)
            assert cudnn.deterministic
            assert torch.is_inference_mode_enabled()
    assert (cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32) == before


@pytest.mark.usefixtures("weights_cache")
def test_a_network_that_openvino_cannot_run_runs_in_torch(stubborn: type[Backbone]) -> None:
    backbone = stubborn()
    choice = engines.choose(backbone, "auto", device="cpu", batch_size=2)
    assert (choice.engine, choice.fallback) == ("torch", True)
    assert choice.reason.startswith("OpenVINO cannot run it: ")
    with pytest.raises(UsageError, match=r"cannot run tiny: .*; use --engine torch"):
        engines.choose(backbone, "openvino", device="cpu", batch_size=2)
    assert backbones.load(backbone, weights="random", device=CPU, engine="auto").engine == "torch"


def test_the_answer_is_kept_where_that_is_allowed(
    stubborn: type[Backbone], weights_cache: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = stubborn.build
    monkeypatch.setattr(stubborn, "build", lambda self: built.append("") or build(self))
    backbone = stubborn()
    for keep, expected in ((False, 1), (True, 2), (True, 2)):
        _known.clear()  # as another process
        engines.choose(backbone, "auto", device="cpu", batch_size=2, keep=keep)
        assert len(built) == expected


def test_the_dry_run_says_which_engine_and_why(avfeat: Cli, corpus: Corpus) -> None:
    options = ("extract", "-b", "tiny_image", *corpus.options, "--dry-run")
    (store,) = json.loads(avfeat(*options, "--engine", "auto", "--json").stdout)["stores"]
    assert store["engine"] == {"name": "openvino", "reason": "the fastest that is installed"}
    assert "engine torch: asked for" in avfeat(*options, "--engine", "torch").stdout


def test_the_recipe_names_the_engine_and_its_version(avfeat: Cli, corpus: Corpus) -> None:
    options = ("extract", "-b", "tiny_image", *corpus.options, "--limit", "1")
    for engine in ("openvino", "torch"):
        avfeat(*options, "--engine", engine, "-o", engine)
    recipes = {
        engine: open_store(f"{engine}/llp/tiny_image", allow_random=True).recipe
        for engine in ("openvino", "torch")
    }
    assert {engine: recipe.compute["engine"] for engine, recipe in recipes.items()} == {
        "openvino": "openvino",
        "torch": "torch",
    }
    assert "openvino" in recipes["openvino"].libraries
    assert "openvino" not in recipes["torch"].libraries


@pytest.mark.parametrize(("first", "other"), [("torch", "openvino"), ("openvino", "torch")])
def test_auto_goes_on_with_the_engine_of_the_store(
    avfeat: Cli, corpus: Corpus, first: str, other: str, tmp_path: object
) -> None:
    options = ("extract", "-b", "tiny_image", *corpus.options)
    avfeat(*options, "--engine", first, "--clip", corpus.ids[0])
    avfeat(*options, "--engine", "auto", "--clip", corpus.ids[1])
    recipe = open_store("features/llp/tiny_image", allow_random=True).recipe
    assert recipe.compute["engine"] == first
    refused = avfeat(*options, "--engine", other, code=2)
    assert f"compute.engine: '{first}' in the store, '{other}' now" in refused.stderr


@pytest.mark.usefixtures("corpus")
def test_a_store_whose_engine_is_gone_is_refused_by_name(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("extract", "-b", "tiny_image", *corpus.options)
    avfeat(*options, "--engine", "openvino", "--clip", corpus.ids[0])
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused = avfeat(*options, "--engine", "auto", code=2)
    assert "compute.engine: 'openvino' in the store, 'torch' now" in refused.stderr


def test_resuming_with_openvino_ends_in_the_bytes_of_an_unbroken_run(
    avfeat: Cli, corpus: Corpus, tmp_path: object
) -> None:
    from pathlib import Path

    options = ("extract", "-b", "tiny_image,tiny_map", *corpus.options, "--engine", "openvino")
    avfeat(*options, "-o", "whole")
    avfeat(*options, "-o", "parts", "--clip", corpus.ids[0])
    avfeat(*options, "-o", "parts", "--split", "test")
    avfeat(*options, "-o", "parts")
    assert tree(Path("parts")) == tree(Path("whole"))
