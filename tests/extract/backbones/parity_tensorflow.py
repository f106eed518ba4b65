"""Questions to TensorFlow, which lives in an environment of its own: `make parity` makes it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "parity" / "oracles_tf.py"
VARIABLE = "AVFEAT_PARITY_PYTHON"


@dataclass(frozen=True)
class Question:
    """A network of the script, for a backbone with calibrated random weights.

    Attributes
    ----------
    network
        What the script calls it.
    backbone
        Whose weights and input it gets.
    what
        How it was built there.
    outputs
        Variants of the backbone by the names of the script's outputs.
    file
        Name of the published file; None for that of the backbone's other tests.
    """

    network: str
    backbone: str
    what: str
    outputs: dict[str, str]
    file: str | None = None


QUESTIONS = {
    **{
        name: Question("i3d", name, "conv3d and max_pool3d SAME", {"rows": name})
        for name in ("i3d_rgb", "i3d_flow")
    },
    **{
        name: Question(
            f"openl3.{representation}", name, "Keras", {"512": name, "6144": f"{name}.6144"}
        )
        for name, representation in (
            ("openl3", "mel256"),
            ("openl3.mel128", "mel128"),
            ("openl3.linear", "linear"),
        )
    },
    "openl3_image": Question(
        "openl3_image",
        "openl3_image",
        "Keras",
        {"512": "openl3_image", "8192": "openl3_image.8192", "map": "openl3_image.map"},
    ),
    "vgg19-no-top": Question("vgg19", "vgg19.pool5", "keras.applications", {"map": "vgg19.pool5"}),
    "vgg19-full": Question(
        "vgg19.full",
        "vgg19.pool5",
        "keras.applications, file with dense layers",
        {"map": "vgg19.pool5"},
        file="vgg19_weights_tf_dim_ordering_tf_kernels.h5",
    ),
    "vggish": Question(
        "vggish", "vggish", "conv2d NHWC", {"relu": "vggish", "pre": "vggish.pre_activation"}
    ),
}


@dataclass(frozen=True)
class Answer:
    """Arrays by name, versions of the packages, and the file that Keras wrote, if it wrote one."""

    outputs: dict[str, Tensor]
    versions: dict[str, str]
    weights: Path

    def label(self, what: str, package: str = "tensorflow-cpu") -> str:
        return f"{package} {self.versions[package]}: {what}"


def ask(question: Question, state: Mapping[str, Tensor], folder: Path, **inputs: Tensor) -> Answer:
    """Run the script's network with these weights (torch names) on these inputs."""
    python = ROOT / os.environ.get(VARIABLE, ".venv-parity/bin/python")
    if not python.exists():
        # Whoever selects these tests wants them run: a skip would pass for a success.
        pytest.fail(f"no TensorFlow environment at {python}: run `make parity`, which makes it")
    np.savez(folder / "state.npz", **{key: value.numpy() for key, value in state.items()})
    np.savez(folder / "inputs.npz", **{key: value.numpy() for key, value in inputs.items()})
    done = subprocess.run(
        [python, SCRIPT, question.network, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "outputs.npz") as arrays:
        outputs = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    versions = json.loads((folder / "versions.json").read_text())
    return Answer(outputs, versions, folder / "weights.h5")
