"""``avfeat extract`` on workers, devices and cores that are not those of this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Cli, Corpus

from avfeat.errors import EngineError, UsageError
from avfeat.extract import cluster, session
from avfeat.extract.backbones import Backbone
from avfeat.extract.engines import threads
from avfeat.extract.plan import Plan, Settings
from avfeat.manifests.clips import ClipManifest
from avfeat.stores.reader import open_store

PLAN = ("extract", "-b", "tiny_image", "--dry-run", "--json")
OPENVINO = ("extract", "-b", "tiny_image", "--engine", "openvino")


class Workers:
    """Answers as the client of workers with a GPU each and so many cores."""

    def __init__(self, *cores: int) -> None:
        self._cores = cores

    def run(self, question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        answers = {}
        for number, cores in enumerate(self._cores):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch.cuda, "is_available", lambda: True)
                patch.setattr(torch.cuda, "device_count", lambda: 1)
                patch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
                answers[f"tcp://worker:{number}"] = question(*arguments)
        return answers


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of the plans that are made, in order."""
    found: list[Settings] = []
    original = session.plan_only

    def note(
        manifest: ClipManifest, chosen: list[Backbone], settings: Settings, *, weights: str
    ) -> tuple[Plan, list[dict[str, Any]]]:
        found.append(settings)
        return original(manifest, chosen, settings, weights=weights)

    monkeypatch.setattr(session, "plan_only", note)
    return found


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_dry_run_plans_for_the_schedulers_workers(
    avfeat: Cli,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    planned: list[Settings],
    device: str,
) -> None:
    addresses = []

    @contextmanager
    def connected(address: str) -> Iterator[Workers]:
        addresses.append(address)
        yield Workers(64, 10)

    monkeypatch.setattr(cluster, "connected", connected)
    options = (*corpus.options, "--device", device, "--engine", "auto", "--precision", "fp16")
    result = avfeat(*PLAN, *options, "--scheduler", "tcp://head:8786")
    (store,) = json.loads(result.stdout)["stores"]
    assert store["engine"] == {"name": "torch", "reason": "the device is cuda"}
    assert addresses == ["tcp://head:8786"]
    assert [(settings.device, settings.decoders) for settings in planned] == [("cuda", 5)]
    assert not Path("features").exists()


def test_a_dry_run_asks_the_workers_of_a_real_scheduler(
    avfeat: Cli, corpus: Corpus, planned: list[Settings]
) -> None:
    options = (*PLAN, *corpus.options, "--engine", "openvino", "--threads", 1)
    with cluster.local(1) as client:
        result = avfeat(*options, "--scheduler", client.scheduler.address)
    assert json.loads(result.stdout)["to_decode"] == 9
    assert planned[0].device == "cpu"
    assert planned[0].decoders == session.default_decoders(1)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_dry_run_takes_gpus_as_they_are_named_and_starts_no_workers(
    avfeat: Cli,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    planned: list[Settings],
    device: str,
) -> None:
    def local(*_: object, **__: object) -> None:
        raise AssertionError("started workers")

    monkeypatch.setattr(cluster, "local", local)
    options = (*corpus.options, "--device", device, "--cluster", "local")
    result = avfeat(*PLAN, *options, "--engine", "auto", "--gpus", "0,1")
    (store,) = json.loads(result.stdout)["stores"]
    assert store["engine"] == {"name": "torch", "reason": "the device is cuda"}
    assert (planned[0].device, planned[0].processes) == ("cuda", 2)
    result = avfeat(*PLAN, *corpus.options, "--device", "cuda", "--cluster", "local", code=2)
    assert "device cuda is not there" in result.stderr


@pytest.mark.parametrize(
    ("cores", "processes", "expected"),
    [((2,), 1, 1), ((64,), 1, 8), ((12,), 2, 3), ((4,), 8, 1), ((64, 12), 1, 6), ((1, 1), 1, 1)],
)
def test_workers_decode_by_half_the_cores_of_the_smallest(
    cores: tuple[int, ...], processes: int, expected: int
) -> None:
    assert session.default_decoders(processes, client=Workers(*cores)) == expected  # type: ignore[arg-type]


def test_cores_are_those_that_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7}, raising=False)
    assert session.cores() == 4
    assert session.default_decoders(1) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert session.cores() == 128
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert session.cores() == 1


def test_threads_that_openvino_does_not_take_are_refused_before_any_work(
    avfeat: Cli, corpus: Corpus
) -> None:
    most = threads.obtainable(1000)
    options = (*OPENVINO, *corpus.options, "--threads", most + 1)
    for more in ((), ("--dry-run",), ("--cluster", "local")):
        result = avfeat(*options, *more, code=2)
        assert f", not {most + 1}: there are no more cores" in result.stderr
        assert f"`--threads {most}` in a new store, or `--engine torch`" in result.stderr
        assert not Path("features/llp/tiny_image/manifest.json").exists()
    avfeat(*options, "--engine", "torch", "--dry-run")


def test_a_new_store_takes_no_more_threads_than_openvino(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = threads.obtainable(1000)
    monkeypatch.setattr("avfeat.extract.plan.default_threads", lambda _: most + 1)
    result = avfeat(*OPENVINO, *corpus.options, "--limit", 1)
    recipe = open_store("features/llp/tiny_image", allow_random=True).recipe
    assert recipe.compute["threads"] == most
    assert "per process" not in result.stderr
    (store,) = json.loads(avfeat(*PLAN, *corpus.options, "-o", "new").stdout)["stores"]
    assert store["threads"] == most + 1  # of torch


@pytest.mark.usefixtures("avfeat")
def test_workers_that_would_take_other_threads_are_named(corpus: Corpus) -> None:
    class Differing:
        def __init__(self, *taken: int) -> None:
            self._taken = taken

        def run(self, *_: object) -> dict[str, int]:
            return {f"tcp://worker:{number}": taken for number, taken in enumerate(self._taken)}

    manifest = session.load_manifest("llp", data=corpus.media, annotations=corpus.annotations)
    chosen = session.choose(["tiny_image"], dataset="llp", device="cpu")
    settings = Settings(out="features", engine="openvino", threads=16)
    plan, _ = session.plan_only(manifest, chosen, settings, weights="random")
    session.check_threads(plan, client=Differing(16, 16))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"takes 8 threads, not 16: "):
        session.check_threads(plan, client=Differing(8, 8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"in --threads: tcp://worker:0 16, tcp://worker:1 8"):
        session.check_threads(plan, client=Differing(16, 8))  # type: ignore[arg-type]
