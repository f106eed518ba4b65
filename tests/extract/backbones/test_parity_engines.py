"""OpenVINO against torch on every backbone, with the same calibrated random weights.

`make parity` runs all of it and keeps the numbers in docs/parity.md.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parity_cases import CPU
from parity_record import record_engine, relative

from avfeat.extract import backbones
from avfeat.extract.backbones import extractor
from avfeat.extract.engines.plain import TorchNetwork
from avfeat.extract.engines.precision import has_bf16
from avfeat.extract.weights.random import smooth_items

FAST = ("vggish", "timm:resnet18.a1_in1k")
# Those that differ in more than their input from one that is listed anyway.
SLOW = (
    "i3d",
    "i3d_flow",
    "i3d_rgb",
    "openl3",
    "openl3.6144",
    "openl3.linear",
    "openl3_image",
    "openl3_image.8192",
    "openl3_image.map",
    "polynet",
    "polynet.map",
    "r2plus1d_18",
    "resnet152",
    "resnet152.map",
    "senet154",
    "senet154.map",
    "timm:vit_tiny_patch16_224",
    "torchvision:convnext_tiny",
    "vgg19.pool5",
    "vgg19_bn",
    "vggish.audioset_pca8",
    "vggish.pre_activation",
)
TOLERANCE = 1e-3
# With these weights torch's own float32 is 9e-4 to 2e-2 from float64, so that nothing can be nearer
# to it than that. Allowed is twice as much, and OpenVINO has to be about as near to float64.
AMPLIFYING = ("polynet", "polynet.map", "resnet152.map")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of prepared networks; hundreds of megabytes, so they go at once."""
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path / "cache"))
    yield
    shutil.rmtree(tmp_path / "cache")


def test_every_backbone_is_compared() -> None:
    ours = [one for one in backbones.select("all") if type(one).__module__.startswith("avfeat.")]
    compared = {backbones.get(name).family for name in (*FAST, *SLOW)}
    assert {one.family for one in ours} <= compared
    assert all(one.converts for one in ours)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_openvinos_rows_are_torchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.get(name)
    plain = backbones.load(backbone, weights="random", device=CPU)
    assert isinstance(plain._network, TorchNetwork)
    net = plain._network.net
    monkeypatch.setattr(extractor, "_build", lambda _backbone, _info: net)  # calibrated once
    items = smooth_items(backbone.spec.input, 2, torch.Generator().manual_seed(21))
    expected = plain(items)
    fast = backbones.load(backbone, weights="random", device=CPU, engine="openvino")

    rows = fast(items)

    l2, cosine = relative(rows, expected), least_cosine(rows, expected)
    with torch.inference_mode():
        exact = copy.deepcopy(net).double()(backbone.to_input(items[:1]).double())
    if backbone.spec.map is not None:
        exact = exact.movedim(1, -1)
    own = relative(expected[:1], exact)
    half = {}
    if has_bf16():
        for engine in ("openvino", "torch"):
            extract = backbones.load(
                backbone, weights="random", device=CPU, engine=engine, precision="bf16"
            )
            half[engine] = extract(items)
    record_engine(
        name,
        l2=l2,
        cosine=cosine,
        own=own,
        half={engine: relative(found, expected) for engine, found in half.items()},
        half_cosine=least_cosine(half["openvino"], expected) if half else None,
    )
    if name in AMPLIFYING:
        assert own > TOLERANCE / 2
        assert l2 <= 2 * own
        assert relative(rows[:1], exact) <= 1.5 * own
    else:
        assert l2 <= TOLERANCE
        assert cosine >= 0.99999
    if half:
        # How far that is depends on the network; it must not depend on who computes it.
        errors = {engine: relative(found, expected) for engine, found in half.items()}
        assert errors["openvino"] <= 1.5 * errors["torch"]

    # A row has the same bits wherever it stands in a batch and beside whatever.
    n = backbone.spec.cpu_batch
    batch = smooth_items(backbone.spec.input, n, torch.Generator().manual_seed(24))
    batch[-1] = items[0]
    batch[n // 2] = items[-1] if n > 1 else items[0]
    moved = fast(batch)
    assert torch.equal(moved, fast(batch))
    assert torch.equal(moved[-1], rows[0])
    if n > 2:
        assert torch.equal(moved[n // 2], rows[-1])


def least_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The smallest cosine between a row and its counterpart."""
    pairs = (found.double().flatten(1), expected.double().flatten(1))
    return float(torch.nn.functional.cosine_similarity(*pairs).min())
