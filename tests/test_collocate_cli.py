"""``avfeat collocate``: tables, documents, and what it says when it is used wrongly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from collocationkit import make_clips, make_family
from support import Cli

CLIPS = make_clips({"train": 14, "val": 10, "test": 6})
COMMON = ("collocate", "--audio", "all", "--visual", "all")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("features")
    return make_family(folder, CLIPS, without={"openl3": ["train_03"]})


def said(cli: Cli, *arguments: object, code: int = 2) -> str:
    """What stderr says, in one line."""
    return " ".join(cli("collocate", *arguments, code=code).stderr.split())


def test_scores_as_a_table(avfeat: Cli, root: str) -> None:
    result = avfeat(*COMMON, "--out", root, "-k", 2, "--resamples", 30)
    lines = result.stdout.splitlines()
    assert "29 that all stores have (1 more that only some have)" in result.stdout
    (head,) = (line for line in lines if line.startswith("pair"))
    assert head.split()[:7] == ["pair", "h-score", "logme", "svd", "svd", "95", "%"]
    assert "by h-score" in result.stdout
    rows = [line.split() for line in lines if line.startswith(("vggish + ", "openl3 + "))]
    assert len(rows) == 4
    values = [float(row[3]) for row in rows]
    assert values == sorted(values, reverse=True)
    for row in rows:
        assert row[7] == "to"
        assert 0 <= float(row[6]) <= float(row[8]) <= 1
    assert "interval of svd by 30 resamples" in result.stdout
    assert "reading vggish" in result.stderr
    quiet = avfeat(*COMMON, "--out", root, "-k", 2, "--resamples", 0, "-q", "--scores", "cka,svd")
    assert quiet.stderr == ""
    assert "95 %" not in quiet.stdout
    assert "logme" not in quiet.stdout
    assert "by cka" in quiet.stdout


def test_the_order_is_that_of_the_first_score_that_applies(avfeat: Cli, root: str) -> None:
    """Scores of labels have no value where the target has no labels."""
    splits = ("--source", "val", "--target", "train", "--resamples", 0, "-q")
    shown = avfeat(*COMMON, "--out", root, *splits, "--scores", "logme,cka,svd").stdout
    assert "by cka" in shown
    lines = [line.split() for line in shown.splitlines()]
    rows = [row for row in lines if row[:2] in (["vggish", "+"], ["openl3", "+"])]
    assert [row[3] for row in rows] == ["-"] * 4
    values = [float(row[4]) for row in rows]
    assert values == sorted(values, reverse=True)


def test_scores_as_json(avfeat: Cli, root: str) -> None:
    result = avfeat(*COMMON, "--out", root, "--scores", "svd, logme", "-k", 1, "--json", "-q")
    document = json.loads(result.stdout)
    assert list(document["scores"]) == ["svd", "logme"]
    assert document["resamples"] == 200
    assert document["clips"] == 29
    assert document["clips_apart"] == 1
    assert len(document["pairs"]) == 4
    for row in document["pairs"]:
        low, high = row["angles"]["printed"]["interval"][0]
        assert 0 <= low <= high <= 1
        assert np.isfinite(row["scores"]["logme"]["value"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--audio", "vgish", "--visual", "all"), "Did you mean 'vggish'?"),
        (("--audio", "polynet", "--visual", "all"), "polynet is no audio backbone"),
        (("--audio", "all", "--visual", "senet154"), "avfeat extract --backbone senet154"),
        (("--audio", ",", "--visual", "all"), "--audio ',' names nothing"),
        ((*COMMON[1:], "--scores", "logm"), "Did you mean 'logme'?"),
        ((*COMMON[1:], "--scores", ","), "--scores ',' names nothing"),
        (("--audio", "all", "--visual", ""), "--visual '' names nothing"),
        ((*COMMON[1:], "--dataset", "lpp"), "Did you mean 'llp'?"),
        ((*COMMON[1:], "--motion", "i3d"), "--motion none"),
        (
            (*COMMON[1:], "--method", "proxy", "--motion", "vggish"),
            "vggish is no visual backbone: its modality is audio",
        ),
        ((*COMMON[1:], "--source", "dev"), "choose with --source, --target and --test"),
        ((*COMMON[1:], "--workers", 2), "--method scores has none"),
        ((*COMMON[1:], "--workers", 2, "--scheduler", "tcp://x:1"), "leave out --scheduler"),
        ((*COMMON[1:], "--halving"), "halving is for the proxy"),
        ((*COMMON[1:], "--epochs", 3, "--lr", 9), "--epochs, --lr: --method scores has no use"),
        ((*COMMON[1:], "--method", "proxy", "-k", 3), "--directions: --method proxy has no use"),
        ((*COMMON[1:], "--method", "proxy", "--test", "x"), "--test: --method proxy has no use"),
        (
            (*COMMON[1:], "--method", "proxy", "--source", "x"),
            "--source: --method proxy has no use",
        ),
        ((*COMMON[1:], "--method", "traverse", "--scores", "svd"), "--scores: --method traverse"),
        ((*COMMON[1:], "--method", "traverse", "--test", "val"), "that it never saw"),
        ((*COMMON[1:], "--method", "all", "--target", "train"), "no labels by the second"),
        ((*COMMON[1:], "--directions", 0), "--directions"),
        ((*COMMON[1:], "--resamples", -1), "--resamples"),
        (("--visual", "all"), "--audio"),
    ],
)
def test_wrong_use(avfeat: Cli, root: str, arguments: tuple[object, ...], words: str) -> None:
    text = said(avfeat, *arguments, "--out", root)
    assert words in text
    assert "Traceback" not in text


def test_options_of_a_file_are_for_all_commands(avfeat: Cli, root: str, tmp_path: Path) -> None:
    (tmp_path / "avfeat.toml").write_text('[collocate]\nepochs = 15\nlog = "mine"\ntest = "val"\n')
    options = ("--scores", "svd", "--resamples", 0)
    assert "by svd" in avfeat(*COMMON, "--out", root, *options).stdout


def test_a_log_that_cannot_be_written_is_told_before_training(
    avfeat: Cli, root: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("collocate", *COMMON[1:], "--out", root, "--method", "traverse", "--epochs", 1)
    result = avfeat(*arguments, "--log", "file", code=None)
    assert result.exit_code != 0
    assert "trained" not in result.stderr
    assert "file" in result.stderr and "--out" not in result.stderr


def test_no_stores(avfeat: Cli) -> None:
    assert "no feature store at features; `avfeat extract` makes one" in said(
        avfeat, "--audio", "all", "--visual", "all"
    )


def test_random_stores(avfeat: Cli, tmp_path: Path) -> None:
    out = make_family(tmp_path, CLIPS, names=("vggish", "resnet152"), source="random")
    text = said(avfeat, *COMMON[1:], "--out", out)
    assert "random weights" in text
    assert "--allow-random" in text
    result = avfeat(*COMMON, "--out", out, "--allow-random", "--scores", "cka", "--resamples", 0)
    assert "not real features" in result.stdout


def test_all_methods_and_again_from_the_log(avfeat: Cli, root: str) -> None:
    arguments = ("collocate", "--audio", "vggish", "--visual", "all", "--out", root)
    options = ("--method", "all", "--epochs", 1, "--scores", "cka", "--resamples", 0, "--json")
    first = avfeat(*arguments, *options)
    document = json.loads(first.stdout)
    # Three rates, one more pair at the best; two pairs of the traversal. Each is told once.
    trainings = [search["trainings"] for search in document["searches"].values()]
    assert first.stderr.count("trained: ") == sum(trainings) >= 6
    assert "1 of 3 trained: vggish + polynet on val, learning rate 0.0001" in first.stderr
    # The pair that was tuned is one of them, and told of already.
    assert "2 of 2 trained: vggish + resnet152 on val" in first.stderr
    assert "found in the log" not in first.stderr
    again = avfeat(*arguments, *options)
    assert "trained: " not in again.stderr
    assert "found in the log: vggish + polynet on val, learning rate 0.0001, seed 1" in again.stderr
    repeated = json.loads(again.stdout)
    assert repeated["searches"] == document["searches"]
    assert set(document["evidence"]) == {"cka", "proxy"}
    shown = avfeat(*arguments, *options[:-1]).stdout
    for words in (
        "proxy: ",
        "traverse: 2 trainings",
        "agreement with the traversal",
        "from vggish",
    ):
        assert words in shown


def test_learning_rate_and_device(avfeat: Cli, root: str) -> None:
    arguments = ("--audio", "vggish", "--visual", "polynet", "--out", root, "--method", "proxy")
    options = ("--epochs", 1, "--device", "cpu")
    result = avfeat("collocate", *arguments, *options, "--lr", 3e-5)
    assert "learning rate 1e-05," in result.stderr
    assert "learning rate 0.0001," in result.stderr
    assert "all trainings diverged: lower the learning rate with --lr" in said(
        avfeat, *arguments, *options, "--lr", 1e37, code=1
    )
    assert "unknown device 'gpu'" in said(avfeat, *arguments, "--device", "gpu")


def test_ctrl_c_ends_with_130_and_the_log_stays(root: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "avfeat", "collocate", "--audio", "all", "--visual", "all"]
    # Hundreds of short trainings: one is soon in the log, and many are left.
    options = ["--out", root, "--method", "proxy", "--epochs", "1", "--seeds", "300"]
    with subprocess.Popen(
        [*command, *options, "--log", str(log)],
        stderr=subprocess.PIPE,
        text=True,
        # Shells ignore it in what they start in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not list(log.glob("trainings/*.json")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "stopped; the same command goes on where it was" in stderr
    assert "Traceback" not in stderr
    assert list(log.glob("trainings/*.json"))
