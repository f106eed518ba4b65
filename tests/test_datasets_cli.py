"""``avfeat datasets``, and what other commands make of the synthetic family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Cli, tree


@pytest.fixture
def out(avfeat: Cli, tmp_path: Path) -> Path:
    """A small family, written by the command."""
    avfeat("datasets", "synthesize", "--out", tmp_path, "--clips", "12,3,4", "--seed", 5, "-q")
    return tmp_path


def test_called_bare_it_lists(avfeat: Cli) -> None:
    records = json.loads(avfeat("datasets", "--json").stdout)
    assert [record["name"] for record in records] == ["folder", "llp"]
    assert "llp" in avfeat("datasets").stdout


def test_synthesize_says_what_it_wrote(avfeat: Cli, tmp_path: Path) -> None:
    options = ("datasets", "synthesize", "--out", tmp_path, "--clips", 30)
    result = avfeat(*options, "--json")
    document = json.loads(result.stdout)
    assert document["best_pair"] == {"audio": "vggish", "visual": "vgg19_bn"}
    assert document["best_singles"] == {"audio": "vggish", "visual": "polynet"}
    assert document["clips"] == {"train": 25, "val": 2, "test": 3}
    assert len(document["stores"]) == 8
    assert all(Path(store["store"]).is_dir() for store in document["stores"])
    truth = json.loads(Path(document["truth"]).read_text())
    assert truth["best_pair"] == document["best_pair"]
    assert "30 clips, 3.1 MiB" in result.stderr
    before = tree(tmp_path)
    shown = avfeat(*options, "-q")  # nothing is left to be done
    assert tree(tmp_path) == before
    assert "best pair: vggish + vgg19_bn" in shown.stdout
    assert "best alone: vggish + polynet" in shown.stdout
    assert shown.stderr == ""


def test_another_family_is_refused(avfeat: Cli, out: Path) -> None:
    before = tree(out)
    result = avfeat("datasets", "synthesize", "--out", out, "--clips", "12,3,4", code=2)
    assert "seed: 5 there, 0 now" in result.stderr
    assert "--out" in result.stderr
    assert tree(out) == before


@pytest.mark.parametrize("clips", ["0", "2", "-5", "x", "1,2", "1,2,3,4", "1,0,1", "", "1.5"])
def test_clips_must_be_numbers(avfeat: Cli, tmp_path: Path, clips: str) -> None:
    result = avfeat("datasets", "synthesize", "--out", tmp_path, f"--clips={clips}", code=2)
    assert "TRAIN,VAL,TEST" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_named(avfeat: Cli) -> None:
    assert "--out" in avfeat("datasets", "synthesize", code=2).stderr


def test_options_from_the_environment(
    avfeat: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVFEAT_DATASETS_SYNTHESIZE_CLIPS", "3,2,1")
    result = avfeat("datasets", "synthesize", "--out", tmp_path, "--json")
    assert json.loads(result.stdout)["clips"] == {"train": 3, "val": 2, "test": 1}


def test_inspect_says_that_it_is_synthetic(avfeat: Cli, out: Path) -> None:
    store = out / "synthetic" / "vgg19_bn"
    text = avfeat("inspect", store).stdout
    assert "SYNTHETIC, seed 5 (avfeat-synthetic-v1): not real features" in text
    assert "1.0, 1.0" in text  # its quality
    document = json.loads(avfeat("inspect", store, "--json").stdout)
    assert document["dataset"] == "synthetic"
    assert document["recipe"]["weights"]["source"] == "synthetic"
    assert document["splits"] == {"train": 12, "val": 3, "test": 4}
    assert document["clip_rows"] == [80]


def test_verify_finds_them_whole(avfeat: Cli, out: Path) -> None:
    reports = json.loads(avfeat("verify", out, "--json").stdout)
    assert len(reports) == 8
    assert all(report["ok"] for report in reports)


def test_there_is_nothing_to_extract(avfeat: Cli) -> None:
    result = avfeat("extract", "-d", "synthetic", "-b", "vggish", code=2)
    assert "avfeat datasets synthesize --out DIR" in result.stderr
    assert "no media" in result.stderr


def test_help_has_examples(avfeat: Cli) -> None:
    assert "  avfeat datasets synthesize --out " in avfeat("datasets", "--help").stdout
    text = avfeat("datasets", "synthesize", "--help").stdout
    assert "  avfeat datasets synthesize --out " in text
    for option in ("--json", "--seed", "--width", "--clips"):
        assert option in text
