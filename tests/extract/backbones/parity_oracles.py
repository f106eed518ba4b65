"""The reference networks: the libraries' own, and functional ones for what no library offers.

Each is made of the tensors of a published file, under the names and in the shapes that it has. It
takes a batch of network inputs and returns what avfeat should: rows, or maps, channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pretrainedmodels
import timm
import torch
import torchvision.models as tvm
from pytorchcv.models.polynet import polynet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvggish import torchvggish
from torchvision.models.video import r2plus1d_18

State = Mapping[str, Tensor]


def torchvision_resnet152(state: State) -> nn.Module:
    net = _with(tvm.resnet152, state)
    net.fc = nn.Identity()
    return net


def torchvision_resnet152_map(state: State) -> nn.Module:
    net = _with(tvm.resnet152, state)
    return nn.Sequential(*list(net.children())[:-2], ChannelsLast())


def cadene_resnet152(state: State) -> nn.Module:
    renamed = {k.replace("fc.", "last_linear."): v for k, v in state.items()}
    net = _with(lambda: pretrainedmodels.resnet152(pretrained=None), renamed)
    net.last_linear = nn.Identity()
    return net


def torchvision_vgg19_bn(state: State) -> nn.Module:
    net = _with(tvm.vgg19_bn, state)
    net.classifier[6] = nn.Identity()
    return net


def torchvision_vgg19_bn_map(state: State) -> nn.Module:
    *layers, pool5 = _with(tvm.vgg19_bn, state).features
    assert isinstance(pool5, nn.MaxPool2d)
    return nn.Sequential(*layers, ChannelsLast())


def cadene_vgg19_bn(state: State) -> nn.Module:
    names = {"classifier.0": "linear0", "classifier.3": "linear1", "classifier.6": "last_linear"}
    renamed = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        renamed[f"{names.get(module, '_' + module)}.{kind}"] = value
    net = _with(lambda: pretrainedmodels.vgg19_bn(pretrained=None), renamed)
    net.last_linear = nn.Identity()
    return net


def cadene_senet154(state: State) -> nn.Module:
    net = _with(lambda: pretrainedmodels.senet154(pretrained=None), state)
    net.last_linear = nn.Identity()
    return net


def cadene_senet154_map(state: State) -> nn.Module:
    net = _with(lambda: pretrainedmodels.senet154(pretrained=None), state)
    # pretrainedmodels' own method: all up to the pool.
    net.forward = net.features  # type: ignore[method-assign]
    return nn.Sequential(net, ChannelsLast())


def timm_senet154(state: State) -> nn.Module:
    net = _with(lambda: timm.create_model("legacy_senet154", pretrained=False), state)
    net.reset_classifier(0)
    return net


def pytorchcv_polynet(state: State) -> nn.Module:
    net = _with(polynet, state)
    net.output = nn.Identity()
    return net


def pytorchcv_polynet_map(state: State) -> nn.Module:
    net = _with(polynet, state)
    del net.features.final_pool
    return nn.Sequential(net.features, ChannelsLast())


def avvp_r2plus1d_18(state: State) -> nn.Module:
    """All children but the last, which is how the AVVP scripts cut it."""
    return nn.Sequential(*list(_with(r2plus1d_18, state).children())[:-1], nn.Flatten())


def torchvggish_net(state: State) -> nn.Module:
    return _with(lambda: torchvggish._vgg(postprocess=False), state)


def torchvggish_before_relu(state: State) -> nn.Module:
    net = torchvggish_net(state)
    net.embeddings[5] = nn.Identity()
    return net


def torchvggish_pca8(state: State) -> Callable[[Tensor], Tensor]:
    """Truncated as in TensorFlow, where torchvggish rounds; ``state`` has both files' tensors."""
    net = torchvggish_net(
        {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    )

    def run(inputs: Tensor) -> Tensor:
        rows = net(inputs).double() - state["pca.pca_means"].double().flatten()
        whitened = rows @ state["pca.pca_eigen_vectors"].double().T
        levels: Tensor = (whitened.clamp(-2, 2) + 2) * (255 / 4)
        return levels.floor().float()

    return run


class ChannelsLast(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(1, -1)


def _with(build: Callable[[], nn.Module], state: State) -> nn.Module:
    """A network with these tensors: all of them, and nothing else of its own."""
    with torch.device("meta"):
        net = build()
    net.load_state_dict(state, assign=True)
    return net.eval()


# What follows is for networks that no library offers in torch.


def functional_vgg19(state: State, inputs: Tensor) -> Tensor:
    """block5_pool from Keras' arrays: all convolutions 3 x 3, a pool behind every block."""
    arrays = [array for key, array in state.items() if key.startswith("block")]
    maps = inputs
    for convolutions in (2, 2, 4, 4, 4):
        for _ in range(convolutions):
            kernel, bias = arrays.pop(0), arrays.pop(0)
            maps = F.relu(F.conv2d(maps, _from_keras(kernel), bias, padding=1))
        maps = F.max_pool2d(maps, 2)
    assert not arrays
    return maps.movedim(1, -1)


def functional_openl3(state: State, inputs: Tensor, places: tuple[int, int] = (1, 1)) -> Tensor:
    """``places`` (frequency, time) of the last map, whose maximum each is kept."""
    return _pooled(_openl3_map(state, inputs, "n cnr cnr p cnr cnr p cnr cnr p cnr c"), places)


def functional_openl3_6144(state: State, inputs: Tensor) -> Tensor:
    return functional_openl3(state, inputs, (4, 3))


def functional_openl3_image(
    state: State, inputs: Tensor, places: tuple[int, int] = (1, 1)
) -> Tensor:
    return _pooled(_openl3_map(state, inputs, "n cnr crn p cnr cnr p cnr cnr p cnr c"), places)


def functional_openl3_image_8192(state: State, inputs: Tensor) -> Tensor:
    return functional_openl3_image(state, inputs, (4, 4))


def functional_openl3_image_map(state: State, inputs: Tensor) -> Tensor:
    maps = _openl3_map(state, inputs, "n cnr crn p cnr cnr p cnr cnr p cnr c")
    return maps.movedim(1, -1)


def functional_i3d(state: State, inputs: Tensor) -> Tensor:
    """From pytorch-i3d's tensors, all by name; TensorFlow's padding from its definition."""

    def unit(maps: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.conv3d.weight"]
        maps = F.conv3d(_same(maps, kernel.shape[2:], (stride,) * 3), kernel, stride=stride)
        norm = [state[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(maps, *norm, eps=1e-3))

    def pool(maps: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
        padded = _same(maps, kernel, stride, value=-torch.inf)
        return F.max_pool3d(padded, tuple(kernel), tuple(stride))

    def mixed(maps: Tensor, name: str) -> Tensor:
        second = unit(unit(maps, f"{name}.b1a"), f"{name}.b1b")
        third = unit(unit(maps, f"{name}.b2a"), f"{name}.b2b")
        fourth = unit(pool(maps, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")
        return torch.cat([unit(maps, f"{name}.b0"), second, third, fourth], dim=1)

    maps = pool(unit(inputs, "Conv3d_1a_7x7", stride=2), (1, 3, 3), (1, 2, 2))
    maps = unit(unit(maps, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
    maps = pool(maps, (1, 3, 3), (1, 2, 2))
    for name in ("3b", "3c"):
        maps = mixed(maps, f"Mixed_{name}")
    maps = pool(maps, (3, 3, 3), (2, 2, 2))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        maps = mixed(maps, f"Mixed_{name}")
    maps = pool(maps, (2, 2, 2), (2, 2, 2))
    for name in ("5b", "5c"):
        maps = mixed(maps, f"Mixed_{name}")
    # 16 frames of 224 x 224 leave 2 x 7 x 7, the window of the published pool.
    assert maps.shape[1:] == (1024, 2, 7, 7)
    return maps.mean((2, 3, 4))


def functional_two_stream(state: State, inputs: Tensor) -> Tensor:
    """RGB, then flow; ``state`` has the tensors of both files with the stream's name in front."""
    streams = {
        name: {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
        for name in ("rgb.", "flow.")
    }
    rgb = functional_i3d(streams["rgb."], inputs[:, :3])
    return torch.cat([rgb, functional_i3d(streams["flow."], inputs[:, 3:])], dim=1)


def _from_keras(kernel: Tensor) -> Tensor:
    """[height, width, in, out] to [out, in, height, width]."""
    return kernel.permute(3, 2, 0, 1)


def _openl3_map(state: State, inputs: Tensor, layers: str) -> Tensor:
    """Last convolution's map from Keras' 48 arrays in their order: n orm, c onv, r elu, p ool."""
    arrays = list(state.values())
    maps = inputs
    for layer in layers.replace(" ", ""):
        if layer == "n":
            gamma, beta, mean, variance = (arrays.pop(0) for _ in range(4))
            maps = F.batch_norm(maps, mean, variance, gamma, beta, eps=1e-3)
        elif layer == "c":
            kernel, bias = arrays.pop(0), arrays.pop(0)
            maps = F.conv2d(maps, _from_keras(kernel), bias, padding="same")
        else:
            maps = F.relu(maps) if layer == "r" else F.max_pool2d(maps, 2)
    assert not arrays
    return maps


def _pooled(maps: Tensor, places: tuple[int, int]) -> Tensor:
    # The pools of all sizes divide their maps, so they are as many equal tiles.
    assert maps.shape[2] % places[0] == maps.shape[3] % places[1] == 0
    return F.adaptive_max_pool2d(maps, places).movedim(1, -1).flatten(1)


def _same(maps: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """TensorFlow's definition: ceil(length / stride) outputs, an odd zero goes behind."""
    padding: list[int] = []
    for length, k, s in zip(maps.shape[2:], kernel, stride, strict=True):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        padding = [total // 2, total - total // 2, *padding]
    return F.pad(maps, padding, value=value)
