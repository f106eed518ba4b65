"""Which oracles each backbone and variant is held against, and how its published files look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import parity_oracles as oracles
import parity_published as layouts
import torch
from parity_published import Layout
from torch import Tensor

from avfeat.extract import backbones
from avfeat.extract.weights.random import calibrate, smooth_items

CPU = torch.device("cpu")
State = Mapping[str, Tensor]
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Oracle:
    """``package: what``, and the tensors of a file to a network."""

    name: str
    build: Callable[[State], Network]


@dataclass(frozen=True)
class Case:
    """A backbone.

    Attributes
    ----------
    files
        Layout of the published file, by the submodule that it fills; ``""`` is the whole network.
    oracles
        Of the backbone, and of its variants with the same weights.
    slow
        Variants that the default run leaves out.
    directed
        Whether the noise that must move the output is along a gradient, see `directed`.
    tolerance
        Relative L2.
    """

    files: dict[str, Layout]
    oracles: dict[str, tuple[Oracle, ...]]
    slow: tuple[str, ...] = ()
    directed: bool = False
    tolerance: float = 1e-5


def _apart(run: Callable[[State, Tensor], Tensor]) -> tuple[Oracle, ...]:
    return (Oracle("torch: functional, written apart", lambda state: partial(run, state)),)


RESNET152 = layouts.with_classifier(fc__weight=(1000, 2048), fc__bias=(1000,))
VGG19_BN = layouts.with_classifier(classifier__6__weight=(1000, 4096), classifier__6__bias=(1000,))
CADENE = layouts.with_classifier(last_linear__weight=(1000, 2048), last_linear__bias=(1000,))
R2PLUS1D = layouts.with_classifier(fc__weight=(400, 512), fc__bias=(400,))

VGGISH = Layout("vggish.audioset", "vggish-10086976.pth", layouts.as_it_is, layouts.torch_file)
VGGISH_PCA = Layout(
    "vggish.audioset_pca",
    "vggish_pca_params-970ea276.pth",
    layouts.random_pca,
    layouts.array_file,
)
RGB = Layout("i3d_rgb.pgi3d", "rgb_imagenet.pt", layouts.pgi3d, layouts.torch_file)
FLOW = Layout("i3d_flow.pgi3d", "flow_imagenet.pt", layouts.pgi3d, layouts.torch_file)


def openl3_layout(kind: str, representation: str) -> Layout:
    last = "audio_embedding_layer" if kind == "audio" else "vision_embedding_layer"
    entry = "openl3" if kind == "audio" else "openl3_image"
    return Layout(
        f"{entry}.v0_4_0_{representation}_env",
        f"openl3_{kind}_{representation}_env-v0_4_0.h5.gz",
        layouts.keras_openl3(last),
        layouts.zipped_keras_file,
    )


def _openl3(representation: str, *, stem: str) -> Case:
    return Case(
        {"": openl3_layout("audio", representation)},
        {
            stem: _apart(oracles.functional_openl3),
            f"{stem}.6144": _apart(oracles.functional_openl3_6144),
        },
        slow=(f"{stem}.6144",),
    )


# Noise of 1e-3 on the input has to move the output by more than this, both relative (L2).
SENSITIVITY = 1e-3

CASES = {
    "i3d": Case({"rgb": RGB, "flow": FLOW}, {"i3d": _apart(oracles.functional_two_stream)}),
    "i3d_flow": Case({"": FLOW}, {"i3d_flow": _apart(oracles.functional_i3d)}),
    "i3d_rgb": Case({"": RGB}, {"i3d_rgb": _apart(oracles.functional_i3d)}),
    "openl3": _openl3("mel256", stem="openl3"),
    "openl3.linear": _openl3("linear", stem="openl3.linear"),
    "openl3.mel128": _openl3("mel128", stem="openl3.mel128"),
    "openl3_image": Case(
        {"": openl3_layout("image", "mel256")},
        {
            "openl3_image": _apart(oracles.functional_openl3_image),
            "openl3_image.8192": _apart(oracles.functional_openl3_image_8192),
            "openl3_image.compat": _apart(oracles.functional_openl3_image),
            "openl3_image.map": _apart(oracles.functional_openl3_image_map),
        },
        slow=("openl3_image.8192", "openl3_image.compat", "openl3_image.map"),
    ),
    "polynet": Case(
        {
            "": Layout(
                "polynet.cadene_in1k",
                "polynet-0452-6a1b295d.pth.zip",
                layouts.pytorchcv,
                layouts.zipped_torch_file,
            )
        },
        {
            "polynet": (Oracle("pytorchcv", oracles.pytorchcv_polynet),),
            "polynet.map": (Oracle("pytorchcv", oracles.pytorchcv_polynet_map),),
        },
        slow=("polynet.map",),
    ),
    "r2plus1d_18": Case(
        {
            "": Layout(
                "r2plus1d_18.tv_k400_v1",
                "r2plus1d_18-91a641e6.pth",
                R2PLUS1D,
                layouts.torch_file,
            )
        },
        {
            "r2plus1d_18": (Oracle("torchvision", oracles.avvp_r2plus1d_18),),
            "r2plus1d_18.tv": (Oracle("torchvision", oracles.avvp_r2plus1d_18),),
        },
        slow=("r2plus1d_18.tv",),
    ),
    "resnet152": Case(
        {
            "": Layout(
                "resnet152.tv_in1k_v1", "resnet152-394f9c45.pth", RESNET152, layouts.torch_file
            )
        },
        {
            "resnet152": (
                Oracle("torchvision", oracles.torchvision_resnet152),
                Oracle("pretrainedmodels", oracles.cadene_resnet152),
            ),
            "resnet152.map": (Oracle("torchvision", oracles.torchvision_resnet152_map),),
        },
    ),
    "senet154": Case(
        {"": Layout("senet154.cadene_in1k", "senet154-c7b49a05.pth", CADENE, layouts.torch_file)},
        {
            "senet154": (
                Oracle("pretrainedmodels", oracles.cadene_senet154),
                Oracle("timm", oracles.timm_senet154),
            ),
            "senet154.map": (Oracle("pretrainedmodels", oracles.cadene_senet154_map),),
        },
        slow=("senet154.map",),
    ),
    "vgg19.pool5": Case(
        {
            "": Layout(
                "vgg19.keras_in1k",
                "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
                layouts.keras_vgg19,
                layouts.keras_file,
            )
        },
        {"vgg19.pool5": _apart(oracles.functional_vgg19)},
        directed=True,
    ),
    "vgg19_bn": Case(
        {"": Layout("vgg19_bn.tv_in1k_v1", "vgg19_bn-c79401a0.pth", VGG19_BN, layouts.torch_file)},
        {
            "vgg19_bn": (
                Oracle("torchvision", oracles.torchvision_vgg19_bn),
                Oracle("pretrainedmodels", oracles.cadene_vgg19_bn),
            ),
            "vgg19_bn.map": (Oracle("torchvision", oracles.torchvision_vgg19_bn_map),),
        },
    ),
    "vggish": Case(
        {"": VGGISH},
        {
            "vggish": (Oracle("torchvggish", oracles.torchvggish_net),),
            "vggish.pre_activation": (Oracle("torchvggish", oracles.torchvggish_before_relu),),
        },
        directed=True,
    ),
    # A whole level apart where a value lies at a step, as it may on another machine.
    "vggish.audioset_pca8": Case(
        {"net": VGGISH, "pca": VGGISH_PCA},
        {"vggish.audioset_pca8": (Oracle("torchvggish", oracles.torchvggish_pca8),)},
        directed=True,
        tolerance=2e-3,
    ),
}

# Networks that take long on two cores even once: what the default run leaves out.
SLOW = frozenset({"openl3.linear", "openl3.mel128", "vggish.audioset_pca8"})


@dataclass(frozen=True)
class Loaded:
    """A backbone whose weights came from its published file, and the tensors of that file."""

    name: str
    backbone: backbones.Backbone
    tensors: dict[str, Tensor]
    extract: backbones.Extractor

    def items(self, n: int, seed: int) -> Tensor:
        return smooth_items(self.backbone.spec.input, n, torch.Generator().manual_seed(seed))


def calibrated(name: str) -> dict[str, Tensor]:
    """The state dict of a backbone's own network with calibrated random weights."""
    backbone = backbones.get(name)
    net = backbone.build()
    calibrate(net, backbone, seed=11)
    return net.state_dict()


