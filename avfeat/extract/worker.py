"""What runs in the processes of a cluster: one unit at a call, networks kept from call to call."""

from __future__ import annotations

import atexit
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

import avfeat
from avfeat.errors import AvfeatError, ClusterError, ProcessError
from avfeat.extract.batch import Forward
from avfeat.extract.decode import Decode, decode
from avfeat.extract.engine import RunFigures, run_units
from avfeat.extract.isolate import Isolated
from avfeat.extract.models import Model
from avfeat.extract.work import Unit, UnitDone
from avfeat.manifests.recipe import installed


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs beside the units.

    Attributes
    ----------
    versions
        As `versions` gives them where the plan was made; other ones would make other rows.
    models
        By name of the backbone.
    decoders
        Clips that a unit decodes at once.
    isolate
        Whether to decode in processes of their own.
    """

    versions: dict[str, str]
    models: tuple[tuple[str, Model], ...]
    decoders: int
    isolate: bool


@dataclass(frozen=True, slots=True)
class Extracted:
    """A unit that was committed, by the process `process` (host and number)."""

    done: UnitDone
    figures: RunFigures
    process: str


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of avfeat and of `libraries` in this process."""
    return {"avfeat": avfeat.__version__} | {name: installed(name) for name in sorted(libraries)}


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be done by the worker at the address `worker`; another one might."""

    message: str
    trace: str
    worker: str


def extract(unit: Unit, setup: Setup) -> Extracted | Failed:
    """Do one unit.

    Errors of this machine (a full disk, files or a network that fail, decoding processes that
    cannot be started) and those that nobody foresaw, such as a GPU out of memory, are returned.

    Raises
    ------
    AvfeatError
        Any other one, as each unit would meet it: this process has other versions than the plan's
        (ClusterError), the weights are wrong, or the run is over (StoreBusyError).
    """
    from distributed import get_worker

    try:
        return _extract(unit, setup)
    except Exception as error:  # the run goes on without this unit, or this worker
        if isinstance(error, AvfeatError) and not isinstance(error, OSError | ProcessError):
            raise
        message = f"{type(error).__name__}: {error}"
        return Failed(message, traceback.format_exc(), get_worker().address)


def _extract(unit: Unit, setup: Setup) -> Extracted:
    networks = _networks(setup)
    # Before it waits for a lock, a forward pass is not busy.
    waited = dict.fromkeys(networks, 0.0)
    figures = RunFigures()
    results: list[UnitDone] = []
    run_units(
        [unit],
        {name: _alone(name, network, waited) for name, network in networks.items()},
        _decoder(setup),
        decoders=setup.decoders,
        figures=figures,
        done=results.append,
    )
    for name in figures.models:
        figures.models[name] -= waited[name]
    figures.forward.busy -= sum(waited.values())
    (result,) = results
    return Extracted(result, figures, f"{platform.node()}:{os.getpid()}")


_starting = threading.Lock()
_computing = threading.Lock()
_kept: dict[str, Forward] = {}
_isolated: Isolated | None = None


def _networks(setup: Setup) -> dict[str, Forward]:
    """Return networks by backbone, loaded unless the units before these had them too.

    Those that these units do not need are let go; units of another run that are still in hand hold
    on to theirs.
    """
    global _kept
    here = versions(setup.versions.keys() - {"avfeat"})
    if here != setup.versions:
        raise ClusterError(
            f"worker {platform.node()} has other versions than this process: "
            + ", ".join(
                f"{name} {here[name]}, not {version}"
                for name, version in setup.versions.items()
                if here[name] != version
            )
        )
    with _starting:
        wanted = {model.identity: model for _, model in setup.models}
        kept = {key: network for key, network in _kept.items() if key in wanted}
        _kept = kept  # before others take their memory
        for key, model in wanted.items():
            if key not in kept:
                kept[key] = model.load_elsewhere()
        return {name: kept[model.identity] for name, model in setup.models}


def _alone(name: str, network: Forward, waited: dict[str, float]) -> Forward:
    """One forward pass at a time, though several units are in hand."""

    def run(items: torch.Tensor) -> Callable[[], torch.Tensor]:
        asked = time.perf_counter()
        with _computing:
            waited[name] += time.perf_counter() - asked
            return network(items)

    return run


def _decoder(setup: Setup) -> Decode:
    """Return what decodes; its processes are this process's, for all runs and until it ends."""
    global _isolated
    if not setup.isolate:
        return decode
    with _starting:
        if _isolated is None:
            _isolated = Isolated()
            atexit.register(_isolated.__exit__, None, None, None)
        return _isolated
