"""Trainings and their log: found again, damaged, killed in the middle, and on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from collocationkit import make_clips, make_family

from avfeat.collocate import corpus as corpus_module
from avfeat.collocate import training as training_module
from avfeat.collocate.candidates import Candidates, gather
from avfeat.collocate.corpus import Corpus, Source
from avfeat.collocate.hyper import Hyper
from avfeat.collocate.log import Log, Record
from avfeat.collocate.runner import Runner
from avfeat.collocate.search import Search, proxy, traverse
from avfeat.collocate.training import Training, train
from avfeat.errors import FeaturesError
from avfeat.extract import cluster
from avfeat.stores.reader import FeatureStore

TESTS = Path(__file__).resolve().parents[1]
HYPER = Hyper(epochs=2, batch=8)
CLIPS = make_clips({"train": 8, "val": 6, "test": 4})


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    names = ("vggish", "resnet152", "polynet")
    out = make_family(tmp_path_factory.mktemp("features"), CLIPS, names=names)
    return gather(out, dataset=None, audio=["all"], visual=["all"])


@pytest.fixture(scope="module")
def corpus(candidates: Candidates) -> Corpus:
    return Corpus.of(candidates, {"train", "val", "test"}, allow_random=False)


def trainings(candidates: Candidates, **values: Any) -> list[Training]:
    fields = {"motion": None, "train": "val", "val": "val", "test": None, "hyper": HYPER}
    return [
        Training(audio=Source.of(audio), visual=Source.of(visual), **(fields | values))
        for audio, visual in candidates.pairs
    ]


def told(runner_log: list[tuple[str, bool]]) -> Any:
    return lambda ended: runner_log.append((ended.training.visual.name, ended.known))


def without_times(record: Record) -> Record:
    curve = [{**epoch, "seconds": 0} for epoch in record["curve"]]
    return {**record, "curve": curve, "seconds": 0, "digest": ""}


def test_keys_tell_apart_all_that_matters(candidates: Candidates, corpus: Corpus) -> None:
    one, other = trainings(candidates)
    moved = replace(one, audio=replace(one.audio, url="/elsewhere"))
    assert moved.key(corpus) == one.key(corpus)
    variants = [
        other,
        replace(one, hyper=replace(HYPER, seed=2)),
        replace(one, hyper=replace(HYPER, lr=1e-3)),
        replace(one, until=1),
        replace(one, test="test"),
        replace(one, train="train"),
        replace(one, motion=one.visual),
        replace(one, audio=replace(one.audio, fingerprint="0")),
    ]
    assert len({each.key(corpus) for each in [one, *variants]}) == 9
    # Media may change where the recipe stays: of the splits that are used.
    for split, same in (("val", False), ("test", True)):
        rows = {"vggish": "0", **{k: v for k, v in corpus.contents[split].items() if k != "vggish"}}
        other_rows = replace(corpus, contents=corpus.contents | {split: rows})
        used = split in {one.train, one.val, one.test}
        assert (one.key(other_rows) == one.key(corpus)) is same is not used
    fewer = Corpus.of(
        replace(candidates, clips=candidates.clips[:-5]), {"train", "val"}, allow_random=False
    )
    assert fewer.digests["train"] == corpus.digests["train"]
    assert fewer.digests["val"] != corpus.digests["val"]


def test_keys_know_the_classes_and_the_version_of_the_task_model(
    candidates: Candidates, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = trainings(candidates)
    key = one.key(corpus)
    # Other classes or another order of them are other outputs of the network.
    swapped = replace(corpus, classes=corpus.classes[::-1])
    more = replace(corpus, classes=(*corpus.classes, "Bus"))
    assert len({key, one.key(swapped), one.key(more)}) == 3
    monkeypatch.setattr(training_module, "TASK_VERSION", training_module.TASK_VERSION + 1)
    assert one.key(corpus) != key


def test_keys_know_the_kind_of_device(candidates: Candidates, corpus: Corpus) -> None:
    one, _ = trainings(candidates)
    cpu, cuda, second = (
        replace(one, device=name).key(corpus) for name in ("cpu", "cuda", "cuda:1")
    )
    assert one.key(corpus) == cpu != cuda == second


def test_records_are_found_again_and_damaged_ones_made_anew(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    log, heard = Log(str(tmp_path / "log")), []  # type: ignore[var-annotated]
    asked = trainings(candidates)
    first = Runner(corpus, log, listener=told(heard)).run(asked)
    assert [known for _, known in heard] == [False, False]
    assert [record["pair"] for record in first] == [list(one.pair) for one in asked]
    (record, _) = first
    assert [epoch["epoch"] for epoch in record["curve"]] == [1, 2]
    best = max(epoch["type_av"] for epoch in record["curve"])
    assert record["scores"]["segment"]["type_av"] == best
    assert record["seconds"] == pytest.approx(sum(e["seconds"] for e in record["curve"]))
    files = sorted((tmp_path / "log" / "trainings").iterdir())
    assert len(files) == 2
    damaged = next(path for path in files if record["key"].startswith(path.stem))
    damaged.write_bytes(damaged.read_bytes().replace(b'"best_epoch": ', b'"best_epoch": 1'))
    heard.clear()
    again = Runner(corpus, log, listener=told(heard)).run(asked)
    assert sorted(heard) == sorted([(asked[0].visual.name, False), (asked[1].visual.name, True)])
    assert [without_times(r) for r in again] == [without_times(r) for r in first]
    for content in (b"", b"{}", b"[1]", b"\xff"):
        damaged.write_bytes(content)
        assert log.find(record["key"]) is None


def test_pauses_change_nothing_and_seconds_are_counted_once(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    asked = trainings(candidates)[:1]
    (whole,) = Runner(corpus, Log(str(tmp_path / "a"))).run(asked)
    runner = Runner(corpus, Log(str(tmp_path / "b")))
    paused = [replace(asked[0], until=1)]
    (first,) = runner.run(paused)
    (then,) = runner.run(asked, going_on=paused)
    assert without_times(then) == without_times(whole)
    assert (len(first["curve"]), len(then["curve"])) == (1, 2)
    assert then["curve"][0]["seconds"] == first["curve"][0]["seconds"]
    assert then["seconds"] == sum(epoch["seconds"] for epoch in then["curve"])
    # In another process the pause is gone: it starts from the beginning, to the same end.
    (tmp_path / "b" / "trainings" / f"{then['key'][:32]}.json").unlink()
    (later,) = Runner(corpus, Log(str(tmp_path / "b"))).run(asked, going_on=paused)
    assert without_times(later) == without_times(whole)
    # Where all epochs are known, a pause of them is.
    (known,) = Runner(corpus, Log(str(tmp_path / "a"))).run(paused)
    assert without_times(known) == without_times(whole)


def test_trainings_run_by_visual_backbone_and_return_in_the_order_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that has room for one visual store reads each of them once."""
    out = make_family(tmp_path / "f", CLIPS, names=("vggish", "openl3", "resnet152", "polynet"))
    candidates = gather(out, dataset=None, audio=["vggish", "openl3"], visual=["all"])
    corpus = Corpus.of(candidates, {"val"}, allow_random=False)
    opened: list[str] = []

    class Watched(FeatureStore):
        def __init__(self, url: str, *, allow_random: bool = False) -> None:
            opened.append(Path(url).name)
            super().__init__(url, allow_random=allow_random)

    monkeypatch.setattr(corpus_module, "_cache", corpus_module._Cache())
    monkeypatch.setattr(corpus_module, "FeatureStore", Watched)
    # Six clips of four seconds: room for both audio stores and one visual one.
    monkeypatch.setattr(corpus_module, "_KEPT_BYTES", 6 * 4 * 4 * (5 + 7 + 8))
    ran: list[tuple[str, str]] = []
    asked = trainings(candidates, hyper=replace(HYPER, epochs=1))
    log = Log(str(tmp_path / "log"))
    records = Runner(corpus, log, listener=lambda e: ran.append(e.training.pair)).run(asked)
    assert [tuple(record["pair"]) for record in records] == [one.pair for one in asked]
    assert ran == [
        ("vggish", "polynet"),
        ("openl3", "polynet"),
        ("vggish", "resnet152"),
        ("openl3", "resnet152"),
    ]
    assert [name for name in opened if name in ("polynet", "resnet152")] == ["polynet", "resnet152"]


