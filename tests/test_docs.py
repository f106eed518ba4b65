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
    helps = [cli, *cli.commands.values()]
    lines += re.findall(r"^ +(avfeat .+)$", "\n".join(c.help or "" for c in helps), re.MULTILINE)
    return sorted(set(lines))


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("avfeat ")])
def test_commands_parse(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    command = cli.commands[name]
    try:
        command.make_context(name, arguments)
    except click.exceptions.Exit:
        assert "--help" in arguments


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


def test_the_backbone_of_contributing_works(avfeat: Cli, tmp_path: Path) -> None:
    from avfeat.extract import backbones

    (block,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    exec(compile(block, "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    try:
        (tmp_path / "videos").mkdir()
        make_clip(tmp_path / "videos" / "a.mp4", fps=8, size=(128, 96), duration=1.0)
        options = ("-d", "folder", "--data", tmp_path / "videos", "--weights", "random")
        avfeat("extract", "-b", "my_resnet18", *options)
        assert "my_resnet18" in avfeat("backbones").stdout
        import avfeat as package

        store = package.open_store("features/folder/my_resnet18", allow_random=True)
        assert store["a.mp4"].shape == (8, 512)
        spec = backbones.get("my_resnet18").spec
        net = backbones.get("my_resnet18").build()
        assert sum(p.numel() for p in net.parameters()) == spec.parameters
    finally:
        backbones.unregister("my_resnet18")
