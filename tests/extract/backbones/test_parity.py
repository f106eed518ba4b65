"""Every backbone against the code that published features were made with.

No trained weights are needed: both sides get the same calibrated random state dict, ours through
the real way from a file in the published layout. Calibration matters. With a framework's initial
weights a wrong padding changes SENet's output by 4e-5, with these by a quarter.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pretrainedmodels
import pytest
import timm
import torch
import torchvision.models as tvm
from PIL import Image
from pretrainedmodels.utils import TransformImage
from torch import Tensor, nn
from torchvggish import torchvggish
from torchvision import transforms as tvt
from torchvision.models.video import r2plus1d_18

from avfeat.extract import backbones, transforms
from avfeat.extract.backbones import VisualInput
from avfeat.extract.weights import cache
from avfeat.extract.weights.random import calibrate, smooth_items

CPU = torch.device("cpu")
State = dict[str, Tensor]


def torchvision_resnet152(state: State) -> nn.Module:
    net = tvm.resnet152(weights=None)
    net.load_state_dict(state)
    net.fc = nn.Identity()
    return net


def cadene_resnet152(state: State) -> nn.Module:
    net = pretrainedmodels.resnet152(pretrained=None)
    net.load_state_dict({k.replace("fc.", "last_linear."): v for k, v in state.items()})
    net.last_linear = nn.Identity()
    return net


def torchvision_vgg19_bn(state: State) -> nn.Module:
    net = tvm.vgg19_bn(weights=None, init_weights=False)
    net.load_state_dict(state)
    net.classifier[6] = nn.Identity()
    return net


def cadene_vgg19_bn(state: State) -> nn.Module:
    net = pretrainedmodels.vgg19_bn(pretrained=None)
    names = {"classifier.0": "linear0", "classifier.3": "linear1", "classifier.6": "last_linear"}
    renamed = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        renamed[f"{names.get(module, '_' + module)}.{kind}"] = value
    net.load_state_dict(renamed)
    net.last_linear = nn.Identity()
    return net


def cadene_senet154(state: State) -> nn.Module:
    net = pretrainedmodels.senet154(pretrained=None)
    net.load_state_dict(state)
    net.last_linear = nn.Identity()
    return net


def timm_senet154(state: State) -> nn.Module:
    net = timm.create_model("legacy_senet154", pretrained=False)
    net.load_state_dict(state)
    net.reset_classifier(0)
    return net


def avvp_r2plus1d_18(state: State) -> nn.Module:
    """All children but the last, which is how the AVVP scripts cut it."""
    net = r2plus1d_18(weights=None)
    net.load_state_dict(state)
    return nn.Sequential(*list(net.children())[:-1], nn.Flatten())


def torchvggish_net(state: State) -> nn.Module:
    net = torchvggish._vgg(postprocess=False)
    net.load_state_dict(state)
    return net


@dataclass(frozen=True)
class Case:
    """A backbone's oracles, the classifier that its published file has behind our layer, and how
    much 1e-3 of relative input noise must at least move its output."""

    oracles: tuple[Callable[[State], nn.Module], ...]
    classifier: dict[str, tuple[int, ...]]
    sensitivity: float = 1e-3


CASES = {
    "r2plus1d_18": Case((avvp_r2plus1d_18,), {"fc.weight": (400, 512), "fc.bias": (400,)}),
    "resnet152": Case(
        (torchvision_resnet152, cadene_resnet152), {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    ),
    "senet154": Case(
        (cadene_senet154, timm_senet154),
        {"last_linear.weight": (1000, 2048), "last_linear.bias": (1000,)},
    ),
    "vgg19_bn": Case(
        (torchvision_vgg19_bn, cadene_vgg19_bn),
        {"classifier.6.weight": (1000, 4096), "classifier.6.bias": (1000,)},
    ),
    # Without batch norm a ReLU network scales with its input, so it amplifies no noise and its
    # poolings average some away; 1e-3 in the same direction would move it by exactly 1e-3.
    "vggish": Case((torchvggish_net,), {}, sensitivity=5e-4),
}
# Networks loaded once each: tests are grouped by it, so that one network is in memory at a time.
each = pytest.mark.parametrize("loaded", list(CASES), indirect=True, scope="module")


@dataclass(frozen=True)
class Loaded:
    name: str
    state: State
    extract: backbones.Extractor
    backbone: backbones.Backbone

    def items(self, n: int, seed: int) -> Tensor:
        return smooth_items(self.extract.spec.input, n, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """Save random weights as a published file, and load them as a user would."""
    name: str = request.param
    backbone = backbones.get(name)
    net = backbone.build()
    calibrate(net, backbone, seed=11)
    state: State = {
        **net.state_dict(),
        **{key: torch.zeros(shape) for key, shape in CASES[name].classifier.items()},
    }
    folder = tmp_path_factory.mktemp(name)
    file = folder / "published.pth"
    torch.save(state, file)
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    entry = backbone.weights_entry(backbone.spec.weights[0])
    source = replace(entry.sources[-1], digest=f"sha256:{sha256[:8]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVFEAT_CACHE", str(folder / "cache"))
        patch.setattr(
            type(backbone), "weights_entry", lambda self, tag: replace(entry, sources=(source,))
        )
        path = cache.path_of(entry, source)
        assert path is not None
        path.parent.mkdir(parents=True)
        file.rename(path)
        extract = backbones.load(name, device=CPU)
        assert extract.weights.sha256 == sha256
    yield Loaded(name, state, extract, backbone)
    shutil.rmtree(folder)  # a gigabyte each


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# pretrainedmodels calls torchvision the way of 2019.
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@each
def test_rows_equal_the_oracles(loaded: Loaded) -> None:
    items = loaded.items(2, seed=21)
    inputs = loaded.backbone.to_input(items)
    rows = loaded.extract(items)
    for build in CASES[loaded.name].oracles:
        oracle = build(loaded.state).eval()
        with torch.inference_mode():
            expected = oracle(inputs)
            noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
            moved = oracle(inputs + 1e-3 * inputs.square().mean().sqrt() * noise)
        assert expected.shape == rows.shape == (2, loaded.extract.spec.dim)
        error, sensitivity = relative(rows, expected), relative(moved, expected)
        print(f"{loaded.name} {build.__name__}: {error:.1e}, sensitivity {sensitivity:.1e}")
        assert error <= 1e-5
        # A network that forgets its input would agree with any other.
        assert sensitivity > CASES[loaded.name].sensitivity
        assert relative(rows[:1], expected[1:]) > 1e-2


@each
def test_rows_are_float32_after_a_relu(loaded: Loaded) -> None:
    rows = loaded.extract(loaded.items(1, seed=22))
    assert (rows.dtype, tuple(rows.shape)) == (torch.float32, (1, loaded.extract.spec.dim))
    assert torch.isfinite(rows).all() and rows.min() >= 0


@each
def test_the_spec_counts_the_parameters_of_the_network(loaded: Loaded) -> None:
    net = loaded.backbone.build()
    assert sum(p.numel() for p in net.parameters()) == loaded.extract.spec.parameters


@each
def test_a_row_does_not_depend_on_its_place_or_neighbours_in_a_batch(loaded: Loaded) -> None:
    """Bit for bit, on the CPU, in the fixed batch shape of the spec."""
    n = loaded.extract.spec.cpu_batch
    batch, others = loaded.items(n, seed=23), loaded.items(n, seed=24)
    rows = loaded.extract(batch)
    assert torch.equal(rows, loaded.extract(batch))  # twice the same
    others[-1], others[n // 2] = batch[0], batch[1]
    moved = loaded.extract(others)
    assert torch.equal(moved[-1], rows[0])
    assert torch.equal(moved[n // 2], rows[1])


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height + width)
    y, x = np.mgrid[0:height, 0:width]
    shading = 80 * np.sin(x / 23.0 + y / 31.0)[..., None] * np.array([1.0, -0.7, 0.5])
    edges = 60.0 * ((x // 11 + y // 7) % 2)[..., None]
    noise = rng.normal(0, 10, (height, width, 3))
    return np.clip(110 + shading + edges + noise, 0, 255).astype(np.uint8)


def cadene_input(name: str) -> Callable[[Image.Image], Tensor]:
    from munch import munchify

    return TransformImage(munchify(pretrainedmodels.pretrained_settings[name]["imagenet"]))


def avvp_snippet_input(_: str) -> Callable[[Image.Image], Tensor]:
    return tvt.Compose(
        [
            tvt.Resize((112, 112)),
            tvt.ToTensor(),
            tvt.Normalize((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
        ]
    )


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("resnet152", cadene_input),
        ("senet154", cadene_input),
        ("vgg19_bn", cadene_input),
        ("r2plus1d_18", avvp_snippet_input),
    ],
)
@pytest.mark.parametrize(
    "size",
    [(240, 320), (240, 426), (256, 455), (1080, 1920), (640, 360), (90, 120)],
    ids=lambda size: f"{size[1]}x{size[0]}",
)
def test_network_inputs_equal_the_published_pipelines(
    name: str, oracle: Callable[[str], Callable[[Image.Image], Tensor]], size: tuple[int, int]
) -> None:
    backbone = backbones.get(name)
    spec = backbone.spec.input
    assert isinstance(spec, VisualInput)
    rgb = picture(*size)
    item = torch.from_numpy(transforms.apply(spec.geometry, rgb))
    item = item.expand(1, *spec.item_shape)

    found = backbone.to_input(item)

    assert found.is_contiguous() and found.dtype == torch.float32
    expected = oracle(name)(Image.fromarray(rgb))
    if spec.frames > 1:
        expected = expected[:, None].expand(-1, spec.frames, -1, -1)
    levels = (found[0] - expected).abs() * torch.tensor(spec.std).reshape(
        -1, *[1] * (expected.ndim - 1)
    )
    assert levels.max() <= 2 / 255
    assert (levels <= 1 / 255).float().mean() >= 0.999


def test_frames_of_a_snippet_stay_in_order() -> None:
    backbone = backbones.get("r2plus1d_18")
    spec = backbone.spec.input
    assert isinstance(spec, VisualInput)
    items = torch.arange(8, dtype=torch.uint8).reshape(1, 8, 1, 1, 1).expand(1, *spec.item_shape)
    found = backbone.to_input(items)
    assert tuple(found.shape) == (1, 3, 8, 112, 112)
    red = found[0, 0, :, 5, 5] * spec.std[0] + spec.mean[0]
    torch.testing.assert_close(red * 255, torch.arange(8.0), atol=1e-3, rtol=0)
