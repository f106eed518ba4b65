"""How many threads OpenVINO computes with, which may be fewer than it was asked for."""

from __future__ import annotations

from functools import cache

import openvino
from openvino import opset13 as ops

from avfeat.errors import EngineError
from avfeat.extract.engines.convert import compile_model
from avfeat.words import counted


def taken(compiled: openvino.CompiledModel) -> int:
    """Threads that a compiled network computes with."""
    return int(compiled.get_property("INFERENCE_NUM_THREADS"))


@cache
def obtainable(asked: int) -> int:
    """Say how many threads networks compute with on this machine, asked to take so many.

    OpenVINO takes at most one for each physical core that the process may run on, without a word.
    """
    number = ops.parameter([1])
    model = openvino.Model([ops.relu(number)], [number])
    return taken(compile_model(model, precision="fp32", threads=asked))


def check(asked: int, found: int) -> None:
    """Raise EngineError if networks compute with other threads than a recipe is going to say."""
    if found != asked:
        raise EngineError(
            f"OpenVINO takes {counted(found, 'thread')}, not {asked}: there are no more cores that "
            f"it may use. Take a machine with as many, `--threads {found}` in a new store, or "
            "`--engine torch`"
        )
