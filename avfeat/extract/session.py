"""One ``avfeat extract``: from names to finished stores."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avfeat import datasets
from avfeat.errors import MediaNotFoundError, UsageError
from avfeat.extract import backbones
from avfeat.extract.backbones import Backbone
from avfeat.extract.engine import Listener
from avfeat.extract.media import SAMPLING_RULES
from avfeat.extract.models import models
from avfeat.extract.plan import (
    Plan,
    Settings,
    StoreTask,
    count_rows,
    fill_tasks,
    make_tasks,
    select_clips,
)
from avfeat.extract.run import RunReport, run
from avfeat.extract.threads import computing_with
from avfeat.extract.weights import cache
from avfeat.extract.weights.info import WeightsInfo
from avfeat.manifests.clips import ClipManifest, count_statuses
from avfeat.stores.state import RUNS
from avfeat.words import counted

if TYPE_CHECKING:
    from distributed import Client


def load_manifest(dataset: str, *, data: Path | None, annotations: Path | None) -> ClipManifest:
    """Load a data set's clips and look up their media.

    Parameters
    ----------
    data
        Media folder; None for ``$AVFEAT_DATA/<dataset>``, else ``data/<dataset>``.

    Raises
    ------
    MediaNotFoundError
        If not one clip has media; the message says where it was looked for, and by which names.
    """
    source = datasets.get(dataset)
    if data is None:
        data = Path(os.environ.get("AVFEAT_DATA", "data")) / dataset
    variable = f"$AVFEAT_DATA/{dataset}"
    if data.is_file():
        raise MediaNotFoundError(
            f"cannot read the media folder {data}: it is a file; name its folder, {data.parent}"
        )
    if not data.is_dir():
        raise MediaNotFoundError(
            f"cannot read the media folder {data}: no such folder. It should hold "
            f"{source.searched_names()}; name it with --data DIR, or put it at {variable}"
        )
    manifest = source.load(annotations=annotations, data=data)
    if not manifest.media:
        raise MediaNotFoundError(
            f"no media for {dataset} in {data.absolute()}: looked for {source.searched_names()}; "
            f"name the folder with --data DIR, or put it at {variable}"
        )
    return manifest


def resolve_device(name: str, *, client: Client | None = None) -> str:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:i`` into a device that is there.

    Parameters
    ----------
    client
        Of a cluster, on whose workers it should be; None for here.

    Raises
    ------
    UsageError
        If it is not there, or no such kind of device exists; or the workers have different ones.
    """
    if client is not None:
        from avfeat.extract.cluster import ask

        return ask(client, resolve_device, name, about="--device")
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:0, cuda:1, …")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name} is not there: torch sees "
            f"{counted(torch.cuda.device_count(), 'CUDA device')}; "
            "use --device cpu"
        )
    return name


