"""``avfeat collocate``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    from rich.console import Console


@click.command()
@click.option("--audio", required=True, help="Audio backbones: names with commas, or 'all'.")
@click.option("--visual", required=True, help="Visual backbones: names with commas, or 'all'.")
@click.option(
    "--motion",
    metavar="NAME|none",
    help="3-D network beside every visual one in trainings.  [default: r2plus1d_18, where its "
    "store is]",
)
@click.option("--dataset", "-d", help="Data set of the stores.  [default: the only one there]")
@click.option(
    "--out",
    "-o",
    default="features",
    show_default=True,
    help="Folder or URL with the stores OUT/<dataset>/<backbone>.",
)
@click.option(
    "--method",
    type=click.Choice(["scores", "proxy", "traverse", "all"]),
    default="scores",
    show_default=True,
    help="scores: no training; proxy: the papers' decoupled search; traverse: train every pair.",
)
@click.option("--scores", help="Names with commas; the first orders the table.  [default: all]")
@click.option(
    "--source",
    help="Split compared from, or all.  [default: train, or the only split there is]",
)
@click.option(
    "--target",
    help="Split compared to, or all; the proxy trains on it.  [default: val, or the only split]",
)
@click.option("--test", default="test", show_default=True, help="Split that traverse judges by.")
@click.option(
    "--directions",
    "-k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Singular vectors compared.",
)
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Of the bootstrap over clips, for intervals of angles; 0 for none, which reads the stores "
    "once instead of twice.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=40, show_default=True, help="Of a training."
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=3e-4,
    show_default=True,
    help="Learning rate of a training; the proxy also tries a third of it, and 3.3 times it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trainings of each pair.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The first.")
@click.option(
    "--diagnostics",
    is_flag=True,
    help="Also the papers' diagnostics of the features; takes several times as long as scores.",
)
@click.option("--halving", is_flag=True, help="Let the proxy stop hopeless pairs early.")
@click.option(
    "--log",
    default="collocation",
    show_default=True,
    help="Folder or URL for the records of trainings: what is there is not repeated.",
)
@click.option("--scheduler", help="Train on the workers of this Dask scheduler, tcp://HOST:PORT.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Train in this many processes.  [default: here]"
)
@click.option("--allow-random", is_flag=True, help="Also take stores of random weights.")
@click.option("--report", metavar="FILE", help="Also write all of it as an HTML page with figures.")
@json_option("collocate", "Everything as JSON on stdout.")
@verbose_option
@quiet_option
@click.pass_context
def collocate(ctx: click.Context, /, **options: Any) -> None:
    """Rank pairs of an audio and a visual backbone.

    Reads feature stores, never media. Scores take no training; the proxy trains on the
    small target split; traverse trains every pair on the source split and judges it on the test
    split. With --method all each cheap answer is held against the traversal.

    \b
    Examples:
      avfeat collocate --audio vggish,openl3 --visual all
      avfeat collocate --audio all --visual senet154,polynet --scores svd,logme
      avfeat collocate --audio vggish,openl3 --visual all --method proxy --seeds 3
      avfeat collocate --audio vggish --visual all --method all --workers 2 --report report.html
    """
    from avfeat import render_collocation as render
    from avfeat.collocate import candidates, session
    from avfeat.collocate.hyper import Hyper, grid_around
    from avfeat.collocate.score_table import SCORES, Options
    from avfeat.collocate_progress import CollocationProgress

    _check_use(ctx, options["method"], diagnostics=options["diagnostics"])
    talk = talk_console(quiet=options["quiet"])
    if options["report"]:
        from avfeat.collocate import report

        report.check_target(options["report"])  # before hours of trainings
    scores = SCORES if options["scores"] is None else _names("--scores", options["scores"])
    chosen = candidates.gather(
        options["out"],
        dataset=options["dataset"],
        audio=_names("--audio", options["audio"]),
        visual=_names("--visual", options["visual"]),
        motion=options["motion"],
        trains=options["method"] != "scores",
        allow_random=options["allow_random"],
    )
    source, target = _splits(options, chosen.splits, talk)
    settings = session.Settings(
        method=options["method"],
        scoring=Options(
            source=source,
            target=target,
            names=tuple(scores),
            k=options["directions"],
            resamples=options["resamples"],
            seed=options["seed"],
        ),
        test=options["test"],
        hyper=Hyper(epochs=options["epochs"], lr=options["lr"]),
        grid=grid_around(options["lr"]),
        seeds=range(options["seed"], options["seed"] + options["seeds"]),
        halving=options["halving"],
        diagnostics=options["diagnostics"],
        log=options["log"],
        allow_random=options["allow_random"],
    )
    client = ctx.with_resource(_cluster(options))
    if options["method"] != "scores":
        from avfeat.extract.session import resolve_device

        device = resolve_device(options["device"], client=client)
        settings = dataclasses.replace(settings, device=device)
    with CollocationProgress(talk).shown() as progress:
        document = session.collocate(
            chosen,
            settings,
            client=client,
            reading=progress.reading,
            epoch=progress.epoch,
            trained=progress.ended,
        )
    if options["as_json"]:
        print_json(document)
    else:
        render.collocation(results_console(), document)
    if options["report"]:
        report.write(document, options["report"], log=options["log"])
        talk.print(f"report: {options['report']}", markup=False)


#: Options of scores, which diagnostics go by too; and of trainings.
_OF_SCORES = ("scores", "directions")
_OF_TRAININGS = ("epochs", "lr", "device", "seeds", "log")


def _check_use(ctx: click.Context, method: str, *, diagnostics: bool) -> None:
    """Refuse options that would change nothing, before any work."""
    from click.core import ParameterSource

    from avfeat.errors import UsageError

    idle: list[str] = []
    if method in ("proxy", "traverse"):
        idle += ["resamples"] if diagnostics else ["resamples", *_OF_SCORES]
    if method == "proxy" and not diagnostics:
        idle += ["source"]
    if method == "scores":
        idle += _OF_TRAININGS
    if method in ("scores", "proxy"):
        idle += ["test"]
    # What a file or the environment says is for all commands.
    given = [name for name in idle if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    if given:
        names = ", ".join(f"--{name}" for name in given)
        raise UsageError(f"{names}: --method {method} has no use for it; see --help")


def _splits(options: dict[str, Any], splits: Sequence[str], talk: Console) -> tuple[str, str]:
    """Choose source and target; of a data set without train and val the only split there is."""
    source, target = options["source"], options["target"]
    if source is None and target is None and len(splits) == 1:
        talk.print(
            f"all clips are in split {splits[0]}: it is source and target, so nothing is compared "
            "between splits",
            markup=False,
        )
        return splits[0], splits[0]
    return source or "train", target or "val"


def _names(option: str, text: str) -> list[str]:
    """Cut names at commas."""
    from avfeat.errors import UsageError

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} {text!r} names nothing: give names with commas between them")
    return names


def _cluster(options: dict[str, Any]) -> Any:
    """Connect to the cluster that was asked for."""
    from contextlib import nullcontext

    from avfeat.errors import UsageError

    workers, scheduler = options["workers"], options["scheduler"]
    if workers and scheduler:
        raise UsageError("--workers starts processes here; leave out --scheduler")
    if not (workers or scheduler):
        return nullcontext()
    if options["method"] == "scores":
        raise UsageError(
            "--workers and --scheduler are for trainings, and --method scores has none"
        )
    from avfeat.extract import cluster

    cluster.check_shared(options["out"])
    return cluster.connected(scheduler) if scheduler else cluster.local(workers, at_once=1)
