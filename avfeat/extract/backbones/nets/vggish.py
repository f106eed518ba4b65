"""The VGGish network: six convolutions and three linear layers, each with a ReLU."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_POOL = 0
_CHANNELS = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL)


class VGGishNet(nn.Module):
    """Log-mel examples ``[N, 1, 96, 64]`` (time, band) to embeddings ``[N, 128]``, non-negative.

    Hershey et al., arXiv:1609.09430; layers and key names as in torchvggish, whose weights were
    converted from vggish_slim.py of TensorFlow models. Without `relu` the last ReLU is left out.
    """

    def __init__(self, *, relu: bool = True) -> None:
        """Build the layers with torch's initial weights."""
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 1
        for n_out in _CHANNELS:
            if n_out == _POOL:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(inplace=True)]
                n_in = n_out
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            *(
                layer
                for n_from, n_to in pairwise((6 * 4 * 512, 4096, 4096, 128))
                for layer in (nn.Linear(n_from, n_to), nn.ReLU(inplace=True))
            )
        )

        if not relu:
            self.embeddings[-1] = nn.Identity()

    def forward(self, examples: Tensor) -> Tensor:
        """Embed examples."""
        maps = self.features(examples)  # [N, 512, 6, 4]
        # TensorFlow flattens with channels fastest, and the first linear layer expects that.
        embeddings: Tensor = self.embeddings(maps.movedim(1, -1).flatten(1))
        return embeddings