@contextmanager
def loaded_from_file(name: str, folder: Path) -> Iterator[Loaded]:
    """Save random weights as published files, and load them as a user would."""
    state = calibrated(name)
    tensors: dict[str, Tensor] = {}
    files = {}
    for part, layout in CASES[name].files.items():
        stem = f"{part}." if part else ""
        own = {k.removeprefix(stem): v for k, v in state.items() if k.startswith(stem)}
        found = layout.tensors(own)
        files[layout.entry] = folder / layout.file
        layout.save(found, files[layout.entry])
        tensors |= {stem + key: value for key, value in found.items()}
    with layouts.published(files, folder):
        yield Loaded(name, backbones.get(name), tensors, backbones.load(name, device=CPU))


def directed(net: Network, inputs: Tensor) -> Tensor:
    """Inputs with as much noise as `noisy` adds, where it moves the rows y of these inputs x far.

    White noise does not do for networks without batch norm: nothing amplifies it, and their
    poolings average it away, so VGGish moves by less than 1e-3 though it forgets nothing. But for
    its small biases such a network is y = Jx with its Jacobian J. Along J'y, a step of the power
    method from x, it moves by at least |y| per |x|: here by 1e-3, more unless x is a singular
    vector. A network whose biases have drowned its input would still not.
    """
    varied = inputs.clone().requires_grad_()
    (along,) = torch.autograd.grad(net(varied).square().sum(), varied)
    return inputs + 1e-3 * inputs.norm() / along.norm() * along


def noisy(inputs: Tensor) -> Tensor:
    """Inputs with noise of a thousandth of their root mean square."""
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
    return inputs + 1e-3 * inputs.square().mean().sqrt() * noise
