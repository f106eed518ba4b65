"""The command line: settings, streams, exit codes. What extraction does is tested elsewhere."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from storekit import make_recipe, make_store
from support import Cli, Corpus

from avfeat import __version__, progress, render
from avfeat.manifests.clips import Clip, Outcome

LENGTHS = (4, 0, 7, 3, -1, 5, 6, 2)
BASE = ("-b", "tiny_image", "--dry-run", "--json", "-q")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a fresh process."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def strictly(text: str) -> Any:
    """Parse JSON as others do: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_help_waits_for_no_heavy_import() -> None:
    heavy = {"torch", "numpy", "av", "zarr", "pyarrow", "rich", "pydantic", "requests", "timm"}
    code = "import sys, avfeat.cli; print(*sys.modules)"
    assert heavy & set(python("-c", code).stdout.split()) == set()


def test_python_m_avfeat_is_the_command() -> None:
    result = python("-m", "avfeat", "--version")
    assert (result.returncode, result.stdout) == (0, f"avfeat, version {__version__}\n")
    result = python("-m", "avfeat", "extract")
    assert result.returncode == 2
    assert "Usage: avfeat extract" in result.stderr


@pytest.mark.parametrize("command", ["extract", "inspect", "verify", "backbones", "datasets"])
def test_every_command_has_help_with_examples_and_json(avfeat: Cli, command: str) -> None:
    text = avfeat(command, "--help").stdout
    assert "--json" in text
    if command in ("extract", "inspect", "verify"):
        assert f"  avfeat {command} " in text


def unit_clips(avfeat: Cli, corpus: Corpus, *options: object) -> Any:
    """How many clips a unit would have."""
    result = avfeat("extract", *BASE, *corpus.options, *options)
    (store,) = strictly(result.stdout)["stores"]
    return store["unit_clips"]


