"""The OpenVINO engine: a network prepared once, compiled for this processor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avfeat.errors import EngineError
from avfeat.extract.engines import threads
from avfeat.extract.engines.convert import compile_model, convert
from avfeat.extract.engines.identity import identify, identify_weights
from avfeat.extract.engines.precision import Precision
from avfeat.extract.engines.prepared import Place, obtain
from avfeat.extract.weights.info import WeightsInfo

if TYPE_CHECKING:
    import openvino

    from avfeat.extract.backbones.base import Backbone


class OpenVINONetwork:
    """A compiled network. Call it with its input to get its rows, from any thread.

    It takes one batch shape. Batches of other sizes are cut and padded with zeros, which changes no
    row: a row does not depend on the others of its batch.
    """

    def __init__(self, model: openvino.Model, *, precision: Precision) -> None:
        wanted = torch.get_num_threads()
        compiled = compile_model(model, precision=precision, threads=wanted)
        threads.check(wanted, threads.taken(compiled))
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request computes one thing at a time
        self._input = tuple(compiled.inputs[0].shape)
        self._row = tuple(compiled.outputs[0].shape)[1:]

    def __call__(self, batch: Tensor) -> Tensor:
        """Run the network.

        Parameters
        ----------
        batch
            float32 ``[N, …]`` on the CPU, as `Backbone.to_input` gives it.

        Returns
        -------
        Tensor
            float32 ``[N, dim]`` or ``[N, dim, height, width]``. Rows of items that hold a NaN or an
            infinity are NaN: the kernels' ReLU and pooling would turn them into numbers.
        """
        rows = torch.empty((len(batch), *self._row))
        size = self._input[0]
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            rows[first : first + size] = self._run(part)[: len(part)]
        broken = ~batch.flatten(1).isfinite().all(dim=1)
        rows[broken] = torch.nan
        return rows

    def _run(self, part: Tensor) -> Tensor:
        if len(part) < self._input[0]:
            padding = part.new_zeros((self._input[0] - len(part), *part.shape[1:]))
            part = torch.cat([part, padding])
        with self._lock:
            results = self._request.infer([part.contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(results[0])


def load(
    backbone: Backbone,
    info: WeightsInfo,
    build: Callable[[], nn.Module],
    *,
    batch_size: int,
    precision: Precision,
) -> OpenVINONetwork:
    """Get a network ready, from the cache of prepared networks if it is there.

    Parameters
    ----------
    backbone, info
        What network, with which weights.
    build
        Builds it with these weights; not called if it is in the cache.
    batch_size
        Items per forward pass.
    precision
        ``"fp32"`` or ``"bf16"``.

    Raises
    ------
    EngineError
        OpenVINO cannot run the network, or computes something else, or with fewer threads than
        torch has in this one.
    """

    def make() -> openvino.Model:
        try:
            return convert(build(), backbone, batch_size=batch_size)
        except EngineError as error:
            raise EngineError(
                f"OpenVINO cannot run {backbone.spec.name}: {error}; use --engine torch"
            ) from error

    identity = identify(backbone, batch_size=batch_size)
    place = None
    if identity is not None:
        place = Place(backbone.spec.name, identity | {"weights": identify_weights(info)})
    return OpenVINONetwork(obtain(place, make), precision=precision)
