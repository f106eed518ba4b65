"""Units of work: everything a worker needs to extract one unit of clips, wherever it runs.

Nothing here holds an open file, a lock or a network, so that units can be sent to other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from avfeat.extract.backbones import BackboneSpec
from avfeat.extract.decode import ClipJob
from avfeat.extract.plan import Plan, StoreTask
from avfeat.manifests.clips import Outcome
from avfeat.stores.ledger import LedgerEntry
from avfeat.stores.unit import UnitWriter


@dataclass(frozen=True, slots=True)
class UnitStore:
    """One store's share in a unit.

    Attributes
    ----------
    spec, batch_size
        The backbone, and items per forward pass.
    writer
        The unit in the store.
    settled
        Position in the unit to outcome, of clips that need no decoding.
    """

    spec: BackboneSpec
    batch_size: int
    writer: UnitWriter
    settled: dict[int, Outcome]


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive clips, decoded once for all stores that share the unit.

    Attributes
    ----------
    number
        Of the unit in its stores.
    stores
        By name of the backbone.
    clips
        Position in the unit and what to decode, in order.
    """

    number: int
    stores: dict[str, UnitStore]
    clips: tuple[tuple[int, ClipJob], ...]


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A unit that was committed to every store.

    Attributes
    ----------
    number
        Of the unit.
    entries
        Name of the backbone to what its store's ledger now holds.
    rows
        Name of the backbone to rows of the clips this run settled.
    crashes
        Clip id to the traceback of an error nobody foresaw.
    """

    number: int
    entries: dict[str, LedgerEntry]
    rows: dict[str, int]
    crashes: dict[str, str] = field(default_factory=dict)


def units(plan: Plan, tasks: list[StoreTask]) -> Iterator[Unit]:
    """Yield the units with something to do, of stores that share clips: a group of `Plan`."""
    work = {task.spec.name: task.units() for task in tasks}
    for number in sorted(set().union(*work.values())):
        mine = [task for task in tasks if number in work[task.spec.name]]
        span = mine[0].writer.layout.unit_range(number)
        stores = {
            task.spec.name: UnitStore(
                task.spec,
                task.batch_size,
                task.writer.unit(number),
                {
                    index - span.start: outcome
                    for index, outcome in work[task.spec.name][number].items()
                },
            )
            for task in mine
        }
        clips = tuple(
            (index - span.start, _job(plan, mine, index))
            for index in span
            if any(index in task.decode for task in mine)
        )
        yield Unit(number, stores, clips)


def _job(plan: Plan, tasks: list[StoreTask], index: int) -> ClipJob:
    clip = tasks[0].writer.clips[index]
    path = plan.manifest.media[clip.id]
    return ClipJob(
        clip,
        path.absolute(),
        path.relative_to(plan.manifest.data_root).as_posix(),
        tuple(task.spec for task in tasks if index in task.decode),
        plan.settings.sampling,
        device=plan.settings.device,
        nvdec=plan.settings.nvdec,
    )
