"""From a data set and a list of backbones to units of work: what a run will do, before it does it.

A unit is ``unit_clips`` consecutive clips of the manifest: the unit of work, of retry and of
commit. Stores that list the same clips in the same units are extracted together, with one decode
per clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from avfeat.errors import MediaNotFoundError, UnknownNameError, UsageError
from avfeat.extract import engines
from avfeat.extract.backbones import FPS, Backbone, BackboneSpec, VisualInput
from avfeat.extract.threads import default_threads
from avfeat.extract.weights.info import WeightsInfo
from avfeat.manifests.clips import Clip, ClipManifest, Outcome
from avfeat.manifests.recipe import Recipe, library_versions
from avfeat.stores.files import Files
from avfeat.stores.state import peek
from avfeat.stores.writer import StoreWriter
from avfeat.words import counted

_MAX_UNIT_CLIPS = 16
_UNIT_BYTES = 64 * 2**20
_WIDEST_ROW = 4096 * 4


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for; see ``avfeat extract --help``."""

    out: str
    device: str = "cpu"
    engine: str = "auto"
    precision: engines.Precision = "fp32"
    batch_size: int | None = None
    unit_clips: int | None = None
    sampling: str = "on-screen"
    decoders: int = 2
    splits: tuple[str, ...] = ()
    clip_ids: tuple[str, ...] = ()
    limit: int | None = None
    retry_failed: bool = False
    strict: bool = False
    allow_drift: bool = False
    isolate: bool = True
    nvdec: bool = False
    threads: int | None = None  # of each process, for the networks
    processes: int = 1  # that share the cores of a machine