def test_a_training_that_diverges_is_recorded_and_not_done_again(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    log, heard = Log(str(tmp_path)), []  # type: ignore[var-annotated]
    bad, good = trainings(candidates)
    asked = [replace(bad, hyper=replace(HYPER, lr=1e38)), good]
    found = Runner(corpus, log, listener=told(heard)).run(asked)
    assert [record["diverged"] for record in found] == [True, False]
    assert found[0]["scores"] is None
    heard.clear()
    assert Runner(corpus, log, listener=told(heard)).run(asked) == [
        log.find(record["key"]) for record in found
    ]
    assert [known for _, known in heard] == [True, True]


def test_halving_then_all_on_one_log_tells_all_seconds(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    log = Log(str(tmp_path))

    def search(*, halving: bool) -> Search:
        return proxy(
            Runner(corpus, log),
            [(Source.of(a), Source.of(v)) for a, v in candidates.pairs],
            motion=None,
            split="val",
            hyper=replace(HYPER, epochs=4),
            seeds=(1,),
            grid=(1e-3,),
            halving=halving,
        )

    search(halving=True)
    full = search(halving=False)
    assert [len(record["curve"]) for record in full.records] == [4, 4]
    own = sum(epoch["seconds"] for record in full.records for epoch in record["curve"])
    assert full.seconds == pytest.approx(own)
    assert sum(record["seconds"] for record in full.records) == pytest.approx(own)


def test_what_was_dropped_is_forgotten(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    runner = Runner(corpus, Log(str(tmp_path)))
    paused = [replace(one, until=1) for one in trainings(candidates)]
    runner.run(paused)
    assert len(runner._paused) == 2
    runner.run(trainings(candidates)[:1], going_on=paused[:1])
    assert runner._paused == {}


def test_traversal_ranks_as_direct_trainings_do(
    candidates: Candidates, corpus: Corpus, tmp_path: Path
) -> None:
    pairs = [(Source.of(a), Source.of(v)) for a, v in candidates.pairs]
    found = traverse(
        Runner(corpus, Log(str(tmp_path))),
        pairs,
        motion=None,
        splits=("train", "val", "test"),
        hyper=HYPER,
        seeds=(3,),
    )
    values = {}
    for audio, visual in pairs:
        asked = Training(
            audio=audio,
            visual=visual,
            motion=None,
            train="train",
            val="val",
            test="test",
            hyper=replace(HYPER, seed=3),
        )
        values[asked.pair] = train(asked, corpus)[0]["scores"]["segment"]["type_av"]
    assert {place.pair: place.value for place in found.places} == values
    assert [place.value for place in found.places] == sorted(values.values(), reverse=True)


KILLED = """
import sys
from test_runner import run_proxy
run_proxy(sys.argv[1], sys.argv[2])
"""


def run_proxy(out: str, log: str) -> Any:
    candidates = gather(out, dataset=None, audio=["all"], visual=["all"])
    corpus = Corpus.of(candidates, {"val"}, allow_random=False)
    heard: list[tuple[str, bool]] = []
    found = proxy(
        Runner(corpus, Log(log), listener=told(heard)),
        [(Source.of(a), Source.of(v)) for a, v in candidates.pairs],
        motion=None,
        split="val",
        hyper=HYPER,
        seeds=(1,),
        grid=(3e-4, 1e-3, 3e-3),
    )
    return found, heard


def test_killed_in_the_middle_it_goes_on(candidates: Candidates, tmp_path: Path) -> None:
    out = str(Path(candidates.audio[0].store.url).parents[1])
    folder = tmp_path / "log" / "trainings"
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS / 'collocate'}"}
    command = [sys.executable, "-c", KILLED, out, str(tmp_path / "log")]
    with subprocess.Popen(command, env=environment) as process:
        while not (folder.is_dir() and list(folder.iterdir())):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = {path.stem for path in folder.glob("*.json")}
    assert process.returncode == -signal.SIGKILL
    found, heard = run_proxy(out, str(tmp_path / "log"))
    trained = sum(not known for _, known in heard)
    # Three rates, and two pairs at the best one of them, of which one is known by then.
    everything = {path.stem for path in folder.glob("*.json")}
    assert before <= everything
    assert trained == len(everything) - len(before)
    unbroken, _ = run_proxy(out, str(tmp_path / "other"))
    assert [without_times(r) for r in found.records] == [without_times(r) for r in unbroken.records]
    assert (found.best, found.facts) == (unbroken.best, unbroken.facts)
    assert {json.loads(path.read_text())["key"] for path in folder.glob("*.json")} >= {
        record["key"] for record in found.records
    }


def test_two_workers_give_the_same_records(
    candidates: Candidates, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one thread, by which a worker's numbers are those of this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        asked = trainings(candidates)
        paused = [replace(one, until=1) for one in asked]
        here = Runner(corpus, Log(str(tmp_path / "here"))).run(asked)
    finally:
        torch.set_num_threads(threads)
    with cluster.local(2) as client:
        runner = Runner(corpus, Log(str(tmp_path / "there")), client=client)
        runner.run(paused)
        there = runner.run(asked, going_on=paused)
        assert [without_times(r) for r in there] == [without_times(r) for r in here]
        broken = replace(asked[0], audio=replace(asked[0].audio, fingerprint="other"))
        with pytest.raises(FeaturesError, match="vggish was changed"):
            runner.run([broken, replace(asked[1], hyper=replace(HYPER, seed=9))])
