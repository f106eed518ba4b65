"""The ``avfeat`` command. Thin: options in, one call, tables out; heavy imports inside commands."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avfeat import __version__, config
from avfeat.backbones_cli import backbones
from avfeat.console import (
    json_option,
    print_json,
    quiet_option,
    results_console,
    talk_console,
    verbose_option,
)
from avfeat.errors import AvfeatError
from avfeat.weights_cli import weights

if TYPE_CHECKING:
    from avfeat.extract.plan import Settings

_EXISTING_DIR = click.Path(path_type=Path)


class _Group(click.Group):
    """Turns errors into one message and the exit code of their class."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the traceback shows with -v alone."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except AvfeatError as error:
            _report(ctx, f"error: {error}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            _report(ctx, "stopped at once; the same command goes on where it was")
            ctx.exit(130)
        except Exception as error:  # noqa: BLE001 - the last frame before the user
            _report(ctx, f"crash: {type(error).__name__}: {error}\n(-v shows where)")
            ctx.exit(1)


def _report(ctx: click.Context, message: str) -> None:
    if ctx.meta.get("avfeat.verbose", 0):
        click.echo(traceback.format_exc(), err=True)
    click.echo(f"avfeat: {message}", err=True)


@click.group(
    cls=_Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": config.ENVIRONMENT,
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="avfeat")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Audio-visual data sets in, traceable feature stores out.

    \b
    Examples:
      avfeat demo
      avfeat extract --backbone senet154 --dataset llp --data /media/llp
      avfeat inspect features/llp/senet154
      avfeat verify features
    """
    known = {
        name: {
            max(parameter.opts, key=len).lstrip("-").replace("-", "_"): config.Option(
                str(parameter.name), parameter.multiple
            )
            for parameter in command.params
            if isinstance(parameter, click.Option)
        }
        for name, command in cli.commands.items()
    }
    ctx.default_map = config.load(known)


@cli.command()
@click.option(
    "--backbone",
    "-b",
    multiple=True,
    required=True,
    help="Name, comma list or 'all'; may be repeated. See `avfeat backbones`.",
)
@click.option("--dataset", "-d", required=True, help="llp, or folder for any folder of videos.")
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
    "--workers",
    type=click.IntRange(min=1),
    help="Clips decoded at once.  [default: by the number of cores]",
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
    """Extract features of a data set's clips with one or more backbones.

    Each clip is opened and decoded once for all backbones. Run the same command again to go on
    after an interruption, or when more media has arrived: rows that are there keep their bytes.

    \b
    Examples:
      avfeat extract -b senet154 -d llp --data /media/llp
      avfeat extract -b vggish,resnet152,r2plus1d_18 -d llp --split test
      avfeat extract -b resnet152.map,openl3.music,timm:vit_small_patch16_224 -d llp
      avfeat extract -b all -d folder --data ~/videos --dry-run
    \b
    Exit codes: 0 done; 1 crash; 2 wrong use or refused; 3 done, but clips failed;
    130/143 interrupted after the unit in hand.
    """
    from avfeat import datasets, render
    from avfeat.extract import session
    from avfeat.interrupt import stoppable
    from avfeat.progress import ClipProgress, DownloadProgress

    talk = talk_console(quiet=options["quiet"])
    settings = _settings(
        options, session, default_sampling=datasets.get(options["dataset"]).sampling
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
    for note in manifest.notes:
        talk.print(f"note: {note}", markup=False)
    weights = options["weights"]
    if weights.partition(":")[0] == "random":
        talk.print("warning: random weights: these are not real features", style="yellow")
    if options["dry_run"]:
        plan, needed = session.plan_only(manifest, chosen, settings, weights=weights)
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
            f"{total} clips to extract of {len(plan.selected)} selected, "
            f"{len(chosen)} backbones, {settings.device}, {settings.sampling} sampling",
            markup=False,
        )
        progress = ClipProgress(talk, total, verbose=options["verbose"])
        with (
            progress.shown(),
            stoppable(lambda text: talk.print(text, style="yellow", markup=False)) as stop,
        ):
            report = session.execute(plan, listener=progress, stop=stop)
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


def _settings(options: dict[str, Any], session: Any, *, default_sampling: str) -> Settings:
    from avfeat.errors import UsageError
    from avfeat.extract.engines import check_precision
    from avfeat.extract.plan import Settings

    batch_size = options["batch_size"]
    device = session.resolve_device(options["device"])
    if batch_size != "auto" and not (batch_size.isdigit() and int(batch_size) > 0):
        raise UsageError(f"--batch-size {batch_size!r}: neither auto nor a positive number")
    return Settings(
        out=options["out"],
        device=device,
        engine=options["engine"],
        precision=check_precision(options["precision"], device=device),
        batch_size=None if batch_size == "auto" else int(batch_size),
        unit_clips=options["unit_clips"],
        sampling=session.check_sampling(options["sampling"] or default_sampling),
        workers=options["workers"] or max(1, min(8, (os.cpu_count() or 1) // 2)),
        splits=options["split"],
        clip_ids=options["clip"],
        limit=options["limit"],
        retry_failed=options["retry_failed"],
        strict=options["strict"],
        allow_drift=options["allow_drift"],
        isolate=options["isolate"],
    )


@cli.command()
@click.argument("path")
@json_option("inspect", "As JSON on stdout.")
@verbose_option
def inspect(path: str, as_json: bool, verbose: int) -> None:
    """Say what a store holds and how it was made.

    PATH is a store, or a folder of stores (--json is then a list).

    \b
    Examples:
      avfeat inspect features/llp/senet154
      avfeat inspect features --json
    """
    from avfeat import render
    from avfeat.stores.summary import find_stores, summarise

    stores = find_stores(path)
    summaries = [summarise(store) for store in stores]
    if as_json:
        print_json(summaries[0] if stores == [path] else summaries)
        return
    for summary in summaries:
        render.store(results_console(), summary)


@cli.command()
@click.argument("path")
@json_option("verify", "As JSON on stdout.")
@verbose_option
@click.pass_context
def verify(ctx: click.Context, path: str, as_json: bool, verbose: int) -> None:
    """Check every byte of a store against the digests it was written with.

    PATH is a store, or a folder of stores (--json is then a list). Exit code 4 if anything is
    wrong.

    \b
    Examples:
      avfeat verify features/llp/senet154
      avfeat verify features
    """
    import dataclasses

    from avfeat import render
    from avfeat.stores.summary import find_stores
    from avfeat.stores.verify import verify as verify_store

    stores = find_stores(path)
    reports = [verify_store(store) for store in stores]
    if as_json:
        documents = [{**dataclasses.asdict(report), "ok": report.ok} for report in reports]
        print_json(documents[0] if stores == [path] else documents)
    else:
        for report in reports:
            render.verified(results_console(), report)
    ctx.exit(0 if all(report.ok for report in reports) else 4)


@cli.command()
@json_option("datasets", "As JSON on stdout.")
@verbose_option
def datasets(as_json: bool, verbose: int) -> None:
    """List the data sets."""
    from avfeat import datasets as registry
    from avfeat import render

    records = [registry.get(name).describe() for name in registry.names()]
    if as_json:
        print_json(records)
    else:
        render.datasets(results_console(), records)


@cli.command()
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("avfeat-demo"),
    show_default=True,
    help="Folder for clips, features and pictures.",
)
@verbose_option
@quiet_option
@click.pass_context
def demo(ctx: click.Context, out: Path, verbose: int, quiet: bool) -> None:
    """Show the main job on six synthetic clips: extract, inspect, verify, draw.

    Uses vggish, resnet152 and r2plus1d_18 with their published weights where these can be had,
    else with random ones. Takes a few minutes on a laptop.
    """
    from avfeat.demo import run_demo

    ctx.exit(run_demo(out, talk_console(quiet=quiet)))


cli.add_command(backbones)
cli.add_command(weights)


def main() -> None:
    """Run the command line; the console script's entry point."""
    cli(prog_name="avfeat")


if __name__ == "__main__":
    main()