@dataclass(slots=True)
class StoreTask:
    """What is to be done for one store.

    Attributes
    ----------
    backbone, weights, batch_size, choice
        The backbone, its weights, items per forward pass, its engine.
    threads
        Threads that each process computes its rows with, where that is done on a CPU.
    writer
        The store.
    decode
        Indices of clips to decode.
    settle
        Index to outcome, of clips that need no decoding: missing, or badly annotated.
    """

    backbone: Backbone
    weights: WeightsInfo
    batch_size: int
    choice: engines.Choice
    threads: int
    writer: StoreWriter
    decode: set[int] = field(default_factory=set)
    settle: dict[int, Outcome] = field(default_factory=dict)

    @property
    def spec(self) -> BackboneSpec:
        """The backbone's."""
        return self.backbone.spec

    @property
    def url(self) -> str:
        """Path or URL of the store."""
        return self.writer.files.url

    def units(self) -> dict[int, dict[int, Outcome]]:
        """Units with something to do, each with the outcomes that need no decoding."""
        per_unit = self.writer.layout.unit_clips
        units: dict[int, dict[int, Outcome]] = {index // per_unit: {} for index in self.decode}
        for index, outcome in self.settle.items():
            units.setdefault(index // per_unit, {})[index] = outcome
        return units


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run needs to know.

    Attributes
    ----------
    manifest, settings
        The data set and what was asked for.
    tasks
        One per store.
    selected
        Ids of the clips that ``--split``, ``--clip`` and ``--limit`` leave.
    """

    manifest: ClipManifest
    settings: Settings
    tasks: tuple[StoreTask, ...]
    selected: frozenset[str]

    def groups(self) -> Iterator[list[StoreTask]]:
        """Yield the tasks that share clips and units, and so one decode per clip."""
        groups: dict[tuple[int, tuple[str, ...]], list[StoreTask]] = {}
        for task in self.tasks:
            ids = tuple(clip.id for clip in task.writer.clips)
            groups.setdefault((task.writer.layout.unit_clips, ids), []).append(task)
        yield from groups.values()

    @property
    def notes(self) -> list[str]:
        """What stores found to have changed, and whose engine or threads are not the usual."""
        notes = [note for task in self.tasks for note in task.writer.notes]
        notes += [
            f"{task.spec.name} runs in {task.choice.engine}: {task.choice.reason}"
            for task in self.tasks
            if task.choice.fallback
        ]
        for task in self.tasks:
            usual = usual_threads(self.settings, task.choice.engine)
            if task.threads != usual:
                notes.append(
                    f"{task.url} was made with {counted(task.threads, 'thread')} per process, not "
                    f"{usual}, and is gone on with as it was made"
                )
        return list(dict.fromkeys(notes))

    @property
    def clips_to_decode(self) -> int:
        """Number of times a clip will be decoded: once for each group of stores that needs it."""
        return sum(len(set().union(*(task.decode for task in group))) for group in self.groups())


def store_url(out: str, dataset: str, backbone: str) -> str:
    """Where the features of a backbone lie: ``<out>/<dataset>/<backbone>``.

    A colon, as in ``timm:resnet18``, becomes an underscore: it means something in URLs.
    """
    return f"{out.rstrip('/')}/{dataset}/{backbone.replace(':', '_')}"


def count_rows(spec: BackboneSpec, clip: Clip) -> int:
    """Rows a clip will have; 0 where its length is not known."""
    return spec.rows(clip.seconds) if math.isfinite(clip.seconds) else 0


def make_tasks(
    manifest: ClipManifest,
    backbones: Sequence[Backbone],
    weights: Sequence[WeightsInfo],
    settings: Settings,
    *,
    keep: bool = True,
) -> tuple[StoreTask, ...]:
    """Make one task per store, its writer neither prepared nor opened.

    `keep` says whether what was found out of networks may be written to the cache.
    """
    if not manifest.clips:
        raise UsageError(f"the data set {manifest.dataset!r} has no clips")
    urls = [store_url(settings.out, manifest.dataset, b.spec.name) for b in backbones]
    stored = [peek(Files(url)) for url in urls]
    # A new store takes after the ones beside it, so that they can share their decoding.
    default = next((one.layout.unit_clips for one in stored if one), auto_unit_clips(manifest))
    tasks = []
    for backbone, info, url, own in zip(backbones, weights, urls, stored, strict=True):
        spec = backbone.spec
        unit_clips = settings.unit_clips or (own.layout.unit_clips if own else default)
        batch_size = settings.batch_size or spec.batch_size(settings.device.partition(":")[0])
        choice = engines.choose(
            backbone,
            settings.engine,
            device=settings.device,
            batch_size=batch_size,
            stored=own.recipe.compute.get("engine") if own else None,
            keep=keep,
        )
        recorded = own.recipe.compute.get("threads") if own else None
        threads = settings.threads or recorded or usual_threads(settings, choice.engine)
        # A store from before threads were recorded goes on without, unless they are asked for.
        unrecorded = own is not None and recorded is None and settings.threads is None
        writer = StoreWriter(
            url,
            recipe=make_recipe(
                backbone,
                info,
                settings,
                engine=choice.engine,
                batch_size=batch_size,
                unit_clips=unit_clips,
                threads=None if unrecorded else threads,
            ),
            sources={"weights": info.to_dict(), "paper": spec.paper},
            manifest=manifest,
            rows=lambda clip, spec=spec: count_rows(spec, clip),  # type: ignore[misc]
            dim=spec.dim,
            map=spec.map,
            unit_clips=unit_clips,
            allow_drift=settings.allow_drift,
        )
        tasks.append(StoreTask(backbone, info, batch_size, choice, threads, writer))
    return tuple(tasks)


def usual_threads(settings: Settings, engine: str) -> int:
    """Threads of each process where no store says how many."""
    if settings.threads is not None:
        return settings.threads
    threads = default_threads(settings.processes)
    if engine == "openvino":
        from avfeat.extract.engines.threads import obtainable

        return obtainable(threads)
    return threads


def auto_unit_clips(manifest: ClipManifest) -> int:
    """Choose clips per unit: 16, or fewer so that the rows of a unit of long clips stay small.

    Depends on the data set alone, so that all backbones share units.
    """
    longest = max((c.seconds for c in manifest.clips if math.isfinite(c.seconds)), default=0.0)
    clip_bytes = max(1.0, longest * FPS * _WIDEST_ROW)
    return max(1, min(_MAX_UNIT_CLIPS, int(_UNIT_BYTES / clip_bytes)))


def make_recipe(
    backbone: Backbone,
    weights: WeightsInfo,
    settings: Settings,
    *,
    engine: str,
    batch_size: int,
    unit_clips: int,
    threads: int | None = None,
) -> Recipe:
    """Write down everything that can change a number in a row of `backbone`.

    `threads` is what each process computes with; None leaves it out, as the first recipes did.
    """
    spec = backbone.spec
    wanted = spec.input
    sampling = (
        {"rule": wanted.rule or settings.sampling, "fps": wanted.fps}
        if isinstance(wanted, VisualInput)
        else {"downmix": "mean", "resampler": "soxr-hq"}
    )
    nvdec = settings.nvdec and isinstance(wanted, VisualInput)
    if nvdec:
        sampling["decoder"] = "nvdec"
    compute = {
        "engine": engine,
        "device": settings.device.partition(":")[0],
        "precision": settings.precision,
        "batch_size": batch_size,
    }
    if compute["device"] == "cuda":
        compute["layout"] = "channels-last"
    elif threads is not None:
        compute["threads"] = threads
    beside = [*backbone.packages]
    if engine != "torch":
        beside.append(engine)
    if nvdec:
        beside.append("torchcodec")
    return Recipe(
        backbone=spec.recipe(),
        weights={
            "source": weights.source,
            "tag": weights.tag,
            "sha256": weights.tensors,  # not of the file: mirrors serve other bytes
            "seed": weights.seed,
            "method": weights.method,
        },
        sampling=sampling,
        compute=compute,
        store={"dtype": "float32", "unit_clips": unit_clips},
        libraries=library_versions(spec.modality, beside=beside),
    )


def select_clips(manifest: ClipManifest, settings: Settings) -> frozenset[str]:
    """Apply ``--split``, ``--clip`` and ``--limit``.

    ``--limit N`` keeps the first N clips whose media is there.

    Raises
    ------
    UnknownNameError
        A split or clip the data set does not have.
    MediaNotFoundError
        With ``--strict``, if not all of them have media.
    """
    known_splits = {clip.split for clip in manifest.clips}
    for split in settings.splits:
        if split not in known_splits:
            raise UnknownNameError("split", split, known_splits)
    known_ids = {clip.id for clip in manifest.clips}
    for clip_id in settings.clip_ids:
        if clip_id not in known_ids:
            raise UnknownNameError("clip", clip_id, known_ids)
    chosen = [
        clip.id
        for clip in manifest.clips
        if (not settings.splits or clip.split in settings.splits)
        and (not settings.clip_ids or clip.id in settings.clip_ids)
    ]
    absent = [clip_id for clip_id in chosen if clip_id not in manifest.media]
    if settings.strict and absent:
        raise MediaNotFoundError(
            f"--strict: {len(absent)} of {len(chosen)} clips have no media in "
            f"{manifest.data_root}, such as {', '.join(absent[:5])}"
        )
    if settings.limit is not None:
        chosen = [clip_id for clip_id in chosen if clip_id in manifest.media][: settings.limit]
    return frozenset(chosen)


def fill_tasks(
    tasks: Sequence[StoreTask],
    manifest: ClipManifest,
    settings: Settings,
    selected: frozenset[str],
) -> Plan:
    """Decide for every clip of every store what is to be done; the writers are prepared or open."""
    for task in tasks:
        for index, (clip, outcome) in enumerate(
            zip(task.writer.clips, task.writer.outcomes, strict=True)
        ):
            if clip.id in selected:
                _decide(task, index, clip, outcome, manifest, retry=settings.retry_failed)
    return Plan(manifest, settings, tuple(tasks), selected)


def _decide(
    task: StoreTask,
    index: int,
    clip: Clip,
    outcome: Outcome,
    manifest: ClipManifest,
    *,
    retry: bool,
) -> None:
    open_ = outcome.status in ("pending", "missing") or (outcome.status == "failed" and retry)
    if not open_:
        return
    if clip.problem is not None:
        settled = Outcome("failed", "bad_annotation", clip.problem)
    elif clip.id in manifest.media:
        task.decode.add(index)
        return
    elif outcome.status == "failed":
        return
    else:
        settled = Outcome("missing")
    if settled != outcome:
        task.settle[index] = settled
