"""Code blocks of the documents run, commands in them parse, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from support import Cli, write_llp

from avfeat.cli import cli
from avfeat.testing.clips import make_clip

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [
        line.removeprefix("$ ").partition("  #")[0].strip()
        for path in DOCUMENTS
        for block in blocks(path, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    lines += re.findall(r"^ +(avfeat .+)$", "\n".join(helps(cli)), re.MULTILINE)
    return sorted(set(lines))


def helps(command: click.Command) -> list[str]:
    """Help texts of a command and of all below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [command.help or "", *(text for one in below for text in helps(one))]


def parse(line: str) -> None:
    """Parse a command line as click would, without running anything."""
    try:
        context = cli.make_context("avfeat", shlex.split(line)[1:])
        while isinstance(context.command, click.Group):
            rest = [*context._protected_args, *context.args]
            if not rest:
                assert context.command.invoke_without_command
                return
            name, command, rest = context.command.resolve_command(context, rest)
            assert command is not None
            context = command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        assert "--help" in line
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # an example's file
            raise


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("avfeat ")])
def test_commands_parse(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line",
    [
        *("avfeat weights bogus x", "avfeat weights fetch --bogus", "avfeat backbones shw openl3"),
        *("avfeat backbones show", "avfeat extrakt", "avfeat inspect a b"),
    ],
)
def test_wrong_commands_would_not(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


def test_examples_of_every_help_are_found() -> None:
    found = "\n".join(commands())
    for example in ("weights import", "backbones show senet154", "extract -b all", "verify fea"):
        assert f"avfeat {example}" in found


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_python_blocks_of_the_readme_run(
    avfeat: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store of random rows, which the blocks themselves would refuse."""
    media = tmp_path / "media"
    media.mkdir()
    clips = {"train": ["readmeClip1_0_10"], "val": [], "test": ["readmeClip2_0_10"]}
    write_llp(tmp_path, **clips)
    for names in clips.values():
        for name in names:
            make_clip(media / f"{name[:11]}.mp4", fps=8, size=(128, 96))
    options = ("--data", media, "--annotations", tmp_path, "--weights", "random")
    avfeat("extract", "-b", "tiny_image", "-d", "llp", *options)
    Path("features/llp/tiny_image").rename("features/llp/resnet152")
    import avfeat as package

    original = package.open_store
    monkeypatch.setattr(
        package, "open_store", lambda url: original(url, allow_random=True), raising=False
    )
    found = blocks(ROOT / "README.md", "python")
    assert len(found) >= 3
    for block in found:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
