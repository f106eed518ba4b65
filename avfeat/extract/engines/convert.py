"""A torch network as a network of OpenVINO, proven against it."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from avfeat.errors import EngineError
from avfeat.extract.weights.random import smooth_items

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

TOLERANCE = 1e-3
"""Relative L2 between torch and OpenVINO in float32 up to which a network is the same in both."""

ROUNDING = 4.0
"""How many times torch's own distance from float64 the two may be apart beyond that.

Deep networks amplify rounding: PolyNet's map is 0.03 from torch's, which is as far from float64.
"""


@cache
def core() -> openvino.Core:
    """OpenVINO's entry point; one per process."""
    return openvino.Core()


def convert(net: nn.Module, backbone: Backbone, *, batch_size: int) -> openvino.Model:
    """Convert a network for one batch shape, and compare the two on a batch.

    Parameters
    ----------
    net
        What `Backbone.build` gave, with its weights, on the CPU.
    backbone
        Whose network it is.
    batch_size
        Items per forward pass.

    Raises
    ------
    EngineError
        OpenVINO has no counterpart of one of its operations, or computes something else.
    """
    net = net.eval().requires_grad_(False)
    items = smooth_items(backbone.spec.input, batch_size, torch.Generator().manual_seed(0))
    example = backbone.to_input(items).contiguous()
    rows: list[Tensor] = []
    # Tracing runs the network, so what it gave there is what OpenVINO's has to agree with.
    hook = net.register_forward_hook(lambda _net, _inputs, output: rows.append(output))
    try:
        model = _trace(net, example)
        model.reshape({model.inputs[0]: list(example.shape)})
        compiled = compile_model(model, precision="fp32", threads=torch.get_num_threads())
        found = torch.from_numpy(compiled([example.numpy()])[0])
    except Exception as error:  # a frontend fails in as many ways as there are networks
        raise EngineError(_first_line(error)) from error
    finally:
        hook.remove()
    expected = rows[0].detach()
    difference = _relative(found, expected)
    if not difference <= TOLERANCE and not difference <= ROUNDING * _rounding(
        net, example, expected
    ):
        raise EngineError(f"it gives rows {difference:.1e} away from torch's (relative L2)")
    return model


def compile_model(model: openvino.Model, *, precision: str, threads: int) -> Any:
    """Compile a network for this processor.

    Parameters
    ----------
    precision
        ``"fp32"`` or ``"bf16"``.
    threads
        How many threads it may use; it may take fewer, see `engines.threads`.
    """
    properties: dict[str, Any] = {
        # Explicit: by default OpenVINO takes bfloat16 wherever the processor has it.
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Processes that share a machine would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    if precision == "fp32":
        properties["EXECUTION_MODE_HINT"] = "ACCURACY"
    return core().compile_model(model, "CPU", properties)


def _trace(net: nn.Module, example: Tensor) -> openvino.Model:
    """Convert as `openvino.convert_model` does, without the statistics it sends to its makers."""
    with warnings.catch_warnings(), torch.no_grad():
        # That shapes become constants, which is meant; that tracing is on its way out in torch.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(
            net, example_input=example, trace_kwargs={"check_trace": False}
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


def _rounding(net: nn.Module, example: Tensor, expected: Tensor) -> float:
    """Say how far float32 in torch is from float64; 0 if the network has no float64."""
    with torch.inference_mode():
        try:
            exact = copy.deepcopy(net).double()(example.double())
        except RuntimeError:
            return 0.0
    return _relative(expected, exact)


def _relative(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Those of OpenVINO begin with where in its sources they come from.
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[0][:200]
