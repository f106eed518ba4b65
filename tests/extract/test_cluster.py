"""Units on Dask workers: the same bytes as in one process, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import psutil
import pytest
import torch
from support import Cli, Corpus, tree

from avfeat import errors
from avfeat.errors import AvfeatError, ClusterError, UsageError
from avfeat.extract import cluster, session, worker
from avfeat.extract.models import Model
from avfeat.extract.plan import Settings
from avfeat.extract.weights.info import WeightsInfo
from avfeat.manifests.clips import Clip, Outcome
from avfeat.stores.files import Files
from avfeat.stores.reader import open_store

if TYPE_CHECKING:
    from distributed import Client

TESTS = Path(__file__).resolve().parents[1]
BACKBONES = "tiny_image,tiny_audio,tiny_map"
OPTIONS = ("--unit-clips", 2, "--threads", 1)


@pytest.fixture(scope="module")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While it is there, tiny_deadly ends the workers that run it."""
    return tmp_path_factory.mktemp("flag") / "deadly"


@pytest.fixture(scope="module")
def client(flag: Path) -> Iterator[Client]:
    """Two workers for the tests of this file; one that dies is started anew."""
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.scheduler.allowed-failures": 2}),
    ):
        patch.setenv("TINY_DEADLY", str(flag))
        with cluster.local(2) as client:
            yield client


@pytest.fixture
def expected(avfeat: Cli, corpus: Corpus) -> dict[str, bytes]:
    """The stores of one process, in the folder ``here``."""
    avfeat("extract", "-b", BACKBONES, *corpus.options, *OPTIONS, "-o", "here")
    return tree(Path("here"))


class Murderer:
    """Kills a worker after each of the first `times` units."""

    def __init__(self, client: Client, times: int) -> None:
        self._client = client
        self.left = times

    def clip_done(self, clip: Clip, outcomes: dict[str, Outcome]) -> None:
        """No listener of units needs it."""

    def unit_committed(self, unit: int) -> None:
        """Kill whichever worker answers first."""
        if self.left:
            self.left -= 1
            pids = self._client.run(os.getpid, on_error="ignore")
            os.kill(next(iter(pids.values())), signal.SIGKILL)


def test_local_workers_write_the_bytes_of_one_process(
    avfeat: Cli, corpus: Corpus, expected: dict[str, bytes]
) -> None:
    options = ("-b", BACKBONES, *corpus.options, *OPTIONS, "--cluster", "local", "--workers", 2)
    result = json.loads(avfeat("extract", *options, "-o", "there", "--json").stdout)
    assert tree(Path("there")) == expected
    assert result["clips_decoded"] == 9
    assert result["stages"]["decode"]["items"] > 0
    assert [store["counts"] for store in result["stores"]] == [{"ok": 9, "missing": 1}] * 3


def test_workers_of_any_scheduler_are_used(
    avfeat: Cli, corpus: Corpus, expected: dict[str, bytes], client: Client
) -> None:
    options = ("-b", BACKBONES, *corpus.options, *OPTIONS, "-o", "there")
    avfeat("extract", *options, "--split", "test", "--scheduler", client.scheduler.address)
    avfeat("extract", *options, "--scheduler", client.scheduler.address)  # goes on
    assert tree(Path("there")) == expected


def test_dead_workers_units_are_done_by_others(
    avfeat: Cli, corpus: Corpus, expected: dict[str, bytes], client: Client
) -> None:
    manifest = session.load_manifest("llp", data=corpus.media, annotations=corpus.annotations)
    settings = Settings(out="there", unit_clips=2, sampling="avvp", engine="torch", threads=1)
    chosen = session.choose(BACKBONES.split(","), dataset="llp", device="cpu")
    listener = Murderer(client, 2)
    with session.open_plan(manifest, chosen, settings, weights="random") as plan:
        report = session.execute(plan, listener=listener, client=client)
    assert listener.left == 0
    assert not report.interrupted
    assert tree(Path("there")) == expected


def test_units_that_kill_every_worker_are_named_and_done_by_the_next_run(
    avfeat: Cli, corpus: Corpus, client: Client, flag: Path
) -> None:
    flag.touch()
    options = ("-b", "tiny_deadly", *corpus.options, "--unit-clips", 5, "--split", "test")
    address = client.scheduler.address
    result = avfeat("extract", *options, "-o", "there", "--scheduler", address, code=1)
    assert "unit 1 (_clipNumb07_70_80 to _clipNumb09_90_100) was given up" in result.stderr
    assert "3 workers died of it" in result.stderr
    flag.unlink()
    avfeat("extract", *options, "-o", "there", "--scheduler", address)
    avfeat("extract", *options, "-o", "here")
    assert tree(Path("there")) == tree(Path("here"))


