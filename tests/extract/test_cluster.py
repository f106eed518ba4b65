"""Units on Dask workers: the same bytes as in one process, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dask
import psutil
import pytest
import torch
from distributed import get_worker
from support import Cli, Corpus, tree

import avfeat as package
from avfeat import errors
from avfeat.errors import (
    AvfeatError,
    ClusterError,
    IntegrityError,
    ProcessError,
    ReadError,
    StoreBusyError,
    UsageError,
    WriteError,
)
from avfeat.extract import cluster, session, worker
from avfeat.extract.backbones import get
from avfeat.extract.engine import RunFigures
from avfeat.extract.models import Model
from avfeat.extract.plan import Settings
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.work import Unit, UnitDone, UnitStore
from avfeat.manifests.clips import Clip, Outcome
from avfeat.stores.files import Files
from avfeat.stores.reader import open_store

if TYPE_CHECKING:
    from distributed import Client

TESTS = Path(__file__).resolve().parents[1]
BACKBONES = "tiny_image,tiny_audio,tiny_map"
OPTIONS = ("--unit-clips", 2, "--threads", 1)
SETUP = worker.Setup({"avfeat": package.__version__}, (), 1, isolate=False)


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


def spread(
    client: Client, count: int, begun: list[int] | None = None
) -> Iterator[tuple[int, worker.Extracted | ClusterError]]:
    """What becomes of so many units without clips; the numbers of those begun go to `begun`."""

    def units() -> Iterator[Unit]:
        for number in range(count):
            if begun is not None:
                begun.append(number)
            yield Unit(number, {}, ())

    for unit, outcome in cluster._spread(client, units(), SETUP, lambda: False):
        yield unit.number, outcome


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


def test_a_sick_worker_costs_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is always the first to be idle."""
    client.wait_for_workers(2)  # other tests kill some
    sick = min(client.scheduler_info()["workers"])

    def extract(unit: Unit, setup: worker.Setup) -> worker.Extracted | worker.Failed:
        here = get_worker().address
        if here == sick:
            return worker.Failed("OSError: its disk is full", "where", here)
        time.sleep(0.05)  # the sick one could have them all
        return worker.Extracted(UnitDone(unit.number, {}, {}), RunFigures(), here)

    monkeypatch.setattr(cluster, "extract", extract)
    done = dict(spread(client, 8))
    assert sorted(done) == list(range(8))
    for outcome in done.values():
        assert isinstance(outcome, worker.Extracted)
        assert outcome.process != sick


def test_a_unit_that_fails_everywhere_is_given_up_and_the_others_are_done(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(unit: Unit, setup: worker.Setup) -> worker.Extracted | worker.Failed:
        here = get_worker().address
        if unit.number in (0, 2):
            return worker.Failed("RuntimeError: CUDA out of memory", "the traceback", here)
        return worker.Extracted(UnitDone(unit.number, {}, {}), RunFigures(), here)

    monkeypatch.setattr(cluster, "extract", extract)
    done = dict(spread(client, 5))
    assert sorted(done) == list(range(5))
    for number, outcome in done.items():
        assert isinstance(outcome, ClusterError) == (number in (0, 2))
    assert re.fullmatch(
        r"unit 2 was given up: it failed 3 times, the last time at tcp://127.0.0.1:\d+: "
        r"RuntimeError: CUDA out of memory. The same command tries it again",
        str(done[2]),
    )
    assert getattr(done[2], "__notes__", None) == ["the traceback"]


def test_units_that_all_fail_end_the_run(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def extract(unit: Unit, setup: worker.Setup) -> worker.Failed:
        return worker.Failed("TypeError: a bug", "where", get_worker().address)

    monkeypatch.setattr(cluster, "extract", extract)
    begun: list[int] = []
    words = "TypeError: a bug.*; 3 units failed one after another, so the others are not tried"
    with pytest.raises(ClusterError, match=words):
        list(spread(client, 50, begun))
    assert len(begun) < 10


def test_errors_of_a_machine_come_back_and_those_of_the_run_are_raised(client: Client) -> None:
    class Writer:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def rows(self) -> object:
            raise self.error

    def failing(error: Exception) -> Unit:
        store = UnitStore(get("vggish").spec, 1, cast(Any, Writer(error)), {})
        return Unit(7, {"vggish": store}, ())

    mine: list[Exception] = [
        WriteError("s3://b: not now"),
        ReadError("no"),
        ProcessError("none"),
        OSError(28, "No space left on device"),
        RuntimeError("CUDA error"),
    ]
    for error in mine:
        found = client.submit(worker.extract, failing(error), SETUP, pure=False).result()
        assert found.message == f"{type(error).__name__}: {error}"
        assert found.trace.startswith("Traceback")
        assert found.worker in client.scheduler_info()["workers"]
    for error in (StoreBusyError("the run is over"), IntegrityError("changed"), ClusterError("no")):
        with pytest.raises(type(error), match=str(error)):
            list(cluster._spread(client, iter([failing(error)]), SETUP, lambda: False))


class Given:
    """What a unit will have come to, as the future of `Workers`."""

    def __init__(self, unit: Unit) -> None:
        done = UnitDone(unit.number, {}, {})
        self.outcome: worker.Extracted | worker.Failed = worker.Extracted(done, RunFigures(), "b")

    def result(self) -> worker.Extracted | worker.Failed:
        return self.outcome


class Workers:
    """A client of workers that do not work, and may come and go."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = set(addresses)
        self.only: list[list[str] | None] = []
        self.cancelled: list[Given] = []

    def submit(
        self, _: object, unit: Unit, setup: object, *, pure: bool, workers: list[str] | None
    ) -> Given:
        self.only.append(workers)
        return Given(unit)

    def cancel(self, futures: list[Given], *, force: bool) -> None:
        self.cancelled += futures

    def scheduler_info(self, *, n_workers: int) -> dict[str, object]:
        return {"workers": dict.fromkeys(self.addresses)}


def test_workers_that_come_late_are_given_units_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Workers("a")
    in_hand: list[int] = []

    def ended(futures: list[Given]) -> Given | None:
        in_hand.append(len(futures))
        client.addresses.add("b")
        return futures[0] if len(in_hand) > 2 else None

    monkeypatch.setattr(cluster, "_ended", ended)
    assert sorted(number for number, _ in spread(cast(Any, client), 5)) == list(range(5))
    assert in_hand == [2, 4, 4, 4, 3, 2, 1]


def test_a_unit_does_not_wait_for_workers_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Workers("a", "b")

    waited: list[Given] = []

    def ended(futures: list[Given]) -> Given | None:
        (future,) = futures
        if len(client.only) == 1:
            future.outcome = worker.Failed("OSError: not now", "", "a")
        elif len(client.only) == 2:
            client.addresses = {"a"}
            waited.append(future)
            return None
        return future

    monkeypatch.setattr(cluster, "_ended", ended)
    assert len(list(spread(cast(Any, client), 1))) == 1
    assert client.only == [None, ["b"], None]  # the one that failed is better than none
    assert client.cancelled == waited


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


def test_each_local_worker_has_its_gpu_and_its_tasks() -> None:
    with cluster.local(2, gpus=[3, 5], at_once=1) as client:
        devices = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(devices.values()) == ["3", "5"]
        assert list(client.nthreads().values()) == [1, 1]


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
