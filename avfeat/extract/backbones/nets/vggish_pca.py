"""VGGish's post-processing to the 8-bit features of AudioSet and YouTube-8M.

After vggish_postprocess.py of TensorFlow models (research/audioset, Apache-2.0). The AVE and AVVP
features do without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfeat.errors import WeightsError

DIM = 128
LIMIT = 2.0  # whitened values are clipped to [-2, 2]
LEVELS = 255


class VGGishPCA(nn.Module):
    """Embeddings ``[N, 128]`` to whole numbers 0 to 255, float32 ``[N, 128]``.

    Whitened by a published PCA, clipped to [-2, 2] and quantised. The fraction is cut off, as the
    cast to uint8 does in TensorFlow's code, which made AudioSet's features. torchvggish rounds
    instead, which gives the next level for about half of the values. Either way a value within
    float32 rounding of a step can fall on both sides of it. NaN stays NaN.

    Without the published parameters the PCA is the identity.
    """

    pca_eigen_vectors: Tensor
    pca_means: Tensor

    def __init__(self) -> None:
        """Set the identity, under the names of the published files."""
        super().__init__()
        self.register_buffer("pca_eigen_vectors", torch.eye(DIM))
        self.register_buffer("pca_means", torch.zeros(DIM, 1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Post-process embeddings, at the parameters' precision also within autocast.

        bf16 has 8 significant bits, which are no 256 levels.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            centred = embeddings.to(self.pca_means.dtype) - self.pca_means.T
            whitened = centred @ self.pca_eigen_vectors.T
        steps = (whitened.clamp(-LIMIT, LIMIT) + LIMIT) * (LEVELS / (2 * LIMIT))
        return steps.floor()


def pca_state(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Turn the arrays of a published PCA file into the state dict of `VGGishPCA`.

    Both ``vggish_pca_params.npz`` and torchvggish's ``vggish_pca_params-970ea276.pth`` hold numpy
    arrays, the means as ``[128]``; a column ``[128, 1]`` and tensors are taken as well.

    Raises
    ------
    WeightsError
        An array is missing, unknown or of another size.
    """
    shapes = {"pca_eigen_vectors": (DIM, DIM), "pca_means": (DIM, 1)}
    if unknown := [name for name in arrays if name not in shapes]:
        raise WeightsError(f"unexpected arrays {', '.join(map(repr, unknown[:3]))}")
    state = {}
    for name, shape in shapes.items():
        if name not in arrays:
            raise WeightsError(f"no array {name!r} among {', '.join(arrays) or 'none'}")
        array = torch.as_tensor(arrays[name], dtype=torch.float32)
        if tuple(array.shape) not in {shape, tuple(n for n in shape if n > 1)}:
            raise WeightsError(f"{name} is {list(array.shape)} instead of {list(shape)}")
        state[name] = array.reshape(shape)
    return state