def cores() -> int:
    """Processors that this process may run on, which a scheduler such as SLURM may have limited."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_decoders(processes: int, *, client: Client | None = None) -> int:
    """Choose how many clips to decode at once: by half the cores, and 8 at most.

    Parameters
    ----------
    processes
        That share the cores of a machine.
    client
        Of a cluster, whose worker with the fewest cores counts; None for here.
    """
    fewest = cores() if client is None else min(client.run(cores).values())
    return max(1, min(8, fewest // 2 // processes))


def check_sampling(rule: str) -> str:
    """Return `rule` if it is one of the sampling rules, else raise UsageError."""
    if rule not in SAMPLING_RULES:
        raise UsageError(f"unknown sampling rule {rule!r}; known: {', '.join(SAMPLING_RULES)}")
    return rule


def check(
    manifest: ClipManifest, chosen: Sequence[Backbone], settings: Settings, *, weights: str
) -> None:
    """Raise for clips, splits or weights that there are not, before anything else is said."""
    select_clips(manifest, settings)
    for backbone in chosen:
        backbones.find_entry(backbone, weights)


def plan_only(
    manifest: ClipManifest, chosen: Sequence[Backbone], settings: Settings, *, weights: str
) -> tuple[Plan, list[dict[str, Any]]]:
    """Make the plan without writing, locking or downloading anything.

    Returns
    -------
    plan, needed
        The plan, and for each backbone what its weights are and whether they are at hand.
    """
    selected = select_clips(manifest, settings)
    infos, needed = [], []
    for backbone in chosen:
        info, record = _peek_weights(backbone, weights)
        infos.append(info)
        needed.append(record)
    tasks = make_tasks(manifest, chosen, infos, settings, keep=False)
    for task, record in zip(tasks, needed, strict=True):
        task.writer.prepare(ignore_weights=not record["at_hand"])
    return fill_tasks(tasks, manifest, settings, selected), needed


def _peek_weights(backbone: Backbone, weights: str) -> tuple[WeightsInfo, dict[str, Any]]:
    """Say what weights a run would use, and whether they are in the cache; fetches nothing."""
    name = backbone.spec.name
    entry = backbones.find_entry(backbone, weights)
    if isinstance(entry, WeightsInfo):
        return entry, {"backbone": name, "weights": weights, "at_hand": True}
    found = backbones.peek_weights(backbone, entry)
    record = {
        "backbone": name,
        "weights": entry.name,
        "at_hand": found is not None,
        **cache.wanted(entry),
    }
    return found or WeightsInfo(source="published", tag=entry.tag), record


def check_threads(plan: Plan, *, client: Client | None = None) -> None:
    """Make sure of the threads that recipes say, here or on the workers of a cluster.

    Raises
    ------
    EngineError
        OpenVINO would compute with fewer; the message says what to do.
    UsageError
        The workers differ in how many.
    """
    wanted = {model.threads for model in models(plan).values() if model.engine == "openvino"}
    if not wanted:
        return
    from avfeat.extract.cluster import ask
    from avfeat.extract.engines import threads

    for count in wanted:
        found = (
            threads.obtainable(count)
            if client is None
            else ask(client, threads.obtainable, count, about="--threads")
        )
        threads.check(count, found)


def choose(
    names: Sequence[str],
    *,
    options: Mapping[str, str] | None = None,
    dataset: str,
    device: str,
) -> list[Backbone]:
    """Return the backbones asked for, each in the variant for the data set and the device.

    Parameters
    ----------
    names, options
        As for `backbones.select`.
    dataset, device
        Names of both, as for `load_manifest` and from `resolve_device`.
    """
    untrimmed = datasets.get(dataset).untrimmed
    kind = device.partition(":")[0]
    return [
        backbone.adapted(untrimmed=untrimmed, device=kind)
        for backbone in backbones.select(names, options=options)
    ]


@contextmanager
def open_plan(
    manifest: ClipManifest,
    chosen: Sequence[Backbone],
    settings: Settings,
    *,
    weights: str,
    downloading: Callable[[str, int, int | None], None] = lambda name, done, total: None,
) -> Iterator[Plan]:
    """Make sure of the weights, lock the stores, and plan; the stores are unlocked at the end.

    Parameters
    ----------
    downloading
        Told the backbone, bytes so far and bytes in all while weights are fetched.

    Raises
    ------
    WeightsError
        If weights cannot be had; nothing was decoded or written by then.
    StoreError
        If a store is busy, of another recipe, or no store.
    """
    selected = select_clips(manifest, settings)
    infos = [
        backbones.resolve_weights(
            backbone, weights, progress=partial(downloading, backbone.spec.name)
        )
        for backbone in chosen
    ]
    with ExitStack() as stack:
        tasks = make_tasks(manifest, chosen, infos, settings)
        for task in tasks:
            task.writer.lock()
            stack.callback(task.writer.close)
        yield fill_tasks(tasks, manifest, settings, selected)


def execute(
    plan: Plan,
    *,
    listener: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
    client: Client | None = None,
) -> RunReport:
    """Run a plan whose stores are locked, and leave a log of the run in each store.

    Stores that do not exist yet are created once every network is loaded. With the `client` of a
    cluster its workers do the work; see `cluster.run_on`. Errors are those of `check_threads` too.
    """
    began = datetime.datetime.now(datetime.UTC)
    check_threads(plan, client=client)
    if client is None:
        with computing_with():  # afterwards as before
            loaded = {name: model.load() for name, model in models(plan).items()}
            for task in plan.tasks:
                task.writer.create()
            report = run(plan, loaded, listener=listener, stop=stop)
    else:
        from avfeat.extract.cluster import check_shared, run_on

        for task in plan.tasks:
            check_shared(task.url)
        for task in plan.tasks:
            task.writer.create()
        report = run_on(client, plan, listener=listener, stop=stop)
    if report.rows:
        for task in plan.tasks:
            _log_run(task, plan, report, began)
    return report


def _log_run(task: StoreTask, plan: Plan, report: RunReport, began: datetime.datetime) -> None:
    """Write runs/<time>.json: all that depends on when and where; no reader needs it."""
    name = f"{RUNS}/{began:%Y%m%dT%H%M%S}-{os.getpid()}.json"
    record = {
        "began": began.isoformat(timespec="seconds"),
        "host": platform.node(),
        "data": str(plan.manifest.data_root),
        "weights_sha256": task.weights.sha256,  # of the file; the recipe has that of the tensors
        "wall_seconds": round(report.wall, 3),
        "stages": _stages(report),
        "forward_seconds": round(report.figures.models.get(task.spec.name, 0.0), 3),
        "clips_decoded": report.figures.clips,
        "threads": task.threads,
        "processes": report.processes,
        "rows_written": report.rows.get(task.spec.name, 0),
        "interrupted": report.interrupted,
        "crashes": report.crashes,
    }
    task.writer.files.write(name, (json.dumps(record, indent=1) + "\n").encode())


def describe_plan(plan: Plan, needed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run would do as plain data; `needed` as from `plan_only`."""
    stores = []
    for task, record in zip(plan.tasks, needed, strict=True):
        rows = sum(count_rows(task.spec, task.writer.clips[index]) for index in task.decode)
        stores.append(
            {
                "store": task.url,
                "backbone": task.spec.name,
                "clips": len(task.decode),
                "units": len(task.units()),
                "unit_clips": task.writer.layout.unit_clips,
                "rows": rows,
                # Features are float32, times float64.
                "bytes": rows * (math.prod(task.spec.row_shape) * 4 + 8),
                "batch_size": task.batch_size,
                "threads": task.threads,
                "engine": {"name": task.choice.engine, "reason": task.choice.reason},
                "weights": record,
            }
        )
    return {
        "dataset": plan.manifest.dataset,
        "clips": len(plan.manifest.clips),
        "selected": len(plan.selected),
        "with_media": len(plan.selected & plan.manifest.media.keys()),
        "to_decode": plan.clips_to_decode,
        "stores": stores,
    }


