"""``avfeat datasets``: what can be extracted, and a synthetic family of stores with known truth."""

from __future__ import annotations

import click

from avfeat.console import (
    json_option,
    print_json,
    quiet_option,
    results_console,
    talk_console,
    verbose_option,
)


@click.group(invoke_without_command=True)
@json_option("datasets", "As JSON on stdout.")
@verbose_option
@click.pass_context
def datasets(ctx: click.Context, as_json: bool, verbose: int) -> None:
    """List the data sets.

    \b
    Examples:
      avfeat datasets
      avfeat datasets --json
      avfeat datasets synthesize --out synthetic-features
    """
    if ctx.invoked_subcommand is not None:
        return
    from avfeat import datasets as registry
    from avfeat import render_catalogue as render

    records = [registry.get(name).describe() for name in registry.names()]
    if as_json:
        print_json(records)
    else:
        render.datasets(results_console(), records)


def _clips(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, int, int]:
    """Read --clips: a total that is shared out as LLP's, or three numbers."""
    from avfeat.datasets.synthetic import like_llp

    try:
        numbers = [int(text) for text in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] >= 3:
        return like_llp(numbers[0])
    if len(numbers) != 3 or min(numbers) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of 3 or more, nor TRAIN,VAL,TEST")
    return numbers[0], numbers[1], numbers[2]


@datasets.command()
@click.option(
    "--out", "-o", required=True, metavar="DIR", help="Stores go to DIR/synthetic/<backbone>."
)
@click.option(
    "--clips",
    default="600,300,400",
    show_default=True,
    callback=_clips,
    metavar="N|TRAIN,VAL,TEST",
    help="Clips of each split; or of all, shared out as LLP's 11849 are (10000, 649, 1200).",
)
@click.option(
    "--width",
    type=click.Choice(["small", "real"]),
    default="small",
    show_default=True,
    help="64 features per row, or as many as the real networks have: 128 to 4096.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Another seed is another draw of clips and features; the truth is the same.",
)
@json_option("datasets_synthesize", "Results as JSON on stdout.")
@verbose_option
@quiet_option
def synthesize(
    out: str,
    clips: tuple[int, int, int],
    width: str,
    seed: int,
    as_json: bool,
    verbose: int,
    quiet: bool,
) -> None:
    """Write feature stores whose best pair of backbones is known.

    LLP-shaped clips that nobody filmed: 25 classes, ten seconds, weak labels, audio and visual
    events in val and test. Their features are drawn for vggish and openl3, five visual networks and
    r2plus1d_18, so that one audio and one visual network belong together that are not the best ones
    alone; DIR/synthetic/truth.json says which. They test methods, such as collocation, and say
    nothing about the networks whose names they bear.

    A seed gives the same bytes anywhere, with one version of numpy. The same command goes on where
    it was stopped, and does nothing where all is there; a folder that holds another family is
    refused (exit code 2). A clip takes 110 kB, at --width real 3.5 MB.

    \b
    Examples:
      avfeat datasets synthesize --out synthetic-features
      avfeat datasets synthesize --out llp-sized --clips 11849
      avfeat datasets synthesize --out wide --clips 100,50,50 --width real --seed 7
    """
    from avfeat.datasets.synthetic import NAME, Family, Width
    from avfeat.datasets.synthetic_stores import TRUTH, size_bytes, write
    from avfeat.progress import ClipProgress
    from avfeat.tables import size, table

    chosen: Width = "real" if width == "real" else "small"
    family = Family(seed=seed, clips=clips, width=chosen)
    talk = talk_console(quiet=quiet)
    talk.print(f"{sum(clips)} clips, {size(size_bytes(family))} of features", markup=False)
    with ClipProgress(talk, sum(clips), verbose=verbose).shown() as shown:
        stores = write(family, out, clip_done=lambda clip: shown.clip_done(clip, {}))
    truth = family.truth()
    place = f"{out.rstrip('/')}/{NAME}/{TRUTH}"
    if as_json:
        keys = ("best_pair", "best_singles", "seed", "clips", "width", "version")
        print_json({**{key: truth[key] for key in keys}, "truth": place, "stores": stores})
        return
    console = results_console()
    columns = ("store", "modality", "clips #", "rows #", "features #")
    shown_keys = ("store", "modality", "clips", "rows", "dim")
    cells = [[one[key] for key in shown_keys] for one in stores]
    table(console, "synthetic stores", columns, cells)
    for what, key in (("best pair", "best_pair"), ("best alone", "best_singles")):
        names = " + ".join(truth[key].values())
        console.print(f"{what}: {names}", soft_wrap=True, markup=False)
    console.print(f"what is true of them: {place}", soft_wrap=True, markup=False)
