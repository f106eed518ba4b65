"""Key lists, shapes and types of published checkpoints against the networks.

The files are as large as published in name only: each tensor is one zero, repeated. Names and
shapes come from the publishers' own code, or are stated here from descriptions of the files.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import parity_published as layouts
import pretrainedmodels
import pytest
import timm
import torch
import torchvision.models as tvm
from pytorchcv.models.polynet import polynet
from torch import Tensor, nn
from torchvggish import torchvggish
from torchvision.models.video import r2plus1d_18

from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.weights.read import read_state
from avfeat.extract.weights.state import fit

Shapes = dict[str, tuple[int, ...]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning"),
]

COUNTER = "num_batches_tracked"


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):  # no memory
        return {key: tuple(value.shape) for key, value in build().state_dict().items()}


def without_counters(shapes: Shapes) -> Shapes:
    """As torch wrote files before 0.4.1."""
    return {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}


# I3D: pytorch-i3d's names. Output channels of b0, b1a, b1b, b2a, b2b, b3b; the input's are the sum
# of the four that leave the module before.
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
PGI3D = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
HSI3D = ("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1")


def i3d_units(channels: int, branches: tuple[str, ...]) -> Iterator[tuple[str, int, int, int]]:
    """Name, input channels, output channels, and side of the kernel of each unit."""
    yield "Conv3d_1a_7x7", channels, 64, 7
    yield "Conv3d_2b_1x1", 64, 64, 1
    yield "Conv3d_2c_3x3", 64, 192, 3
    n_in = 192
    for name, (b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        inputs = (n_in, n_in, b1a, n_in, b2a, n_in)
        outputs = (b0, b1a, b1b, b2a, b2b, b3b)
        sides = (1, 1, 3, 1, 3, 1)
        for branch, *sizes in zip(branches, inputs, outputs, sides, strict=True):
            yield f"Mixed_{name}.{branch}", *sizes
        n_in = b0 + b1b + b2b + b3b


def i3d(channels: int, *, hassony: bool = False) -> Shapes:
    """Of pytorch-i3d, whose classifier comes first, or of kinetics_i3d_pytorch, with it last."""
    head = "conv3d_0c_1x1" if hassony else "logits"
    logits: Shapes = {
        f"{head}.conv3d.weight": (400, 1024, 1, 1, 1),
        f"{head}.conv3d.bias": (400,),
    }
    shapes: Shapes = {}
    for name, n_in, n_out, side in i3d_units(channels, HSI3D if hassony else PGI3D):
        stem = name[0].lower() + name[1:] if hassony else name
        shapes[f"{stem}.conv3d.weight"] = (n_out, n_in, side, side, side)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{stem}.{'batch3d' if hassony else 'bn'}.{kind}"] = (n_out,)
        shapes[f"{stem}.{'batch3d' if hassony else 'bn'}.{COUNTER}"] = ()
    return shapes | logits if hassony else logits | shapes


def openl3(n_in: int, last: str) -> Shapes:
    """48 arrays under Keras' names of some session, kernels [height, width, in, out]."""
    shapes: Shapes = {}
    for number, n_out in enumerate((64, 64, 128, 128, 256, 256, 512, 512)):
        norm, conv = f"batch_normalization_{number + 9}", f"conv2d_{number + 8}"
        for role in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{norm}/{norm}/{role}:0"] = (n_in,)
        name = last if number == 7 else conv
        shapes[f"{name}/{name}/kernel:0"] = (3, 3, n_in, n_out)
        shapes[f"{name}/{name}/bias:0"] = (n_out,)
        n_in = n_out
    return shapes


def torchopenl3() -> Shapes:
    shapes: Shapes = {
        "speclayer.dft_real_kernels": (1025, 1, 2048),
        "speclayer.dft_imag_kernels": (1025, 1, 2048),
        "speclayer.mel_basis": (256, 1025),
    }
    n_in = 1
    for number, n_out in enumerate((64, 64, 128, 128, 256, 256, 512, 512), start=1):
        norm = f"batch_normalization_{number}"
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{kind}"] = (n_in,)
        shapes[f"{norm}.{COUNTER}"] = ()
        name = f"conv2d_{number}" if number < 8 else "audio_embedding_layer"
        shapes |= {f"{name}.weight": (n_out, n_in, 3, 3), f"{name}.bias": (n_out,)}
        n_in = n_out
    return shapes


