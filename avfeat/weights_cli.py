"""``avfeat weights``: published weights listed, fetched, verified, imported. Thin, as cli.py is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from avfeat.console import (
    json_option,
    print_json,
    quiet_option,
    results_console,
    talk_console,
    verbose_option,
)
from avfeat.errors import AvfeatError


@click.group()
def weights() -> None:
    """List, fetch, verify and import published weights.

    NAME is a backbone (its default weights), a backbone with a tag, or any name that `list` shows.
    Files are kept in $AVFEAT_CACHE (else the XDG cache) under their hashes. AVFEAT_OFFLINE=1 or
    HF_HUB_OFFLINE=1 forbids every connection. Networks that were prepared for OpenVINO lie beside
    weights, in prepared/; that folder may be deleted whenever no run is starting.

    \b
    Examples:
      avfeat weights list
      avfeat weights fetch resnet152 vggish
      avfeat weights import ~/polynet.pth --as polynet
    """


@weights.command("list")
@json_option("weights_list", "As JSON on stdout.")
@verbose_option
def list_(as_json: bool, verbose: int) -> None:
    """List all weights and whether they are in the cache.

    Below each name its files, of which any one will do. A terminal of less than 155 columns shows
    no licences, and of less than 100 no digests; --json has all. Of timm's and torchvision's
    models, those in the cache.

    \b
    Examples:
      avfeat weights list
      avfeat weights list --json
    """
    from avfeat import render_catalogue as render
    from avfeat.extract.weights import manage

    records = manage.describe_all()
    if as_json:
        print_json(records)
    else:
        render.weights(results_console(), records)


@weights.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option("weights_fetch", "As JSON on stdout.")
@verbose_option
@quiet_option
@click.pass_context
def fetch(
    ctx: click.Context, names: tuple[str, ...], as_json: bool, verbose: int, quiet: bool
) -> None:
    """Make sure that weights are in the cache.

    Prints their paths and SHA-256.
    NAME `all` means everything. What is there is hashed, not downloaded. If some could not be had,
    the others are fetched all the same, and the exit code is that of the first error: 2 if they are
    nowhere to be had or wrong, 1 if the cache cannot be written.

    \b
    Examples:
      avfeat weights fetch resnet152 openl3.music
      avfeat weights fetch all
    """
    from avfeat.extract.weights import cache, manage
    from avfeat.progress import DownloadProgress

    say = DownloadProgress(talk_console(quiet=quiet))
    records: list[dict[str, Any]] = []
    code = 0
    for entry in manage.select(names):
        try:
            info = cache.obtain(entry, progress=partial(say, entry.name))
        except AvfeatError as error:
            code = code or error.exit_code
            records.append({"name": entry.name, "error": str(error)})
            click.echo(f"avfeat: error: {error}", err=True)
            continue
        for leaf in manage.leaves(info):
            records.append({"name": entry.name, "path": str(leaf.path), "sha256": leaf.sha256})
            if not as_json:
                click.echo(f"{entry.name}  {leaf.sha256}  {leaf.path}")
    if as_json:
        print_json(records)
    ctx.exit(code)


@weights.command()
@json_option("weights_verify", "As JSON on stdout.")
@verbose_option
@click.pass_context
def verify(ctx: click.Context, as_json: bool, verbose: int) -> None:
    """Hash every file of weights in the cache.

    Conversions too.
    Exit code 4 if one is not what it was when it was first used.

    \b
    Examples:
      avfeat weights verify
    """
    import dataclasses

    from avfeat import render_catalogue as render
    from avfeat.extract.weights import manage

    checked = list(manage.verify())
    if as_json:
        print_json([{**dataclasses.asdict(one), "path": str(one.path)} for one in checked])
    else:
        render.checked_weights(results_console(), checked)
    ctx.exit(4 if any(one.status == "damaged" for one in checked) else 0)


@weights.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="Which weights FILE holds.")
@json_option("weights_import", "As JSON on stdout.")
@verbose_option
def import_(file: Path, name: str, as_json: bool, verbose: int) -> None:
    """Copy a FILE that came in another way into the cache.

    Its digest must be a published one of NAME (where none is published, it is pinned), and its
    tensors must fit the network. Nothing is imported otherwise.

    \b
    Examples:
      avfeat weights import ~/resnet152-394f9c45.pth --as resnet152
      avfeat weights import rgb_imagenet.pt --as i3d_rgb.pgi3d
    """
    from avfeat.extract.weights import manage

    info = manage.import_file(file, name)
    if as_json:
        print_json({"name": name, "path": str(info.path), "sha256": info.sha256})
    else:
        click.echo(f"{name}  {info.sha256}  {info.path}")


@weights.command()
@click.argument("name")
@json_option("weights_path", "As a JSON list on stdout.")
@verbose_option
def path(name: str, as_json: bool, verbose: int) -> None:
    """Print where the cache has the weights NAME.

    One line per file; exit code 2 if it has not.

    \b
    Examples:
      avfeat weights path resnet152
    """
    from avfeat.extract.weights import manage

    found = [str(path) for path in manage.paths(manage.resolve(name))]
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(found))
