"""``avfeat extract``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avfeat.console import (
    json_option,
    print_json,
    quiet_option,
    results_console,
    talk_console,
    verbose_option,
)

if TYPE_CHECKING:
    from distributed import Client

    from avfeat.extract.plan import Settings

_EXISTING_DIR = click.Path(path_type=Path)


@click.command()
@click.option(
    "--backbone",
    "-b",
    multiple=True,
    required=True,
    help="Name, comma list or 'all'; may be repeated. See `avfeat backbones`.",
)
@click.option("--dataset", "-d", required=True, help="Its name. See `avfeat datasets`.")
@click.option(
    "--data",
    type=_EXISTING_DIR,
    help="Media folder.  [default: $AVFEAT_DATA/<dataset>, else data/<dataset>]",
)
@click.option(
    "--annotations",
    type=_EXISTING_DIR,
    help="Folder with the official annotation files.  [default: fetched once]",
)
@click.option(
    "--out",
    "-o",
    default="features",
    show_default=True,
    help="Stores go to OUT/<dataset>/<backbone>.",
)
@click.option("--split", multiple=True, help="Only clips of this split; may be repeated.")
@click.option("--clip", multiple=True, metavar="ID", help="Only this clip; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N clips that have media.")
@click.option(
    "--weights",
    default="published",
    show_default=True,
    help="published, a tag, or random[:SEED] (not real features).",
)
@click.option(
    "--sampling", help="Frames: avvp, on-screen, center or ave.  [default: the data set's]"
)
@click.option(
    "--pool",
    type=click.Choice(["second"]),
    help="Average the rows of each second, where there is one per frame (stores of their own).",
)
@click.option(
    "--audio-rate",
    type=click.Choice(["16000", "48000"]),
    help="openl3: 16000 takes its 48 kHz from sound at 16 kHz (a store of its own).",
)
@click.option(
    "--batch-size", default="auto", show_default=True, help="Items per forward pass, or auto."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "openvino"]),
    default="auto",
    show_default=True,
    help="What runs the networks; auto is openvino on a CPU where it is installed, else torch.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="fp32 and, where the processor has it, bf16; on CUDA tf32 and fp16 too.",
)
@click.option(
    "--nvdec",
    is_flag=True,
    help="Decode video on the GPU too, by torchcodec (another recipe; see docs/decisions.md).",
)
@click.option(
    "--decoders",
    type=click.IntRange(min=1),
    help="Clips decoded at once; a worker decodes so many of each of the two units that it has in "
    "hand.  [default: by the number of cores, of workers the fewest]",
)
@click.option(
    "--cluster",
    type=click.Choice(["local"]),
    help="Extract in worker processes of this machine, through Dask.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="With --cluster: how many.  [default: 1]"
)
@click.option("--gpus", help="With --cluster: numbers of the GPUs to share out, such as 0,1.")
@click.option("--scheduler", help="Extract on the workers of this Dask scheduler, tcp://HOST:PORT.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads per process for the networks.  [default: a store's own number; else the cores, "
    "shared out among --workers]",
)
@click.option(
    "--isolate/--no-isolate",
    default=True,
    help="Decode in processes of their own: a file that crashes or hangs FFmpeg costs one clip."
    "  [default: isolate]",
)
@click.option(
    "--unit-clips",
    type=click.IntRange(min=1),
    help="Clips per unit of work and commit.  [default: 16; fewer for long clips]",
)
@click.option("--retry-failed", is_flag=True, help="Also do the clips again that failed before.")
@click.option("--strict", is_flag=True, help="Clips without media are an error.")
@click.option(
    "--allow-drift",
    is_flag=True,
    help="Go on in a store made with other library versions (recorded).",
)
@click.option("--profile", is_flag=True, help="Say what each stage of the pipeline took.")
@click.option("--dry-run", is_flag=True, help="Print the plan; write and fetch nothing.")
@json_option("extract", "Results as JSON on stdout.")
@verbose_option
@quiet_option
@click.pass_context
def extract(ctx: click.Context, /, **options: Any) -> None:
    """Extract features of a data set's clips.

    With one or more backbones: each clip is opened and decoded once for all. Run the same command
    again to go on after an interruption, or when more media has arrived: rows that are there keep
    their bytes.

    \b
    Examples:
      avfeat extract -b senet154 -d llp --data /media/llp
      avfeat extract -b vggish,resnet152,r2plus1d_18 -d llp --split test
      avfeat extract -b resnet152.map,openl3.music,timm:vit_small_patch16_224 -d llp
      avfeat extract -b all -d folder --data ~/videos --dry-run
      avfeat extract -b senet154 -d llp --cluster local --workers 2 --gpus 0,1
      avfeat extract -b senet154 -d llp --scheduler tcp://head:8786 -o s3://lab/features
    \b
    Exit codes: 0 done; 1 crash; 2 wrong use or refused; 3 done, but clips failed;
    130/143 interrupted after the unit in hand (of a cluster: those in hand).
    """
    from avfeat import datasets, render
    from avfeat.extract import session
    from avfeat.interrupt import stoppable
    from avfeat.progress import ClipProgress, DownloadProgress
    from avfeat.words import counted

    talk = talk_console(quiet=options["quiet"])
    client = ctx.with_resource(_cluster(options))
    settings = _settings(
        options,
        _device(options, client=client),
        default_sampling=datasets.get(options["dataset"]).sampling,
        client=client,
    )
    chosen = session.choose(
        ",".join(options["backbone"]).split(","),
        options=_asked(options),
        dataset=options["dataset"],
        device=settings.device,
    )
    manifest = session.load_manifest(
        options["dataset"], data=options["data"], annotations=options["annotations"]
    )
    session.check(manifest, chosen, settings, weights=options["weights"])
    for note in manifest.notes:
        talk.print(f"note: {note}", markup=False)
    weights = options["weights"]
    if weights.partition(":")[0] == "random":
        talk.print("warning: random weights: these are not real features", style="yellow")
    if options["dry_run"]:
        plan, needed = session.plan_only(manifest, chosen, settings, weights=weights)
        session.check_threads(plan, client=client)
        summary = session.describe_plan(plan, needed)
        if options["as_json"]:
            print_json(summary)
        else:
            render.plan(results_console(), summary)
        return
    fetching = DownloadProgress(talk)
    with session.open_plan(
        manifest, chosen, settings, weights=weights, downloading=fetching
    ) as plan:
        for note in plan.notes:
            talk.print(f"note: {note}")
        total = plan.clips_to_decode
        talk.print(
            f"{counted(total, 'clip')} to extract of {len(plan.selected)} selected, "
            f"{counted(len(chosen), 'backbone')}, {settings.device}, {settings.sampling} sampling",
            markup=False,
        )
        progress = ClipProgress(talk, total, verbose=options["verbose"])
        with (
            progress.shown(),
            stoppable(lambda text: talk.print(text, style="yellow", markup=False)) as stop,
        ):
            report = session.execute(plan, listener=progress, stop=stop, client=client)
        result = session.describe_run(plan, report)
    if options["as_json"]:
        print_json(result)
    else:
        render.run(results_console(), result)
        if options["profile"]:
            render.stages(results_console(), result)
    if report.interrupted:
        ctx.exit(stop.exit_code)
    ctx.exit(3 if result["failed"] else 0)


def _asked(options: dict[str, Any]) -> dict[str, str]:
    """Return the backbone options that flags stand for, with the flags as they were given."""
    asked = {}
    if (pool := options["pool"]) is not None:
        asked[pool] = f"--pool {pool}"
    if (rate := options["audio_rate"]) is not None:
        asked[f"{int(rate) // 1000}k"] = f"--audio-rate {rate}"
    return asked


@contextmanager
def _cluster(options: dict[str, Any]) -> Iterator[Client | None]:
    """Connect to the cluster that was asked for, if one was; start none for a dry run."""
    from avfeat.errors import UsageError

    here, there = options["cluster"], options["scheduler"]
    if here and there:
        raise UsageError("--cluster local starts a scheduler of its own; leave out --scheduler")
    for flag in ("workers", "gpus"):
        if options[flag] and not here:
            raise UsageError(f"--{flag} goes with --cluster local")
    gpus = _gpus(options)
    if not all(gpu.strip().isdigit() for gpu in gpus):
        raise UsageError(f"--gpus {options['gpus']!r}: numbers with commas are wanted, such as 0,1")
    if gpus and options["device"].partition(":")[0] == "cpu":
        raise UsageError("--gpus shares out GPUs; leave it out with --device cpu")
    if not (here or there):
        yield None
        return
    from avfeat.extract import cluster

    cluster.check_shared(options["out"])
    started: AbstractContextManager[Client | None] = nullcontext()
    if there:
        started = cluster.connected(there)
    elif not options["dry_run"]:
        started = cluster.local(_processes(options), gpus=[int(gpu) for gpu in gpus])
    with started as client:
        yield client


def _gpus(options: dict[str, Any]) -> list[str]:
    return options["gpus"].split(",") if options["gpus"] else []


def _processes(options: dict[str, Any]) -> int:
    """Processes of this machine that extract."""
    return options["workers"] or len(_gpus(options)) or 1


def _device(options: dict[str, Any], *, client: Client | None) -> str:
    """Return the device to run on, which is there; but the GPUs of a dry run may be elsewhere."""
    from avfeat.extract.session import resolve_device

    device = options["device"]
    if options["gpus"] and device in ("auto", "cuda"):
        device = "cuda"
        if options["dry_run"]:
            return device
    return resolve_device(device, client=client)


def _settings(
    options: dict[str, Any], device: str, *, default_sampling: str, client: Client | None
) -> Settings:
    from avfeat.errors import UsageError
    from avfeat.extract.engines import check_precision
    from avfeat.extract.media.hardware import check_available
    from avfeat.extract.plan import Settings
    from avfeat.extract.session import check_sampling, default_decoders

    checks: list[tuple[str, partial[Any]]] = [
        ("--precision", partial(check_precision, options["precision"], device=device))
    ]
    if options["nvdec"]:
        checks.append(("--nvdec", partial(check_available, device)))
    for flag, check in checks:
        if client is None:
            check()
        else:
            from avfeat.extract.cluster import ask

            ask(client, check, about=flag)
    batch_size = options["batch_size"]
    if batch_size != "auto" and not (batch_size.isdigit() and int(batch_size) > 0):
        raise UsageError(f"--batch-size {batch_size!r}: neither auto nor a positive number")
    return Settings(
        out=options["out"],
        device=device,
        engine=options["engine"],
        precision=options["precision"],
        batch_size=None if batch_size == "auto" else int(batch_size),
        unit_clips=options["unit_clips"],
        sampling=check_sampling(options["sampling"] or default_sampling),
        decoders=options["decoders"] or default_decoders(_processes(options), client=client),
        splits=options["split"],
        clip_ids=options["clip"],
        limit=options["limit"],
        retry_failed=options["retry_failed"],
        strict=options["strict"],
        allow_drift=options["allow_drift"],
        isolate=options["isolate"],
        nvdec=options["nvdec"],
        threads=options["threads"],
        processes=_processes(options),
    )
