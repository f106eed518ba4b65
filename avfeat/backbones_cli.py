"""``avfeat backbones``: what can be extracted, and everything about one of them."""

from __future__ import annotations

import click

from avfeat.console import json_option, print_json, results_console, verbose_option


@click.group(invoke_without_command=True)
@json_option("backbones", "As JSON on stdout.")
@verbose_option
@click.pass_context
def backbones(ctx: click.Context, as_json: bool, verbose: int) -> None:
    """List the backbones.

    What goes in, what comes out, whose weights; a terminal of less than 155 columns shows less.
    Options follow a name with a dot and give a variant, in a store of its own. Image models of two
    libraries go by their names there, with their own preprocessing and weights.

    \b
    Examples:
      avfeat backbones
      avfeat backbones show openl3
      avfeat backbones show resnet152.map --json
      avfeat backbones show timm:vit_small_patch16_224
      avfeat backbones show torchvision:resnet50.IMAGENET1K_V2
    """
    if ctx.invoked_subcommand is not None:
        return
    from avfeat import render_catalogue as render
    from avfeat.extract.catalogue import describe_backbones

    records = describe_backbones()
    if as_json:
        print_json(records)
    else:
        render.backbones(results_console(), records)


@backbones.command()
@click.argument("name")
@json_option("backbones_show", "As JSON on stdout.")
@verbose_option
def show(name: str, as_json: bool, verbose: int) -> None:
    """Show everything about a backbone or a variant.

    Its recipe, options, weights and citation. What is chosen stands in brackets.

    \b
    Examples:
      avfeat backbones show senet154
      avfeat backbones show openl3.music.mel128
    """
    from avfeat import render_catalogue as render
    from avfeat.extract.backbones import get
    from avfeat.extract.catalogue import describe

    record = describe(get(name))
    if as_json:
        print_json(record)
    else:
        render.backbone(results_console(), record)
