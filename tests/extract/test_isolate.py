"""What crashes or hangs a decoder costs one clip; what comes through a process is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import Cli, Corpus, tree

import avfeat as package
from avfeat.extract import isolate
from avfeat.extract.backbones import get
from avfeat.extract.decode import Chunk, ClipFigures, ClipJob, decode
from avfeat.extract.isolate import Isolated
from avfeat.manifests.clips import Clip
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