def vgg19_no_top() -> Shapes:
    shapes: Shapes = {}
    n_in = 3
    for block, (n_out, convolutions) in enumerate(
        ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), start=1
    ):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            shapes[f"{name}/{name}_W_1:0"] = (3, 3, n_in, n_out)
            shapes[f"{name}/{name}_b_1:0"] = (n_out,)
            n_in = n_out
    return shapes


@dataclass(frozen=True)
class Published:
    """A published file: whose it is, its shapes by key, how many, parameters, and its format."""

    backbone: str
    shapes: Callable[[], Shapes]
    tensors: int
    save: Callable[[layouts.State, Path], None] = layouts.torch_file
    part: str = ""


def with_metadata(state: layouts.State, path: Path) -> None:
    """As torch saves what `state_dict` gives: it says that its batch norms have counters."""
    saved = OrderedDict(state)
    saved._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    for key in state:
        if key.endswith("running_mean"):
            saved._metadata[key.rpartition(".")[0]] = {"version": 2}  # type: ignore[attr-defined]
    torch.save(saved, path)
    assert torch.load(path, weights_only=True)._metadata == saved._metadata  # type: ignore[attr-defined]


def cadene(name: str) -> Callable[[], Shapes]:
    return lambda: shapes_of(lambda: getattr(pretrainedmodels, name)(pretrained=None))


def old(shapes: Callable[[], Shapes]) -> Callable[[], Shapes]:
    return lambda: without_counters(shapes())


TORCHVISION = {
    name: lambda build=build: shapes_of(build)
    for name, build in (
        ("resnet152", tvm.resnet152),
        ("vgg19_bn", tvm.vgg19_bn),
        ("r2plus1d_18", r2plus1d_18),
    )
}
TIMM = lambda: shapes_of(lambda: timm.create_model("legacy_senet154", pretrained=False))  # noqa: E731
FILES = {
    "torchvision-resnet152": Published("resnet152", TORCHVISION["resnet152"], 932),
    "torchvision-resnet152-old": Published("resnet152", old(TORCHVISION["resnet152"]), 777),
    "torchvision-vgg19_bn": Published("vgg19_bn", TORCHVISION["vgg19_bn"], 118),
    "torchvision-vgg19_bn-old": Published("vgg19_bn", old(TORCHVISION["vgg19_bn"]), 102),
    "torchvision-vgg19_bn-map": Published("vgg19_bn.map", TORCHVISION["vgg19_bn"], 118),
    "torchvision-r2plus1d_18": Published("r2plus1d_18", TORCHVISION["r2plus1d_18"], 224),
    "torchvision-r2plus1d_18-old": Published("r2plus1d_18", old(TORCHVISION["r2plus1d_18"]), 187),
    "cadene-senet154": Published("senet154", cadene("senet154"), 1144),
    "cadene-senet154-old": Published("senet154", old(cadene("senet154")), 987),
    "timm-senet154": Published("senet154", TIMM, 1144),
    "cadene-polynet": Published("polynet", cadene("polynet"), 3104),
    "cadene-polynet-old": Published("polynet.map", old(cadene("polynet")), 2567),
    "pytorchcv-polynet": Published(
        "polynet", lambda: shapes_of(polynet), 3104, layouts.zipped_torch_file
    ),
    "pgi3d-rgb": Published("i3d_rgb", old(lambda: i3d(3)), 287),
    "pgi3d-flow": Published("i3d_flow", old(lambda: i3d(2)), 287),
    "pgi3d-rgb-metadata": Published("i3d_rgb", old(lambda: i3d(3)), 287, with_metadata),
    "pgi3d-rgb-resaved": Published("i3d_rgb", lambda: i3d(3), 344),
    "pgi3d-flow-of-both": Published("i3d", old(lambda: i3d(2)), 287, part="flow"),
    "hsi3d-rgb": Published("i3d_rgb", lambda: i3d(3, hassony=True), 344),
    "hsi3d-flow": Published("i3d_flow", old(lambda: i3d(2, hassony=True)), 287),
    "torchvggish": Published(
        "vggish", lambda: shapes_of(lambda: torchvggish._vgg(postprocess=False)), 18
    ),
    "torchvggish-of-pca8": Published(
        "vggish.audioset_pca8",
        lambda: shapes_of(lambda: torchvggish._vgg(postprocess=False)),
        18,
        part="net",
    ),
    "torchvggish-pca": Published(
        "vggish.audioset_pca8",
        lambda: {"pca_eigen_vectors": (128, 128), "pca_means": (128,)},
        2,
        layouts.array_file,
        part="pca",
    ),
    "openl3-audio": Published(
        "openl3", lambda: openl3(1, "audio_embedding_layer"), 48, layouts.zipped_keras_file
    ),
    "openl3-image": Published(
        "openl3_image", lambda: openl3(3, "vision_embedding_layer"), 48, layouts.zipped_keras_file
    ),
    "openl3-image-unzipped": Published(
        "openl3_image.map", lambda: openl3(3, "vision_embedding_layer"), 48, layouts.keras_file
    ),
    "torchopenl3": Published("openl3", torchopenl3, 59),
    "keras-vgg19": Published("vgg19.pool5", vgg19_no_top, 32, layouts.keras_file),
}


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    """One zero each in memory and in a torch file; counters are whole numbers."""
    return {
        key: torch.zeros((), dtype=torch.int64 if key.endswith(COUNTER) else None).expand(shape)
        for key, shape in shapes.items()
    }


