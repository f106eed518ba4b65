"""What crashes or hangs a decoder costs one clip; what comes through a process is the same."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import Cli, Corpus, tree

import avfeat as package
from avfeat.errors import ProcessError
from avfeat.extract import isolate
from avfeat.extract.backbones import get
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, decode
from avfeat.extract.isolate import Isolated
from avfeat.extract.stages import CancelledError
from avfeat.manifests.clips import Clip, Outcome
from avfeat.stores.verify import verify

BACKBONES = "tiny_image,tiny_audio"


@pytest.fixture
def risky(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of risky_child.py, given up after two seconds."""
    monkeypatch.setenv("AVFEAT_EXTRACT_ISOLATE", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(isolate, "_MODULE", "risky_child")
    monkeypatch.setattr(isolate, "Isolated", partial(Isolated, limit=2.0))
    monkeypatch.setattr("avfeat.extract.run.Isolated", partial(Isolated, limit=2.0))


@pytest.fixture
def job(corpus: Corpus) -> ClipJob:
    path = corpus.media / f"{corpus.ids[0][:11]}.mp4"
    clip = Clip(corpus.ids[0], 0.0, 10.0, "train")
    specs = (get("vggish").spec, get("resnet152").spec, get("r2plus1d_18").spec)
    return ClipJob(clip, path, path.name, specs, "avvp")


def test_chunks_are_those_of_the_decoder_in_this_process(job: ClipJob) -> None:
    here: list[Chunk] = []
    there: list[Chunk] = []
    figures, remote = ClipFigures(), ClipFigures()
    outcomes = decode(job, here.append, figures)
    with Isolated() as isolated:
        for _ in range(2):  # the process is used again
            there.clear()
            assert isolated(job, there.append, remote) == outcomes
            assert [chunk.backbone for chunk in there] == [chunk.backbone for chunk in here]
            for one, other in zip(here, there, strict=True):
                assert one.items.dtype == other.items.dtype
                assert np.array_equal(one.items, other.items)
                assert np.array_equal(one.times, other.times)
        assert len(isolated._children) == 1
    assert remote.decode.items == 2 * figures.decode.items > 0
    assert remote.geometry.items == 2 * figures.geometry.items > 0


def test_stores_are_the_same_with_and_without_processes(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AVFEAT_EXTRACT_ISOLATE")
    avfeat("extract", "-b", BACKBONES, *corpus.options, "-o", "apart", "--decoders", 2)
    avfeat("extract", "-b", BACKBONES, *corpus.options, "-o", "here", "--no-isolate")
    assert tree(Path("apart")) == tree(Path("here"))


def test_each_bad_file_costs_one_clip(avfeat: Cli, corpus: Corpus, risky: None) -> None:
    good = sorted(corpus.media.iterdir())
    media = Path("media")
    media.mkdir()
    for number, name in enumerate(["a", "b_crash", "c_hang", "d_leave", "e_odd", "f"]):
        shutil.copyfile(good[number], media / f"{name}.mp4")
    options = ["-b", BACKBONES, "-d", "folder", "--data", media, "--weights", "random"]
    result = avfeat("extract", *options, "--decoders", 2, "--json", code=3)
    failed = {f["clip"]: (f["kind"], f["message"]) for f in json.loads(result.stdout)["failed"]}
    assert failed == {
        "b_crash.mp4": ("crash", "b_crash.mp4: the decoder crashed (SIGSEGV)"),
        "c_hang.mp4": ("hang", "c_hang.mp4: the decoder gave nothing for 2 s"),
        "d_leave.mp4": ("crash", "d_leave.mp4: the decoder crashed (exit code 7)"),
        "e_odd.mp4": ("unexpected", "e_odd.mp4: DecodingError: RuntimeError: nobody foresaw this"),
    }
    for name in BACKBONES.split(","):
        store = package.open_store(f"features/folder/{name}", allow_random=True)
        assert all(len(store[clip]) > 0 for clip in ("a.mp4", "f.mp4"))
        assert verify(f"features/folder/{name}").ok
        (log,) = Path(f"features/folder/{name}/runs").glob("*.json")
        (trace,) = json.loads(log.read_text())["crashes"].values()
        assert 'raise RuntimeError("nobody foresaw this")' in trace


def test_a_process_killed_between_clips_is_replaced(job: ClipJob) -> None:
    with Isolated() as isolated:
        isolated(job, lambda chunk: None, ClipFigures())
        (child,) = isolated._children
        os.kill(child._process.pid, signal.SIGKILL)
        child._process.wait()
        outcomes = isolated(job, lambda chunk: None, ClipFigures())
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}


def test_a_process_killed_in_a_clip_costs_that_clip(job: ClipJob) -> None:
    with Isolated() as isolated:

        def kill(chunk: Chunk) -> None:
            for child in isolated._children:
                child._process.kill()

        outcomes = isolated(job, kill, ClipFigures())
        assert {(o.status, o.kind) for o in outcomes.values()} == {("failed", "crash")}
        assert "SIGKILL" in outcomes["vggish"].message


def test_no_process_outlives_its_parent(job: ClipJob) -> None:
    """Whether it leaves in order or because what takes the chunks fails."""
    started: list[subprocess.Popen[bytes]] = []
    with Isolated() as isolated:
        with pytest.raises(ZeroDivisionError):
            isolated(job, lambda chunk: 1 / 0, ClipFigures())  # type: ignore[arg-type, return-value]
        assert not isolated._children
        threads = [
            threading.Thread(target=isolated, args=(job, lambda chunk: None, ClipFigures()))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        started = [child._process for child in isolated._children]
        assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_a_process_that_cannot_start_stops_the_run_and_fails_no_clip(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVFEAT_EXTRACT_ISOLATE", "1")
    monkeypatch.setattr(isolate, "_MODULE", "no_such_module")
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, code=1)
    assert "a decoding process does not start: it ended (exit code 1)" in result.stderr
    assert not list(Path("features/llp/tiny_image").glob("ledger/*.json"))


def test_no_process_is_started_where_none_can_be(
    job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Isolated() as isolated, pytest.raises(ProcessError, match="Resource temporarily"):
        isolated(job, lambda chunk: None, ClipFigures())


def test_too_many_open_files_are_no_clips_fault(
    job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    with Isolated() as isolated, pytest.raises(ProcessError, match="Too many open files"):
        isolated(job, lambda chunk: None, ClipFigures())


def test_a_process_that_cannot_be_started_leaves_no_file_open(
    job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[tuple[socket.socket, socket.socket]] = []
    original = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        pairs.append(original())
        return pairs[-1]

    monkeypatch.setattr(socket, "socketpair", pair)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Isolated() as isolated, pytest.raises(ProcessError, match="cannot be started"):
        isolated(job, lambda chunk: None, ClipFigures())
    assert [end.fileno() for end in pairs[0]] == [-1, -1]


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_everything_are_the_parents(
    job: ClipJob, number: signal.Signals, delay: float
) -> None:
    """Whatever a batch system signals while a process starts."""
    with Isolated() as isolated:
        outcomes: list[dict[str, Outcome]] = []
        thread = threading.Thread(
            target=lambda: outcomes.append(isolated(job, lambda chunk: None, ClipFigures()))
        )
        thread.start()
        while not isolated._children:
            time.sleep(0.01)
        (child,) = isolated._children
        time.sleep(delay)
        os.kill(child._process.pid, number)
        thread.join()
        assert os.getpgid(child._process.pid) != os.getpgid(0)
    assert {outcome.status for outcome in outcomes[0].values()} == {"ok"}


def test_what_is_left_early_is_no_outcome(job: ClipJob) -> None:
    isolated = Isolated()

    def leave(chunk: Chunk) -> None:
        isolated.__exit__(None, None, None)

    with pytest.raises(CancelledError):
        isolated(job, leave, ClipFigures())
    with pytest.raises(CancelledError):  # and nothing is started any more
        isolated(job, lambda chunk: None, ClipFigures())


PARENT = """
import pickle, sys, threading, time
from avfeat.errors import ProcessError
from avfeat.extract import isolate
from avfeat.extract.decode import ClipFigures
isolate._MODULE = "risky_child"
isolated = isolate.Isolated()
job = pickle.load(open(sys.argv[1], "rb"))
threading.Thread(target=isolated, args=(job, print, ClipFigures()), daemon=True).start()
while not any(child._ready for child in isolated._children):
    time.sleep(0.01)
time.sleep(0.5)
print(*(child._process.pid for child in isolated._children), flush=True)
time.sleep(60)
"""


def test_a_hung_decoder_does_not_outlive_its_parent(tmp_path: Path, job: ClipJob) -> None:
    path = tmp_path / "hang.mp4"
    shutil.copyfile(job.path, path)
    (tmp_path / "job").write_bytes(pickle.dumps(dataclasses.replace(job, path=path)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "job")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it lives on")


def test_a_decode_in_this_process_ends_when_nobody_wants_it(job: ClipJob) -> None:
    def refuse(chunk: Chunk) -> None:
        if chunk.backbone != "vggish":  # from the geometry thread
            raise CancelledError

    ended: list[type[BaseException]] = []

    def run() -> None:
        try:
            decode(job, refuse, ClipFigures())
        except CancelledError as error:
            ended.append(type(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == [CancelledError]
