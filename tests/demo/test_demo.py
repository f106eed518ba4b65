"""The demo's course, with small networks in place of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import Cli

from avfeat.collocate.score_table import SCORES
from avfeat.demo import run
from avfeat.demo.scenes import SCENES

AUDIO, VISUAL = ("tiny_audio",), ("tiny_image", "tiny_snippet")


@pytest.fixture
def told(avfeat: Cli, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each command of the demo printed, by its name."""
    found: dict[str, str] = {}

    def here(command: Sequence[str]) -> int:
        assert command[:3] == [sys.executable, "-m", "avfeat"]
        result = avfeat(*command[3:], code=None)
        found[command[3]] = result.output
        return result.exit_code

    monkeypatch.setattr(run, "run_child", here)
    monkeypatch.setattr(run, "AUDIO", AUDIO)
    monkeypatch.setattr(run, "VISUAL", VISUAL)
    monkeypatch.setattr(run, "BACKBONES", (*AUDIO, *VISUAL))
    monkeypatch.setattr(run, "_choose_weights", lambda talk: "random")
    return found


def test_the_demo_ends_with_a_collocation_table(avfeat: Cli, told: dict[str, str]) -> None:
    result = avfeat("demo")
    assert list(told) == ["extract", "inspect", "verify", "collocate"]
    assert len(list(Path("avfeat-demo/pictures").glob("*.png"))) == len(SCENES)
    assert "(10, 7)" in result.output  # the audio rows of a clip
    text = " ".join(told["collocate"].split())
    assert f"clips {len(SCENES)} that all stores have" in text
    assert "all to all" in text
    rows = {line.split("  ")[0]: line.split()[-9:] for line in told["collocate"].splitlines()}
    for visual in VISUAL:
        found = dict(zip(SCORES, rows[f"tiny_audio + {visual}"], strict=True))
        assert 0 < float(found.pop("bsp")) < 1
        assert 0 <= float(found.pop("cka")) <= 1
        assert -1 <= float(found.pop("mutual-knn")) <= 1
        assert set(found.values()) == {"-"}
    # Each of those says why.
    assert "source and target have 3 clips in common" in text
    assert "not all target clips have labels by the second" in text


def test_the_demo_stops_where_a_command_fails(
    avfeat: Cli, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "make_scenes", lambda out: (out, out))
    monkeypatch.setattr(run, "run_child", lambda command: 3)
    result = avfeat("demo", code=3)
    assert "3. a picture" not in result.output
