"""Which engine runs a backbone, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from avfeat.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from avfeat.extract.backbones.base import Backbone

ENGINES = ("torch", "openvino")
"""Names of the engines."""

_INSTALL = "pip install 'avfeat[openvino]'"


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine.

    Parameters
    ----------
    engine
        One of `ENGINES`.
    reason
        Why this one, in words for a plan.
    fallback
        Whether another one was preferred and cannot run the network.
    """

    engine: str
    reason: str
    fallback: bool = False


def installed() -> bool:
    """Whether OpenVINO can be imported."""
    try:
        import openvino  # noqa: F401 - looked for
    except ImportError:
        return False
    return True


def resolve(name: str, *, device: str) -> Choice:
    """Turn ``auto``, or the name of an engine, into an engine that runs on a device.

    Parameters
    ----------
    name
        ``"auto"``, ``"torch"`` or ``"openvino"``. ``auto`` is OpenVINO on a CPU where it is
        installed, else torch.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:i"``.

    Raises
    ------
    UnknownNameError
        There is no such engine.
    UsageError
        It does not run on the device, or is not installed; the message says what to do.
    """
    if name not in (*ENGINES, "auto"):
        raise UnknownNameError("engine", name, (*ENGINES, "auto"))
    kind = device.partition(":")[0]
    if name == "torch":
        return Choice("torch", "asked for")
    if name == "openvino":
        if kind != "cpu":
            raise UsageError(
                f"--engine openvino runs on the CPU, not on {kind}; use --device cpu or --engine "
                "torch"
            )
        if not installed():
            raise UsageError(
                f"--engine openvino: OpenVINO is not installed; {_INSTALL}, or use --engine torch"
            )
        return Choice("openvino", "asked for")
    if kind != "cpu":
        return Choice("torch", f"the device is {kind}")
    if not installed():
        return Choice("torch", f"OpenVINO, which is faster, is not installed: {_INSTALL}")
    return Choice("openvino", "the fastest that is installed")


def choose(
    backbone: Backbone,
    name: str,
    *,
    device: str,
    batch_size: int,
    stored: str | None = None,
    keep: bool = True,
) -> Choice:
    """Choose the engine of one backbone, and of one store.

    Parameters
    ----------
    backbone
        What is to be run.
    name, device
        As for `resolve`.
    batch_size
        Items per forward pass.
    stored
        Engine of the store that is to be continued. ``auto`` takes it where it can, so that a
        package which was installed since does not stop a run from being resumed.
    keep
        Whether what was found out of a network may be written to the cache.

    Raises
    ------
    UsageError
        As of `resolve`; or OpenVINO was asked for by name and cannot run the network.
    """
    found = resolve(name, device=device)
    if name == "auto" and stored == "torch" and found.engine == "openvino":
        return Choice("torch", "the store was made with it")
    if found.engine == "openvino":
        from avfeat.extract.engines.trial import refusal

        reason = refusal(backbone, batch_size=batch_size, keep=keep)
        if reason is not None and name == "openvino":
            raise UsageError(
                f"--engine openvino cannot run {backbone.spec.name}: {reason}; use --engine torch"
            )
        if reason is not None:
            return Choice("torch", f"OpenVINO cannot run it: {reason}", fallback=True)
    return found
