"""Kills at any instant, signals, two writers, a full disk: the store ends whole or says so."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Cli, Corpus, KilledError, die_at_write, tree

import avfeat as package
from avfeat.stores.verify import verify

TINY = Path(__file__).resolve().parents[1] / "tiny.py"
BACKBONES = "tiny_image,tiny_audio"
KILLS = 20


class Server:
    """Starts extractions in processes of their own, without waiting for imports each time."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._process = subprocess.Popen(
            [sys.executable, TINY, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                # As in the command line's fixture.
                "AVFEAT_EXTRACT_ENGINE": "torch",
                "AVFEAT_EXTRACT_ISOLATE": "0",
            },
        )

    def start(self, out: Path, *options: object, sleep: float = 0.0) -> int:
        """Start ``avfeat extract`` into `out`; return the process id."""
        arguments = [sleep, "extract", "-b", BACKBONES, *self._corpus.options, "--out", out]
        line = json.dumps([str(argument) for argument in (*arguments, *options)])
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """Wait for what was started last; return its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(self._answer())

    def run(self, out: Path, *options: object) -> dict[str, bytes]:
        """Run to the end and return the tree."""
        self.start(out, *options)
        assert self.wait() == 0
        return tree(out)

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


@pytest.fixture(scope="module")
def server(corpus: Corpus) -> Iterator[Server]:
    """The server, for all tests of this file."""
    server = Server(corpus)
    yield server
    server.close()


@pytest.fixture(scope="module")
def unbroken(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tree of a run that nothing interrupted."""
    return server.run(tmp_path_factory.mktemp("unbroken"), "--unit-clips", 2)


def test_killed_anywhere_and_run_again_the_tree_is_the_same(
    server: Server, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    """SIGKILL at 20 random instants, several on top of each other."""
    rng = random.Random(7)
    began = time.monotonic()
    server.start(tmp_path / "timed", "--unit-clips", 2, sleep=0.01)
    assert server.wait() == 0
    whole = time.monotonic() - began
    out, cut_short = tmp_path / "first", 0
    for kill in range(KILLS):
        pid = server.start(out, "--unit-clips", 2, sleep=0.01)
        time.sleep(rng.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):  # it may be through already
            os.kill(pid, signal.SIGKILL)
        server.wait()
        cut_short += tree(out) != unbroken
        for name in BACKBONES.split(","):
            if (out / "llp" / name / "manifest.json").exists():
                report = verify(str(out / "llp" / name))
                assert report.ok or not report.units, report.problems
        if kill % 3 == 2:
            assert server.run(out, "--unit-clips", 2) == unbroken
            out = tmp_path / f"after{kill}"
    assert server.run(out, "--unit-clips", 2) == unbroken
    assert cut_short >= KILLS // 2, "the kills came too late to mean anything"


@pytest.mark.parametrize("step", range(12))
def test_killed_at_every_write_of_a_unit_that_is_rewritten(
    avfeat: Cli, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Media came late; the run that adds it dies at write number `step`. Old rows stay readable."""
    own = corpus.copy(tmp_path / "own")
    late = own.media / f"{own.ids[1][:11]}.mp4"
    late.rename(tmp_path / "late.mp4")
    avfeat("extract", "-b", "tiny_image", *own.options)
    store = Path("features/llp/tiny_image")
    kept = package.open_store(store, allow_random=True)[own.ids[0]]
    (tmp_path / "late.mp4").rename(late)

    died = False
    with monkeypatch.context() as patch:
        die_at_write(patch, step)
        try:
            avfeat("extract", "-b", "tiny_image", *own.options, code=None)
        except KilledError:
            died = True
    reader = package.open_store(store, allow_random=True)
    assert reader[own.ids[0]].tobytes() == kept.tobytes()
    avfeat("extract", "-b", "tiny_image", *own.options)
    avfeat("extract", "-b", "tiny_image", *own.options, "--out", "fresh")
    assert tree(store) == tree(Path("fresh/llp/tiny_image"))
    assert died


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_unit_in_hand(
    server: Server, unbroken: dict[str, bytes], tmp_path: Path, number: int, code: int
) -> None:
    pid = server.start(tmp_path, "--unit-clips", 2, sleep=0.05)
    while not list(tmp_path.glob("llp/tiny_image/ledger/*.json")):
        time.sleep(0.01)
    os.kill(pid, number)
    assert server.wait() == code
    for name in BACKBONES.split(","):
        report = verify(str(tmp_path / "llp" / name))
        assert report.ok, report.problems
        assert 1 <= report.units < 5
        assert not list((tmp_path / "llp" / name / "runs").glob("tmp/*"))
        manifest = json.loads((tmp_path / "llp" / name / "manifest.json").read_text())
        assert manifest["at_rest"]
        assert not manifest["complete"]
    assert server.run(tmp_path, "--unit-clips", 2) == unbroken


def test_two_writers_are_one_too_many(
    avfeat: Cli, corpus: Corpus, server: Server, tmp_path: Path
) -> None:
    pid = server.start(tmp_path / "features", sleep=0.05)
    while not (tmp_path / "features/llp/tiny_audio/manifest.json").exists():
        time.sleep(0.01)
    result = avfeat("extract", "-b", BACKBONES, *corpus.options, code=2)
    assert "another process is writing" in result.stderr
    os.kill(pid, signal.SIGKILL)
    server.wait()
    avfeat("extract", "-b", BACKBONES, *corpus.options)  # the lock died with its holder


def test_a_full_disk_is_said_and_loses_nothing(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync
    room = iter(range(10**6))

    def fsync(descriptor: int) -> None:
        if next(room) > 14:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    options = ("extract", "-b", "tiny_image", *corpus.options, "--unit-clips", 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        result = avfeat(*options, code=1)
    assert "disk is full" in result.stderr
    assert "Traceback" not in result.stderr
    report = verify("features/llp/tiny_image")
    assert report.ok
    assert 1 <= report.units < 5
    avfeat(*options)
    avfeat(*options, "--out", "fresh")
    assert tree(Path("features")) == tree(Path("fresh"))
