"""Which network runs where: what a plan's stores need, loaded here or in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.backbones import Backbone
from avfeat.extract.batch import Forward
from avfeat.extract.plan import Plan
from avfeat.extract.threads import compute_with
from avfeat.extract.weights.info import WeightsInfo
from avfeat.manifests.jsonfile import digest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Model:
    """A network to load; it can be sent to a worker.

    Attributes
    ----------
    backbone, weights
        Which, as found in this process's cache.
    device, precision, engine, batch_size
        See `backbones.load`.
    threads
        That it computes with, on a CPU.
    """

    backbone: Backbone
    weights: WeightsInfo
    device: str
    precision: str
    engine: str
    batch_size: int
    threads: int

    @property
    def identity(self) -> str:
        """Equal for what gives the same rows, whichever run and process it comes from."""
        made = type(self.backbone)
        return digest(
            {
                "class": f"{made.__module__}.{made.__qualname__}",
                "backbone": self.backbone.spec.recipe(),
                "chosen": list(self.backbone.chosen),
                "weights": self.weights.to_dict(),
                "how": [self.device, self.precision, self.engine, self.batch_size, self.threads],
            }
        )

    def load(self) -> Forward:
        """Load it where it was made."""
        return self._load(self.weights)

    def load_elsewhere(self) -> Forward:
        """Load it in another process, maybe on another machine, from the cache that is there.

        Raises
        ------
        WeightsError
            The weights there are not those of the plan, or cannot be had.
        """
        if self.weights.tag is None:  # random ones, which need no file
            return self._load(self.weights)
        found = backbones.resolve_weights(self.backbone, self.weights.tag)
        if found.tensors != self.weights.tensors:
            raise WeightsError(
                f"the weights {self.weights.tag} of {self.backbone.spec.name} in this worker's "
                "cache are not those of the plan"
            )
        return self._load(found)

    def _load(self, weights: WeightsInfo) -> Forward:
        import torch

        compute_with(self.threads)  # OpenVINO compiles for it
        extractor = backbones.load(
            self.backbone,
            weights=weights,
            device=torch.device(self.device),
            precision=self.precision,  # type: ignore[arg-type]
            engine=self.engine,
            batch_size=self.batch_size,
        )

        def start(items: torch.Tensor) -> Callable[[], torch.Tensor]:
            compute_with(self.threads)
            return extractor.start(items)

        return start


def models(plan: Plan) -> dict[str, Model]:
    """Return what the stores that have clips to decode need, by name of the backbone."""
    return {
        task.spec.name: Model(
            task.backbone,
            task.weights,
            plan.settings.device,
            plan.settings.precision,
            task.choice.engine,
            task.batch_size,
            task.threads,
        )
        for task in plan.tasks
        if task.decode
    }
