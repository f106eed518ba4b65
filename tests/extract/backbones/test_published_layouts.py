"""Key lists, shapes and types of published checkpoints against the networks.

Each source of the registry has its layout here. The files are as large as published in name only:
each tensor is one zero, repeated. Names and shapes come from the publishers' own code, or are
stated here from descriptions of the files.
"""

from __future__ import annotations

import json
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import parity_published as layouts
import pretrainedmodels
import pytest
import timm
import torch
import torchvision.models as tvm
from pytorchcv.models.polynet import polynet
from pytorchcv.models.senet import senet154 as pytorchcv_senet154
from torch import Tensor, nn
from torchvggish import torchvggish
from torchvision.models.video import r2plus1d_18

from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.weights import registry
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


def torchopenl3(representation: str) -> Shapes:
    n_fft = 512 if representation == "linear" else 2048
    kernels = (n_fft // 2 + 1, 1, n_fft)
    shapes: Shapes = {f"speclayer.dft_{part}_kernels": kernels for part in ("real", "imag")}
    if representation != "linear":
        shapes["speclayer.mel_basis"] = (int(representation[3:]), n_fft // 2 + 1)
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


def vgg19_full() -> Shapes:
    shapes = vgg19_no_top()
    for name, n_in, n_out in (
        ("fc1", 25_088, 4096),
        ("fc2", 4096, 4096),
        ("predictions", 4096, 1000),
    ):
        shapes[f"{name}/{name}_W_1:0"] = (n_in, n_out)
        shapes[f"{name}/{name}_b_1:0"] = (n_out,)
    return shapes


@dataclass(frozen=True)
class Published:
    """A published file: its source, who loads it, shapes by key, how many, and the format.

    ``source`` is the name of the entry and the file's; ``part`` the submodule that the file fills.
    """

    source: tuple[str, str]
    backbone: str
    shapes: Callable[[], Shapes]
    tensors: int
    save: Callable[[layouts.State, Path], None] = layouts.torch_file
    part: str = ""


def safetensors_file(state: layouts.State, path: Path) -> None:
    """The format's header; the zeros behind it are a hole in the file."""
    header, end = {}, 0
    for key, value in state.items():
        kind = {torch.float32: "F32", torch.int64: "I64"}[value.dtype]
        start, end = end, end + value.numel() * value.element_size()
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def sparse_keras_file(state: layouts.State, path: Path) -> None:
    """A Keras file whose arrays were never written, and so take no place."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(dict.fromkeys(key.split("/")[0] for key in state))
        for layer in file.attrs["layer_names"]:
            group = file.create_group(layer)
            names = [key.partition("/")[2] for key in state if key.startswith(f"{layer}/")]
            group.attrs["weight_names"] = names
            for name in names:
                group.create_dataset(name, state[f"{layer}/{name}"].shape, "f4")


def numpy_file(state: layouts.State, path: Path) -> None:
    np.savez(path, **{key: value.numpy() for key, value in state.items()})


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


def timm_model(name: str) -> Callable[[], Shapes]:
    return lambda: shapes_of(lambda: timm.create_model(name, pretrained=False))


def encoder() -> Shapes:
    """segmentation_models.pytorch has pretrainedmodels' network without its last layer."""
    shapes = cadene("senet154")()
    return {key: shape for key, shape in shapes.items() if not key.startswith("last_linear.")}


def vggish() -> Shapes:
    return shapes_of(lambda: torchvggish._vgg(postprocess=False))


def pca() -> Shapes:
    return {"pca_eigen_vectors": (128, 128), "pca_means": (128,)}


RESNET, VGG, SENET = "resnet152.tv_in1k_v1", "vgg19_bn.tv_in1k_v1", "senet154.cadene_in1k"
POLYNET, KERAS = "polynet.cadene_in1k", "vgg19.keras_in1k"
PCA = "vggish.audioset_pca"

# One for each source of the registry.
FILES = {
    "torchvision-resnet152": Published(
        (RESNET, "resnet152-394f9c45.pth"), "resnet152", TORCHVISION["resnet152"], 932
    ),
    "torchvision-resnet152-before": Published(
        (RESNET, "resnet152-b121ed2d.pth"), "resnet152", old(TORCHVISION["resnet152"]), 777
    ),
    "timm-resnet152": Published(
        (RESNET, "model.safetensors"), "resnet152", timm_model("resnet152"), 932, safetensors_file
    ),
    "torchvision-vgg19_bn": Published(
        (VGG, "vgg19_bn-c79401a0.pth"), "vgg19_bn", TORCHVISION["vgg19_bn"], 118
    ),
    "timm-vgg19_bn": Published(
        (VGG, "model.safetensors"), "vgg19_bn", timm_model("vgg19_bn"), 118, safetensors_file
    ),
    "torchvision-r2plus1d_18": Published(
        ("r2plus1d_18.tv_k400_v1", "r2plus1d_18-91a641e6.pth"),
        "r2plus1d_18",
        TORCHVISION["r2plus1d_18"],
        224,
    ),
    "timm-senet154": Published(
        (SENET, "legacy_senet154-e9eb9fe6.pth"), "senet154", timm_model("legacy_senet154"), 1144
    ),
    "pytorchcv-senet154": Published(
        (SENET, "senet154-0461-6512228c.pth.zip"),
        "senet154",
        lambda: shapes_of(pytorchcv_senet154),
        1144,
        layouts.zipped_torch_file,
    ),
    "smp-senet154": Published(
        (SENET, "model.safetensors"), "senet154", encoder, 1142, safetensors_file
    ),
    "cadene-senet154": Published(
        (SENET, "senet154-c7b49a05.pth"), "senet154", cadene("senet154"), 1144
    ),
    "cadene-polynet": Published(
        (POLYNET, "polynet-f71d82a5.pth"), "polynet", cadene("polynet"), 3104
    ),
    "pytorchcv-polynet": Published(
        (POLYNET, "polynet-0452-6a1b295d.pth.zip"),
        "polynet",
        lambda: shapes_of(polynet),
        3104,
        layouts.zipped_torch_file,
    ),
    "keras-vgg19": Published(
        (KERAS, "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        "vgg19.pool5",
        vgg19_no_top,
        32,
        layouts.keras_file,
    ),
    "keras-vgg19-full": Published(
        (KERAS, "vgg19_weights_tf_dim_ordering_tf_kernels.h5"),
        "vgg19.pool5",
        vgg19_full,
        38,
        sparse_keras_file,
    ),
    "torchvggish": Published(("vggish.audioset", "vggish-10086976.pth"), "vggish", vggish, 18),
    "torchvggish-pca": Published(
        (PCA, "vggish_pca_params-970ea276.pth"),
        "vggish.audioset_pca8",
        pca,
        2,
        layouts.array_file,
        part="pca",
    ),
    "tensorflow-pca": Published(
        (PCA, "vggish_pca_params.npz"), "vggish.audioset_pca8", pca, 2, numpy_file, part="pca"
    ),
}
for stream, channels in (("rgb", 3), ("flow", 2)):
    name = f"i3d_{stream}"
    FILES |= {
        f"pgi3d-{stream}": Published(
            (f"{name}.pgi3d", f"{stream}_imagenet.pt"),
            name,
            lambda channels=channels: without_counters(i3d(channels)),
            287,
        ),
        f"hsi3d-{stream}": Published(
            (f"{name}.pgi3d", f"{name}.pt"),
            name,
            lambda channels=channels: i3d(channels, hassony=True),
            344,
        ),
    }
for content in ("env", "music"):
    for representation in ("mel256", "mel128", "linear"):
        kind = f"{representation}_{content}"
        options = f"{content}.{representation}"
        FILES |= {
            f"openl3-audio-{kind}": Published(
                (f"openl3.v0_4_0_{kind}", f"openl3_audio_{kind}-v0_4_0.h5.gz"),
                f"openl3.{options}",
                lambda: openl3(1, "audio_embedding_layer"),
                48,
                layouts.zipped_keras_file,
            ),
            f"torchopenl3-{kind}": Published(
                (f"openl3.v0_4_0_{kind}", f"torchopenl3_{kind}_512.pth.tar"),
                f"openl3.{options}",
                lambda representation=representation: torchopenl3(representation),
                58 if representation == "linear" else 59,
            ),
            f"openl3-image-{kind}": Published(
                (f"openl3_image.v0_4_0_{kind}", f"openl3_image_{kind}-v0_4_0.h5.gz"),
                f"openl3_image.{options}",
                lambda: openl3(3, "vision_embedding_layer"),
                48,
                layouts.zipped_keras_file,
            ),
        }

# The same files by other backbones; and as they may be, where no description says: without
# counters, with metadata about them, or saved anew by a later torch.
TWINS = {
    "torchvision-vgg19_bn-map": replace(FILES["torchvision-vgg19_bn"], backbone="vgg19_bn.map"),
    "timm-vgg19_bn-map": replace(FILES["timm-vgg19_bn"], backbone="vgg19_bn.map"),
    "cadene-polynet-map": replace(FILES["cadene-polynet"], backbone="polynet.map"),
    "openl3-image-map": replace(
        FILES["openl3-image-mel256_env"], backbone="openl3_image.map", save=layouts.keras_file
    ),
    "pgi3d-flow-of-both": replace(FILES["pgi3d-flow"], backbone="i3d", part="flow"),
    "hsi3d-rgb-of-both": replace(FILES["hsi3d-rgb"], backbone="i3d", part="rgb"),
    "torchvggish-of-pca8": replace(
        FILES["torchvggish"], backbone="vggish.audioset_pca8", part="net"
    ),
    "pgi3d-rgb-metadata": replace(FILES["pgi3d-rgb"], save=with_metadata),
    "pgi3d-rgb-resaved": replace(FILES["pgi3d-rgb"], shapes=lambda: i3d(3), tensors=344),
    **{
        f"{name}-old": replace(FILES[name], shapes=old(FILES[name].shapes), tensors=tensors)
        for name, tensors in (
            ("torchvision-vgg19_bn", 102),
            ("torchvision-r2plus1d_18", 187),
            ("cadene-senet154", 987),
            ("pytorchcv-senet154", 987),
            ("smp-senet154", 985),
            ("cadene-polynet", 2567),
            ("hsi3d-flow", 287),
        )
    },
}


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    """One zero each in memory and in a torch file; counters are whole numbers."""
    return {
        key: torch.zeros((), dtype=torch.int64 if key.endswith(COUNTER) else None).expand(shape)
        for key, shape in shapes.items()
    }


def load(published: Published, state: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Write, read, and compare with the network, as loading weights does."""
    name, file = published.source
    published.save(state, folder / file)
    backbone = backbones.get(published.backbone)
    entry = backbone.weights_entry(backbone.spec.weights[0])
    with torch.device("meta"):
        net = backbone.build()
    if published.part:
        net, entry = net.get_submodule(published.part), dict(entry.parts)[published.part]
    assert entry.name == name
    assert file in [source.file for source in entry.sources]
    kept = fit(read_state(folder / file), net, backbone, entry, folder / file)
    own = net.state_dict()
    assert set(kept) <= set(own)
    assert all(key.endswith(COUNTER) for key in set(own) - set(kept))
    for key, value in kept.items():
        assert (value.shape, value.dtype) == (own[key].shape, own[key].dtype), key
    return kept


def test_every_source_of_the_registry_has_its_layout_here() -> None:
    sources = [
        (entry.name, source.file)
        for entry in registry.entries().values()
        for source in entry.sources
    ]
    assert sorted(published.source for published in FILES.values()) == sorted(sources)


@pytest.mark.parametrize("name", [*FILES, *TWINS])
def test_a_file_in_the_published_layout_loads(name: str, tmp_path: Path) -> None:
    published = (FILES | TWINS)[name]
    shapes = published.shapes()
    assert len(shapes) == published.tensors
    assert load(published, zeros(shapes), tmp_path)


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
    "features.stage3.unit14.body.conv3.conv.weight": "layer3.13.conv3.weight",
    "mixed_4d.branch_1.1.conv3d.weight": "Mixed_4d.b1b.conv3d.weight",
}


# Of layouts that are repeated for other weights, one will do; and nothing new is in the full file.
ONCE = [
    name
    for name in FILES
    if name != "keras-vgg19-full" and not re.search("(mel128|linear)_|_music|before$", name)
]


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("name", ONCE)
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