def test_flags_go_over_environment_over_file_over_defaults(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unit_clips(avfeat, corpus) == 16
    Path("avfeat.toml").write_text("[extract]\nunit-clips = 5\n")
    assert unit_clips(avfeat, corpus) == 5
    monkeypatch.setenv("AVFEAT_EXTRACT_UNIT_CLIPS", "6")
    assert unit_clips(avfeat, corpus) == 6
    assert unit_clips(avfeat, corpus, "--unit-clips", 7) == 7


@pytest.mark.parametrize("backbone", ['"tiny_image,tiny_audio"', '["tiny_image", "tiny_audio"]'])
def test_everything_can_be_set_in_the_file(avfeat: Cli, corpus: Corpus, backbone: str) -> None:
    Path("avfeat.toml").write_text(
        f"""
[extract]
backbone = {backbone}
dataset = "llp"
data = "{corpus.media}"
annotations = "{corpus.annotations}"
split = "test"
limit = 2
weights = "random"
batch-size = 4
dry_run = true
json = true
quiet = true
verbose = 1

[inspect]
json = true
"""
    )
    plan = strictly(avfeat("extract").stdout)
    assert [store["backbone"] for store in plan["stores"]] == ["tiny_audio", "tiny_image"]
    assert [store["batch_size"] for store in plan["stores"]] == [4, 4]
    assert plan["to_decode"] == 2
    make_store("store", LENGTHS)
    assert strictly(avfeat("inspect", "store").stdout)["rows"] == 27


def test_json_can_be_set_in_the_environment(avfeat: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVFEAT_DATASETS_JSON", "1")
    assert [entry["name"] for entry in strictly(avfeat("datasets").stdout)] == ["folder", "llp"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[extract", "cannot read avfeat.toml: "),
        (b"\xff\xfe[extract]", "cannot read avfeat.toml: "),
        (b"[extrakt]\n", "unknown section [extrakt]; known: backbones, collocate, datasets, demo"),
        (b"dataset = 'llp'\n", "unknown section [dataset]"),
        (b"[extract]\nbackbones = 'x'\n", "unknown option 'backbones' in [extract]; known: "),
        (b"[inspect]\npath = 'x'\n", "unknown option 'path' in [inspect]"),
        (b"[extract]\ndata = ['x']\n", "'data' in [extract] cannot be ['x']"),
        (b"[extract]\ndata = 2020-01-01\n", "'data' in [extract] cannot be "),
        (
            b"[extract]\nlimit = 'x'\ndataset = 'llp'\nbackbone = 'vggish'\n",
            "'--limit': 'x'",
        ),
        (b"[extract]\ndata = 5\ndataset = 'folder'\nbackbone = 'vggish'\n", "media folder 5"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_message(
    avfeat: Cli, content: bytes, words: str
) -> None:
    Path("avfeat.toml").write_bytes(content)
    result = avfeat("extract", code=2)
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("verbose", [False, True])
def test_tracebacks_show_with_v_alone(
    avfeat: Cli, monkeypatch: pytest.MonkeyPatch, verbose: bool
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("by hand")

    make_store("store", LENGTHS)
    monkeypatch.setattr("avfeat.stores.summary.summarise", crash)
    option = ("-v",) if verbose else ()
    for arguments, code, words in (
        (("inspect", "store"), 1, "avfeat: crash: ZeroDivisionError: by hand"),
        (("inspect", "nothing"), 2, "avfeat: error: there is no feature store at nothing"),
    ):
        result = avfeat(*arguments, *option, code=code)
        assert words in result.stderr
        assert ("Traceback" in result.stderr) == verbose
        assert result.stdout == ""


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("path", ["", "nothing", "file", "folder", "nosuch://x", "/dev/null", "."])
def test_a_path_that_is_no_store_is_wrong_use(avfeat: Cli, command: str, path: str) -> None:
    Path("file").write_text("x")
    Path("folder/sub").mkdir(parents=True)
    result = avfeat(command, path, code=2)
    assert result.stderr.startswith("avfeat: error: ")
    assert result.stderr.count("\n") == 1


def test_json_of_a_store_is_an_object_and_of_a_folder_a_list(avfeat: Cli) -> None:
    make_store("features/hand/one", LENGTHS)
    for command in ("inspect", "verify"):
        assert strictly(avfeat(command, "features/hand/one", "--json").stdout)["rows"] == 27
        (only,) = strictly(avfeat(command, "features", "--json").stdout)
        assert only["store"] == "features/hand/one"
    make_store("features/hand/two", (1,), recipe=make_recipe(seed=1))
    for command in ("inspect", "verify"):
        stores = strictly(avfeat(command, "features", "--json").stdout)
        assert [(store["store"], store["rows"]) for store in stores] == [
            ("features/hand/one", 27),
            ("features/hand/two", 1),
        ]


def test_inspect_says_everything_of_a_store(avfeat: Cli) -> None:
    make_store("store", LENGTHS, units=[0, 1])
    summary = strictly(avfeat("inspect", "store", "--json").stdout)
    assert summary["counts"] == {"ok": 4, "missing": 1, "failed": 1, "pending": 2}
    assert summary["units"] == {"committed": 2, "all": 3}
    assert summary["shape"] == [8, 7, 3]
    assert summary["clip_rows"] == [3, 4, 5, 7]
    assert summary["failed"] == [{"id": "clip_04", "kind": "not_media", "message": "not a video"}]
    assert (summary["complete"], summary["at_rest"]) == (False, True)
    assert summary["fingerprint"] == make_recipe().fingerprint
    text = avfeat("inspect", "store").stdout
    for words in (
        "4 ok, 1 missing, 1 failed, 2 pending",
        "19 of 3 x float32",
        "features[clip=8, time=7, feature=3]",
        "2 of 3 committed",
        "not complete: some clips are not extracted yet",
        "not a video",
        make_recipe().fingerprint,
    ):
        assert words in text


def test_ids_and_messages_are_no_markup(avfeat: Cli) -> None:
    clips = [Clip("[red]a[/b]", 0.0, 0.5), Clip(":smile:", 0.0, 0.5)]
    make_store("[bold]", (4, -1), clips=clips)
    assert ":smile:" in avfeat("inspect", "[bold]").stdout
    shard = Path("[bold]/features.zarr/features/c/0/0/0")
    shard.write_bytes(shard.read_bytes()[::-1])
    assert "unit 0, clip [red]a[/b]" in avfeat("verify", "[bold]", code=4).stdout


def test_stdout_carries_data_alone(avfeat: Cli, corpus: Corpus) -> None:
    options = (*corpus.options, "--limit", 1)
    result = avfeat("extract", "-b", "tiny_image", *options, "--json")
    document = strictly(result.stdout)
    assert document["clips_decoded"] == 1
    assert document["stores"][0]["new_rows"] == 80
    assert document["stores"][0]["counts"] == {"ok": 1, "pending": 9}
    assert "1 clip to extract of 1 selected, 1 backbone, cpu, avvp sampling" in result.stderr
    quiet = avfeat("extract", "-b", "tiny_audio", *options, "-q")
    assert quiet.stderr == ""
    assert "+10 rows of 7" in quiet.stdout


def test_the_table_of_data_sets(avfeat: Cli) -> None:
    records = {record["name"]: record for record in strictly(avfeat("datasets", "--json").stdout)}
    assert list(records) == ["folder", "llp"]
    assert len(records["llp"]["classes"]) == 25
    assert (records["llp"]["sampling"], records["folder"]["sampling"]) == ("avvp", "on-screen")
    text = avfeat("datasets").stdout
    for words in ("folder", "llp", "25", "avvp", "on-screen"):
        assert words in text


def test_the_table_of_backbones(avfeat: Cli) -> None:
    records = {record["name"]: record for record in strictly(avfeat("backbones", "--json").stdout)}
    published = {"resnet152": 2048, "senet154": 2048, "vggish": 128, "r2plus1d_18": 512}
    assert {name: records[name]["dim"] for name in published} == published
    assert [records[name]["rows_per_10s"] for name in published] == [80, 80, 10, 10]
    for name in published:
        (weights, *_) = records[name]["weights"]
        assert weights["name"].startswith(f"{name}.")
        assert not weights["cached"]
        assert weights["licence"]
        assert weights["sources"][0]["urls"][0].startswith("http")
    text = avfeat("backbones").stdout
    for name in published:
        assert name in text


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("command", [("backbones",), ("weights", "list")])
def test_lists_fit_a_terminal_and_fold_no_word(
    avfeat: Cli, monkeypatch: pytest.MonkeyPatch, width: int, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = avfeat(*command).stdout
    assert max(map(len, text.splitlines())) <= width
    for record in strictly(avfeat(*command, "--json").stdout):
        names = [record["name"], *(s["file"] for s in record.get("sources", ()))]
        assert not [name for name in names if name not in text]
    assert ("licence" in text) == (width >= 155)


def test_pipes_get_whole_lines_without_blanks_at_their_ends(avfeat: Cli) -> None:
    name = "a folder of a long name " * 9
    make_store(f"{name}/store", LENGTHS)
    for command in (("inspect", "."), ("verify", "."), ("backbones",), ("weights", "list")):
        lines = avfeat(*command).stdout.splitlines()
        assert not [line for line in lines if line != line.rstrip()]
    assert f"./{name}/store" in avfeat("inspect", ".").stdout


def test_failed_clips_are_listed_once() -> None:
    def shown(decoded: int, clips: int, *, interrupted: bool = False) -> str:
        stores = [
            {"store": f"out/{name}", "backbone": name, "new_rows": 1, "row_shape": [7]}
            | {"counts": {"ok": 1}, "random_weights": False}
            for name in ("one", "two")
        ]
        failed = [
            {"backbone": name, "clip": f"cut{number}.mp4", "kind": "truncated"}
            | {"message": f"cut{number}.mp4: the file is cut off"}
            for name in ("one", "two")
            for number in range(clips)
        ]
        document = {"stores": stores, "failed": failed, "clips_decoded": decoded, "seconds": 1.0}
        out = io.StringIO()
        console = Console(file=out, width=200)
        render.run(console, document | {"model_share": 0.5, "interrupted": interrupted})
        return out.getvalue()

    text = shown(3, 2)
    assert text.count("cut1.mp4") == text.count("cut0.mp4") == 1
    assert "the file is cut off  all" in text
    text = shown(30, 25)
    assert text.count("the file is cut off") == 20
    assert "… and 5 more; all: avfeat inspect out/one" in text
    assert "1 clip failed before (--retry-failed does them again; all:" in shown(0, 1)
    assert "cut0.mp4" not in shown(0, 1)
    assert "nothing to extract" in shown(0, 0)
    assert "nothing to extract" not in shown(0, 0, interrupted=True)


def test_failed_clips_do_not_hide_behind_complete(avfeat: Cli) -> None:
    make_store("store", LENGTHS)
    assert "complete (1 failed)" in avfeat("inspect", "store").stdout


def test_a_flipped_byte_is_told_in_words_and_how_to_mend_it(avfeat: Cli) -> None:
    make_store("store", LENGTHS)
    shard = Path("store/features.zarr/features/c/0/0/0")
    shard.write_bytes(shard.read_bytes()[::-1])
    text = avfeat("verify", "store", code=4).stdout
    assert "b'" not in text
    assert f"delete {Path('store').absolute()}/ledger/000000.json and run" in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("inspect", "store"), "avfeat: stopped\n"),
        (
            ("weights", "fetch", "vggish"),
            "avfeat: stopped; the same command goes on where it was\n",
        ),
    ],
)
def test_where_ctrl_c_leaves_one(
    avfeat: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], words: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    make_store("store", LENGTHS)
    monkeypatch.setattr("avfeat.stores.summary.summarise", stop)
    monkeypatch.setattr("avfeat.extract.weights.cache.obtain", stop)
    assert avfeat(*command, code=130).stderr.endswith(words)


def on_a_terminal(folder: Path, *arguments: str, **environment: str) -> bytes:
    """Run the command with a terminal for its output, and return what appears there."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "avfeat", *arguments],
        stdin=there,
        stdout=there,
        stderr=there,
        cwd=folder,
        env={
            **{key: value for key, value in os.environ.items() if key not in ("NO_COLOR",)},
            "TERM": "xterm-256color",
            **environment,
        },
    )
    os.close(there)
    shown = b""
    while True:
        try:
            data = os.read(here, 65536)
        except OSError as error:
            assert error.errno == errno.EIO  # the other side was closed
            break
        if not data:
            break
        shown += data
    os.close(here)
    assert process.wait() == 0
    return shown


def test_no_color_is_obeyed(tmp_path: Path) -> None:
    make_store(tmp_path / "store", LENGTHS)
    assert b"\x1b[" in on_a_terminal(tmp_path, "inspect", "store")
    assert b"\x1b" not in on_a_terminal(tmp_path, "inspect", "store", NO_COLOR="1")


def test_away_from_a_terminal_progress_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = progress.ClipProgress(Console(file=stream, width=200), 10, verbose=0)
    with shown.shown():
        for number in range(10):
            failed = number == 3
            outcome = Outcome("failed", "not_media", "[red]HTML") if failed else Outcome("ok")
            shown.clip_done(Clip(f"clip{number}", 0, 1), {"vggish": outcome})
            shown.unit_committed(number)
    lines = stream.getvalue().splitlines()
    assert "failed(not_media) clip3: [red]HTML" in lines
    assert all("/10 clips, " in line for line in lines if not line.startswith("failed"))
    assert 3 <= len(lines) < 11
    assert lines[-1].endswith("1 failed")
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_progress_is_heard_of_before_the_first_clip_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "_BEAT_SECONDS", 0.01)
    shown = progress.ClipProgress(Console(file=stream, width=200), 3, verbose=0)
    with shown.shown():
        while stream.getvalue().count("\n") < 2:
            time.sleep(0.01)
    assert stream.getvalue().splitlines()[0] == "0/3 clips, none done yet, 0 s so far"


def test_slow_progress_is_in_seconds_per_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    clock = iter((0.0, *[40.0] * 9))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = progress.ClipProgress(Console(file=stream, width=200), 31, verbose=0)
    shown.clip_done(Clip("a", 0, 1), {"vggish": Outcome("ok")})
    assert stream.getvalue() == "1/31 clips, 40 s/clip, 20 min left, 0 failed\n"


def test_verbose_progress_names_clips_and_units() -> None:
    stream = io.StringIO()
    shown = progress.ClipProgress(Console(file=stream, width=200), 1, verbose=2)
    with shown.shown():
        shown.clip_done(Clip("a", 0, 1), {"vggish": Outcome("ok")})
        shown.unit_committed(7)
    assert stream.getvalue() == "done a\nunit 7 committed\n"


def test_a_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    """``avfeat … | head`` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "avfeat", "datasets", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert b"Traceback" not in errors
    assert b"crash" not in errors