def describe_run(plan: Plan, report: RunReport) -> dict[str, Any]:
    """Return what a run came to as plain data, with the selected clips that stand as failed."""
    return {
        "stores": [
            {
                "store": task.url,
                "backbone": task.spec.name,
                "row_shape": list(task.spec.row_shape),
                "new_rows": report.rows.get(task.spec.name, 0),
                "counts": count_statuses(task.writer.outcomes),
                "random_weights": task.weights.source == "random",
            }
            for task in plan.tasks
        ],
        "failed": [
            {
                "backbone": task.spec.name,
                "clip": clip.id,
                "kind": outcome.kind,
                "message": outcome.message,
            }
            for task in plan.tasks
            for clip, outcome in zip(task.writer.clips, task.writer.outcomes, strict=True)
            if outcome.status == "failed" and clip.id in plan.selected
        ],
        "clips_decoded": report.figures.clips,
        "seconds": round(report.wall, 3),
        "stages": _stages(report),
        "model_share": round(report.model_share, 4),
        "interrupted": report.interrupted,
    }


def _stages(report: RunReport) -> dict[str, dict[str, float]]:
    """Return the figures of each stage as plain data; seconds are summed over its threads."""
    return {
        name: {
            "items": figures.items,
            "busy_seconds": round(figures.busy, 3),
            "starved_seconds": round(figures.starved, 3),
            "blocked_seconds": round(figures.blocked, 3),
            "queue_fill": round(figures.fill, 4),
        }
        for name, figures in report.figures.stages.items()
    }
