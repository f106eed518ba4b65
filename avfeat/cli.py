"""The ``avfeat`` command. Thin: options in, one call, tables out; heavy imports inside commands."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import click

from avfeat import __version__, config
from avfeat.backbones_cli import backbones
from avfeat.collocate_cli import collocate
from avfeat.console import (
    json_option,
    print_json,
    quiet_option,
    results_console,
    talk_console,
    verbose_option,
)
from avfeat.datasets_cli import datasets
from avfeat.errors import AvfeatError
from avfeat.extract_cli import extract
from avfeat.weights_cli import weights

#: Commands that find what they did before.
_GOES_ON = ("extract", "demo", "fetch", "synthesize", "collocate")


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
            again = ctx.meta.get("avfeat.command") in _GOES_ON
            _report(ctx, "stopped" + ("; the same command goes on where it was" if again else ""))
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
      avfeat collocate --audio vggish,openl3 --visual all
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
    """Check every byte of a store.

    All files are compared with the digests they were written with. PATH is a store, or a folder of
    stores (--json is then a list). Exit code 4 if anything is wrong.

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
    """Show the main job on three synthetic clips.

    Extracts, inspects, verifies, draws and collocates, with vggish, resnet152 and r2plus1d_18: with
    their published weights (630 MiB) where these can be had, else with random ones. Takes a few
    minutes on a CPU; Ctrl-C stops it after the unit in hand, and the same command goes on.
    """
    from avfeat.demo import run_demo

    ctx.exit(run_demo(out, talk_console(quiet=quiet)))


cli.add_command(extract)
cli.add_command(collocate)
cli.add_command(backbones)
cli.add_command(weights)
cli.add_command(datasets)


def main() -> None:
    """Run the command line; the console script's entry point."""
    cli(prog_name="avfeat")


if __name__ == "__main__":
    main()
