"""Small backbones for tests, and the command line with them: ``python tiny.py extract …``."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from avfeat.extract.backbones import (
    AudioInput,
    Backbone,
    BackboneSpec,
    Geometry,
    VisualInput,
    register,
)


class _Net(nn.Module):
    """A convolution and a global pool; TINY_SLEEP slows it down, so that kills land inside."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, items: Tensor) -> Tensor:
        time.sleep(float(os.environ.get("TINY_SLEEP", "0")))
        return torch.relu(self.conv(items)).flatten(2).mean(-1)


class _Threads(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return torch.full((len(items), 1), float(torch.get_num_threads()))


def _spec(name: str, taken: VisualInput | AudioInput, dim: int) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        modality="audio" if isinstance(taken, AudioInput) else "visual",
        dim=dim,
        layer="pool",
        input=taken,
        weights=(),
        parameters=100,
        gmacs_per_item=0.001,
        paper="none",
        description="for tests",
        cpu_batch=8,
    )


@register
class TinyImage(Backbone):
    spec = _spec("tiny_image", VisualInput(Geometry(40, 32)), 6)

    def build(self) -> nn.Module:
        return _Net(nn.Conv2d(3, 6, 5, stride=2))


@register
class TinyImage2(Backbone):
    """Shares tiny_image's geometry."""

    spec = _spec("tiny_image2", VisualInput(Geometry(40, 32)), 4)

    def build(self) -> nn.Module:
        return _Net(nn.Conv2d(3, 4, 3))


@register
class TinySnippet(Backbone):
    spec = _spec("tiny_snippet", VisualInput(Geometry((16, 16)), frames=8, stride=8), 5)

    def build(self) -> nn.Module:
        return _Net(nn.Conv3d(3, 5, 3))


@register
class TinyAudio(Backbone):
    spec = _spec("tiny_audio", AudioInput(16000, 15600, 16000), 7)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Unflatten(1, (1, -1)), _Net(nn.Conv1d(1, 7, 400, stride=160)))


@register
class TinyMap(Backbone):
    """As vgg19.pool5: a map, 16 frames of each second by AVE's rule, averaged."""

    spec = replace(
        _spec(
            "tiny_map",
            VisualInput(Geometry((20, 24), interpolation="cv2-linear"), fps=16.0, rule="ave"),
            4,
        ),
        map=(6, 7),
        pool=16,
    )

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU())


@register
class TinyTwoStream(Backbone):
    """As i3d: windows centred on each second, RGB and flow in one item."""

    spec = _spec(
        "tiny_two_stream",
        VisualInput(Geometry(40, 32), frames=16, stride=8, padding=4, stream="rgb+flow"),
        6,
    )

    def build(self) -> nn.Module:
        return _Net(nn.Conv3d(5, 6, 3))

    def to_input(self, items: Tensor) -> Tensor:
        return items.movedim(-1, 1) / 255


@register
class TinyDeadly(Backbone):
    """Ends the process that runs it, while the file it was armed with is there."""

    spec = _spec("tiny_deadly", VisualInput(Geometry(40, 32)), 6)

    def build(self) -> nn.Module:
        return _Net(nn.Conv2d(3, 6, 5, stride=2))

    def to_input(self, items: Tensor) -> Tensor:
        if Path(os.environ.get("TINY_DEADLY", "/none")).exists():
            os._exit(9)
        return super().to_input(items)


@register
class TinyThreads(Backbone):
    """Its rows are the number of threads that computed them."""

    spec = _spec("tiny_threads", VisualInput(Geometry(40, 32)), 1)

    def build(self) -> nn.Module:
        return _Threads()


@register
class TinyWide(Backbone):
    """As openl3: 48 kHz, or 48 kHz that went through 16."""

    axes = (("48k", "16k"),)
    spec = _spec("tiny_wide", AudioInput(48_000, 48_000, 48_000), 5)

    def specify(self, chosen: tuple[str, ...]) -> BackboneSpec:
        via = 16_000 if "16k" in chosen else None
        return replace(type(self).spec, input=AudioInput(48_000, 48_000, 48_000, via=via))

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Unflatten(1, (1, -1)), _Net(nn.Conv1d(1, 5, 400, stride=160)))


def serve() -> None:
    """Run commands from stdin, each in a fork of this process, which has everything imported.

    Per line of JSON arguments: prints the child's pid, then, when it ended, its wait status.
    """
    import avfeat.extract.session
    import avfeat.progress
    import avfeat.render  # noqa: F401 - imported once, here
    from avfeat.cli import main

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.argv = ["avfeat", *json.loads(line)]
            os.environ["TINY_SLEEP"] = sys.argv.pop(1)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            main()
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        from avfeat.cli import main

        main()
