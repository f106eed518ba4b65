"""What is chosen of a training before it starts, and the rule that its scores go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from avfeat.errors import UsageError
from avfeat.metrics import avvp


class Decision(TypedDict):
    """When a segment's event counts; see `avfeat.metrics.avvp.decide`."""

    gate: avvp.Gate
    threshold: float
    gate_threshold: float


#: The rule of HAN's authors. It moves scores by points, so it stands beside every number.
DECISION: Decision = {"gate": "joint", "threshold": 0.5, "gate_threshold": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyper:
    """Hyper-parameters of a training; the defaults are those of HAN's authors.

    Attributes
    ----------
    lr
        Learning rate of Adam, at first.
    decay, decay_every
        The learning rate is multiplied by `decay` every so many epochs.
    batch
        Clips per step. The last step of an epoch takes what is left.
    epochs
        Passes over the training clips.
    dropout
        Rate in the attention layer.
    smoothing
        Label smoothing on the visual side, see `mmil_loss`.
    seed
        Of everything random.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    lr: float = 3e-4
    decay: float = 0.1
    decay_every: int = 10
    batch: int = 16
    epochs: int = 40
    dropout: float = 0.1
    smoothing: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        ranges = {
            "above 0": ("lr", "decay", "decay_every", "batch", "epochs"),
            "0 or more": ("dropout", "smoothing", "seed"),
        }
        for what, names in ranges.items():
            for name in names:
                value = getattr(self, name)
                if not (value > 0 or (value == 0 and what == "0 or more")):
                    raise UsageError(f"{name} must be {what}, not {value}")
        if max(self.dropout, self.smoothing) >= 1:
            raise UsageError(
                f"dropout and smoothing must be below 1, not {self.dropout} and {self.smoothing}"
            )


#: Learning rates among which Algorithm 1 tunes the collocation it stands at; HAN's own is 3e-4.
GRID = (1e-4, 3e-4, 1e-3)


def grid_around(lr: float) -> tuple[float, ...]:
    """Return the learning rates that go with another one than HAN's, by the factors of `GRID`."""
    return tuple(rate * (lr / Hyper().lr) for rate in GRID)
