"""Key names of SENet-154: from pytorchcv's to those of pretrainedmodels and timm.

Both state dicts hold the same 1144 tensors in the same order; only the names differ. pytorchcv's
network is another one, as its stem pads where it pools; its weights are those of pretrainedmodels.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Applied in turn: first where a block lies, then the names within it.
_RULES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^output\.fc\.", "last_linear."),
    (r"^features\.init_block\.", "layer0."),
    (r"^features\.stage(\d)\.unit(\d+)\.", lambda m: f"layer{m[1]}.{int(m[2]) - 1}."),
    (r"\.body\.", "."),
    (r"\.se\.conv(\d)\.", r".se_module.fc\1."),
    (r"\.identity_conv\.conv\.", ".downsample.0."),
    (r"\.identity_conv\.bn\.", ".downsample.1."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
]


def from_pytorchcv(key: str) -> str:
    """Rename one key of pytorchcv's ``senet154``.

    >>> from_pytorchcv("features.stage2.unit3.body.conv1.bn.bias")
    'layer2.2.bn1.bias'
    >>> from_pytorchcv("features.stage2.unit1.identity_conv.conv.weight")
    'layer2.0.downsample.0.weight'
    """
    for pattern, new in _RULES:
        key = re.sub(pattern, new, key)
    return key