def load(published: Published, state: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Write, read, and compare with the network, as loading weights does."""
    path = folder / ("file.h5.gz" if "keras" in published.save.__name__ else "file.pth.zip")
    published.save(state, path)
    backbone = backbones.get(published.backbone)
    entry = backbone.weights_entry(backbone.spec.weights[0])
    with torch.device("meta"):
        net = backbone.build()
    if published.part:
        net, entry = net.get_submodule(published.part), dict(entry.parts)[published.part]
    kept = fit(read_state(path), net, backbone, entry, path)
    own = net.state_dict()
    assert set(kept) <= set(own)
    assert all(key.endswith(COUNTER) for key in set(own) - set(kept))
    for key, value in kept.items():
        assert (value.shape, value.dtype) == (own[key].shape, own[key].dtype), key
    return kept


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_published_layout_loads(name: str, tmp_path: Path) -> None:
    published = FILES[name]
    shapes = published.shapes()
    assert len(shapes) == published.tensors
    assert load(published, zeros(shapes), tmp_path)


def chosen(shapes: Shapes) -> str:
    """A convolution's weight from the middle of the file."""
    weights = [key for key, shape in shapes.items() if len(shape) >= 4] or list(shapes)
    return weights[len(weights) // 2]


def damaged(shapes: Shapes, damage: str) -> tuple[Shapes, str]:
    """The shapes with one key left out, put in or of another shape, and that key."""
    weights = [key for key, shape in shapes.items() if len(shape) >= 4] or list(shapes)
    key = weights[len(weights) // 2]
    if damage == "missing":
        return {k: v for k, v in shapes.items() if k != key}, key
    if damage == "extra":
        extra = "block6_conv1/block6_conv1_W_1:0" if "/" in key else "Stowaway.weight"
        return {**shapes, extra: (3, 3)}, extra
    return {**shapes, key: (*shapes[key][:-1], shapes[key][-1] + 1)}, key


# What a message calls a key that is named otherwise in the network, and arrays of Keras, which are
# told by layer where layers have names of their own, else by position.
OTHERWISE = {
    "features.stage2.unit5.poly.pre_block.branches.branch1.conv_list.conv3.conv.weight": (
        "stage_b.6.path0_7x1.conv.weight"
    ),
    "mixed_4d.branch_1.1.conv3d.weight": "Mixed_4d.b1b.conv3d.weight",
}


# Nothing else would be seen in them.
TWINS = ("-old", "-map", "-metadata", "-resaved", "-of-both", "-of-pca8", "-unzipped")


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(TWINS)])
def test_what_does_not_fit_is_named(name: str, damage: str, tmp_path: Path) -> None:
    published = FILES[name]
    shapes, key = damaged(published.shapes(), damage)
    with pytest.raises(WeightsError) as error:
        load(published, zeros(shapes), tmp_path)
    message = str(error.value)
    if published.part == "pca":
        assert key in message
    elif "/" not in key:
        words = {"missing": "1 missing", "extra": "1 unexpected", "misshapen": "1 of another shape"}
        assert f"{words[damage]}: {OTHERWISE.get(key, key)}" in message
        assert not any(word in message for other, word in words.items() if other != damage)
    elif damage == "missing" and published.backbone == "vgg19.pool5":
        assert f"layer {key.partition('/')[0]} has 1 arrays instead of 2" in message
    elif damage == "missing":
        # Keras reads by position, so what comes instead is named, and what it should have been.
        assert re.search(r"array \d+ of 47, .* where conv2d_\d.weight needs", message)
    else:
        assert key in message