@pytest.mark.parametrize("name", ["av", "avfeat"])
def test_workers_with_other_versions_are_refused(
    avfeat: Cli, corpus: Corpus, client: Client, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    original = cluster.versions
    monkeypatch.setattr(cluster, "versions", lambda names: original(names) | {name: "9.9"})
    options = ("-b", "tiny_image", *corpus.options, "-o", "there")
    result = avfeat("extract", *options, "--scheduler", client.scheduler.address, code=1)
    assert f"has other versions than this process: {name} " in result.stderr
    assert "not 9.9" in result.stderr


def test_only_this_machine_can_connect_to_local_workers(client: Client) -> None:
    assert client.scheduler.address.startswith("tcp://127.0.0.1:")
    for hosts in (_listening(), *client.run(_listening).values()):
        assert hosts == {"127.0.0.1"}


def test_workers_that_differ_are_named(client: Client) -> None:
    with pytest.raises(UsageError, match=r"the workers differ in pids: tcp://127.0.0.1:\d+ \d+, "):
        cluster.ask(client, os.getpid, about="pids")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_gpus_that_are_not_there_are_refused(avfeat: Cli, corpus: Corpus) -> None:
    options = ("-b", "tiny_image", *corpus.options, "--cluster", "local", "--gpus", "0")
    result = avfeat("extract", *options, "--device", "auto", code=2)
    assert "device cuda is not there: torch sees 0 CUDA devices" in result.stderr


def test_rows_that_only_the_workers_see_are_not_done(
    avfeat: Cli, corpus: Corpus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Files.read

    def blind(files: Files, name: str) -> bytes:
        if name == "ledger/000000.json":
            raise FileNotFoundError(name)
        return read(files, name)

    monkeypatch.setattr(Files, "read", blind)
    monkeypatch.setattr(cluster, "VISIBLE", 0.3)
    options = ("-b", "tiny_image", *corpus.options, "-o", "there")
    result = avfeat("extract", *options, "--scheduler", client.scheduler.address, code=1)
    assert "a worker wrote ledger/000000.json of" in result.stderr
    assert "must see the stores by the same paths" in result.stderr


def test_workers_compute_with_the_threads_of_the_plan(
    avfeat: Cli, corpus: Corpus, client: Client
) -> None:
    options = ("-b", "tiny_threads", *corpus.options, "--limit", 1, "-o", "there")
    avfeat("extract", *options, "--threads", 3, "--scheduler", client.scheduler.address)
    store = open_store("there/llp/tiny_threads", allow_random=True)
    assert (store[corpus.ids[0]] == 3).all()
    assert store.recipe.compute["threads"] == 3


def test_networks_are_kept_from_run_to_run(corpus: Corpus) -> None:
    def setup(*threads: int) -> worker.Setup:
        chosen = session.choose(["tiny_image"], dataset="llp", device="cpu")
        models = [
            (str(n), Model(chosen[0], WeightsInfo.random(0), "cpu", "fp32", "torch", 2, n))
            for n in threads
        ]
        return worker.Setup(worker.versions(["av"]), tuple(models), 1, isolate=True)

    first = worker._networks(setup(1))
    again = worker._networks(pickle.loads(pickle.dumps(setup(2, 1))))
    assert again["1"] is first["1"]
    assert worker._networks(setup(2)) == {"2": again["2"]}
    assert worker._networks(setup(1))["1"] is not first["1"]
    assert worker._decoder(setup(1)) is worker._decoder(setup(2))


def test_ctrl_c_ends_a_run_after_the_units_in_hand(
    avfeat: Cli, corpus: Corpus, expected: dict[str, bytes]
) -> None:
    options = ("extract", "-b", BACKBONES, *corpus.options, *OPTIONS, "-o", "there")
    run = subprocess.Popen(
        [
            *(sys.executable, "-c", "import tiny; from avfeat.cli import main; main()"),
            *map(str, options),
            *("--cluster", "local", "--workers", "2"),
        ],
        env={**os.environ, "TINY_SLEEP": "0.2", "PYTHONPATH": str(TESTS)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 400
        while not list(Path("there").glob("llp/*/ledger/*.json")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(300) == 130
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    done = tree(Path("there"))
    assert done.keys() < expected.keys()
    avfeat(*options)
    assert tree(Path("there")) == expected


def test_a_scheduler_that_does_not_answer_is_named(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    options = ("-b", "tiny_image", *corpus.options, "--scheduler", "tcp://127.0.0.1:9")
    result = avfeat("extract", *options, code=1)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.stderr
    assert not Path("features").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", 2), "--workers goes with --cluster local"),
        (("--gpus", "0"), "--gpus goes with --cluster local"),
        (("--cluster", "local", "--gpus", "0;1"), "numbers with commas"),
        (("--cluster", "local", "--scheduler", "tcp://h:1"), "leave out --scheduler"),
        (("--cluster", "local", "--gpus", "0"), "leave it out with --device cpu"),
        (("--cluster", "local", "-o", "memory://m"), "workers cannot see the memory"),
    ],
)
def test_options_that_do_not_go_together(
    avfeat: Cli, corpus: Corpus, options: tuple[object, ...], words: str
) -> None:
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, *options, code=2)
    assert words in result.stderr


def test_every_error_comes_back_from_a_worker_as_it_was() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = [kind for kind in kinds if issubclass(kind, AvfeatError)]
    assert ClusterError in ours
    for kind in ours:
        error = _example(kind)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.kind) == (kind, str(error), error.kind)


def _listening() -> set[str]:
    found = psutil.Process().net_connections("inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def _example(kind: type[AvfeatError]) -> AvfeatError:
    if kind is errors.UnknownNameError:
        return errors.UnknownNameError("backbone", "resnet", ["resnet152"])
    if kind is errors.MediaError:
        return errors.MediaError("truncated", "a.mp4: the file is cut off")
    if kind is errors.UnknownClipError:
        return errors.UnknownClipError("clap", ["clip"])
    return kind("what happened; what to do")
