"""Key names of PolyNet: from pytorchcv's to those of pretrainedmodels.

Both state dicts hold the same 3104 tensors in the same order; only the names differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LETTERS = {"1": "a", "2": "b", "3": "c"}
_KERNELS = {"2": ("1x1", "1x7", "7x1"), "3": ("1x1", "1x3", "3x1")}


# Applied in turn: first where a block lies, then the names within it. Units alternate between
# poly-3 and two-way modules, which pretrainedmodels counts on.
_RULES: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"output\.fc\.", lambda m: "last_linear."),
    (r"features\.init_block\.conv(\d)\.", lambda m: f"stem.conv1.{int(m[1]) - 1}."),
    (r"features\.init_block\.block1\.branches\.branch2\.conv\.", lambda m: "stem.conv1_branch."),
    (r"features\.init_block\.block3\.branches\.branch2\.conv\.", lambda m: "stem.conv2_branch."),
    (
        r"features\.init_block\.block2\.branches\.branch(\d)\.conv_list\.conv(\d)\.",
        lambda m: f"stem.conv2_{('short', 'long')[int(m[1]) - 1]}.{int(m[2]) - 1}.",
    ),
    # One convolution in pretrainedmodels, a list of one in pytorchcv.
    (
        r"features\.stage2\.unit1\.branches\.branch2\.conv_list\.conv1\.",
        lambda m: "reduction_a.path1.",
    ),
    (
        r"features\.stage([23])\.unit1\.branches\.branch(\d)\.conv_list\.conv(\d)\.",
        lambda m: f"reduction_{_LETTERS[str(int(m[1]) - 1)]}.path{int(m[2]) - 1}.{int(m[3]) - 1}.",
    ),
    (
        r"features\.stage1\.unit(\d+)\.twoway\.res_blocks\.(\d)\.",
        lambda m: f"stage_a.{int(m[1]) - 1}.blocks.{m[2]}.",
    ),
    (
        r"features\.stage([23])\.unit(\d+)\.twoway\.res_blocks\.(\d)\.",
        lambda m: f"stage_{_LETTERS[m[1]]}.{2 * int(m[2]) - 3}.blocks.{m[3]}.",
    ),
    (
        r"features\.stage([23])\.unit(\d+)\.poly\.pre_block\.branches\.branch1\.conv_list\.conv(\d)\.",
        lambda m: (
            f"stage_{_LETTERS[m[1]]}.{2 * int(m[2]) - 4}.path0_{_KERNELS[m[1]][int(m[3]) - 1]}."
        ),
    ),
    (
        r"features\.stage([23])\.unit(\d+)\.poly\.pre_block\.branches\.branch2\.",
        lambda m: f"stage_{_LETTERS[m[1]]}.{2 * int(m[2]) - 4}.path1.",
    ),
    (
        r"features\.stage([23])\.unit(\d+)\.poly\.res_blocks\.(\d)\.",
        lambda m: f"stage_{_LETTERS[m[1]]}.{2 * int(m[2]) - 4}.conv2d_blocks.{m[3]}.",
    ),
    (
        r"\.branches\.branch(\d)\.conv_list\.conv(\d)\.",
        lambda m: f".path{int(m[1]) - 1}.{int(m[2]) - 1}.",
    ),
    (r"\.branches\.branch(\d)\.conv\.", lambda m: f".path{int(m[1]) - 1}."),
    (r"(\.blocks\.\d\.)conv\.", lambda m: f"{m[1]}conv2d."),
    (r"\.bns\.(\d)\.", lambda m: f".bn_blocks.{m[1]}."),
]


def from_pytorchcv(key: str) -> str:
    """Rename one key of pytorchcv's ``polynet``.

    >>> from_pytorchcv("features.stage2.unit3.poly.pre_block.branches.branch2.bns.1.bias")
    'stage_b.2.path1.bn_blocks.1.bias'
    """
    for pattern, rename in _RULES:
        key = re.sub(pattern, rename, key)
    return key
