"""The document: what is refused before any work, and how methods are held against each other."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collocationkit import make_clips, make_family
from rich.console import Console

from avfeat import render_collocation
from avfeat.collocate import report, search, session
from avfeat.collocate.candidates import Candidates, gather
from avfeat.collocate.hyper import Hyper
from avfeat.collocate.score_table import Options
from avfeat.collocate.search import Place, Search
from avfeat.collocate.session import Settings
from avfeat.errors import CollocationError, UsageError

CLIPS = make_clips({"train": 12, "val": 8, "test": 6})
SCORING = Options(names=("cka", "svd"), k=2, workers=1)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    out = make_family(tmp_path_factory.mktemp("features"), CLIPS)
    return gather(out, dataset=None, audio=["vggish"], visual=["all"])


def place(pair: tuple[str, str], value: float, epochs: int = 4) -> Place:
    metrics = ("audio", "visual", "audio_visual", "type_av", "event_av")
    scores = {level: dict.fromkeys(metrics, value) for level in ("segment", "event")}
    return Place(pair, value, None, epochs, ({"key": str(pair), "scores": scores},))


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Searches that find what a test says, and train nothing."""
    found: dict[str, Any] = {}

    def fake(method: str) -> Any:
        def search(runner: object, pairs: object, **options: Any) -> Search:
            found[f"{method} options"] = options
            records = ({"key": "k", "pair": [], "motion": "", "splits": {}, "hyper": {}},)
            return Search(
                method,
                tuple(found[method]),
                tuple(r | {"curve": [{"seconds": 2.0}]} for r in records),
            )

        return search

    monkeypatch.setattr(search, "proxy", fake("proxy"))
    monkeypatch.setattr(search, "traverse", fake("traverse"))
    return found


def test_scores_alone_need_no_other_split(candidates: Candidates) -> None:
    read: list[str] = []
    document = session.collocate(candidates, Settings(scoring=SCORING), reading=read.append)
    assert read == ["vggish", "polynet", "resnet152"]
    assert json.loads(json.dumps(document)) == document
    assert document["searches"] == {}
    assert "evidence" not in document
    assert [row["names"] for row in document["pairs"]] == [
        ["vggish", "polynet"],
        ["vggish", "resnet152"],
    ]
    assert document["pairs"][0]["angles"]["printed"]["interval"] is None
    assert document["motion"] == "r2plus1d_18"
    assert document["stores"]["polynet"]["weights"] == "published"


def test_intervals_are_in_the_document(candidates: Candidates) -> None:
    scoring = dataclasses.replace(SCORING, resamples=30, names=("svd", "subspace"))
    document = session.collocate(candidates, Settings(scoring=scoring))
    assert document["resamples"] == 30
    for row in [*document["pairs"], *document["singles"]]:
        for form in ("printed", "centred"):
            interval = row["angles"][form]["interval"]
            assert [len(ends) for ends in interval] == [2, 2]
            assert all(0 <= low <= high <= 1 for low, high in interval)


def test_why_a_gap_is_closed_is_in_the_document(candidates: Candidates) -> None:
    document = session.collocate(candidates, Settings(scoring=SCORING))
    clips, splits = document["splits"]["clips"], document["splits"]
    for row in [*document["pairs"], *document["singles"]]:
        printed = row["angles"]["printed"]
        for side in ("source", "target"):
            assert printed["thresholds"][side] == pytest.approx(np.sqrt(2 / clips[splits[side]]))
            assert 0 <= printed["last_gaps"][side] <= 1
        for gap, open_ in zip(printed["gaps"], printed["determined"], strict=True):
            assert gap >= min(printed["thresholds"].values()) or not open_
            assert gap < max(printed["thresholds"].values()) or open_


def test_methods_are_held_against_the_traversal(
    candidates: Candidates, searched: dict[str, Any]
) -> None:
    one, two = ("vggish", "polynet"), ("vggish", "resnet152")
    searched["traverse"] = [place(two, 55.0), place(one, 50.0)]
    # The dropped pair had reached more at its pause than the other one at its end.
    searched["proxy"] = [place(two, 30.0), place(one, 40.0, epochs=1)]
    settings = Settings(method="all", scoring=SCORING, halving=True, hyper=Hyper(epochs=4))
    document = session.collocate(candidates, settings)
    evidence = document["evidence"]
    assert list(evidence) == ["cka", "svd", "proxy"]
    proxy = evidence["proxy"]
    assert (tuple(proxy["best"]), proxy["regret"], proxy["rank"]) == (two, 0.0, 1)
    assert (proxy["seconds"], proxy["times_cheaper"]) == (2.0, 1.0)
    cka = {tuple(row["names"]): row["scores"]["cka"]["value"] for row in document["pairs"]}
    best = max(cka, key=lambda pair: cka[pair])
    assert tuple(evidence["cka"]["best"]) == best
    assert evidence["cka"]["regret"] == (0.0 if best == two else 5.0)
    assert searched["proxy options"]["split"] == "val"
    assert searched["traverse options"]["splits"] == ("train", "val", "test")
    assert "halving" not in searched["traverse options"]  # the truth is never cut short
    assert document["searches"]["proxy"]["places"][1]["epochs"] == 1


def test_a_pair_that_diverged_is_told_everywhere(
    candidates: Candidates, searched: dict[str, Any]
) -> None:
    one, two = ("vggish", "polynet"), ("vggish", "resnet152")
    lost = dataclasses.replace(
        place(one, 0.0), value=None, records=({"key": "lost", "scores": None},)
    )
    searched["traverse"] = searched["proxy"] = [place(two, 55.0), lost]
    settings = Settings(method="all", scoring=SCORING, hyper=Hyper(epochs=4))
    document = session.collocate(candidates, settings)
    told = document["searches"]["traverse"]["places"][1]
    assert (told["type_av"], told["diverged"], told["scores"]) == (None, True, [None])
    assert document["evidence"]["proxy"]["pairs"] == 1
    console = Console(width=200, record=True, file=io.StringIO())
    render_collocation.collocation(console, document)
    lines = console.export_text().splitlines()
    choices = [line for line in lines if "its choice, vggish + polynet, diverged in" in line]
    assert sum("diverged" in line for line in lines) == 2 + len(choices)
    scores = {
        name: {tuple(row["names"]): row["scores"][name]["value"] for row in document["pairs"]}
        for name in SCORING.names
    }
    assert [name for name, one in document["evidence"].items() if "diverged" in one["reason"]] == [
        name for name, values in scores.items() if values[one] > values[two]
    ]
    assert len(choices) == sum(values[one] > values[two] for values in scores.values()) > 0
    page = report.render(document)
    assert "diverged</td>" in page


def test_refused_before_any_work(
    candidates: Candidates, searched: dict[str, Any], tmp_path: Path
) -> None:
    read: list[str] = []

    def refused(words: str, **values: Any) -> None:
        with pytest.raises(CollocationError, match=words):
            session.collocate(
                candidates, Settings(**({"scoring": SCORING} | values)), reading=read.append
            )

    refused(
        "the train split of llp has no labels by the second",
        method="all",
        scoring=dataclasses.replace(SCORING, source="test", target="train"),
        test="val",
    )
    refused("--test val has clips that it trains on or chooses by", method="all", test="val")
    refused("split 'dev'", method="traverse", test="dev")
    assert read == []
    with pytest.raises(UsageError, match="method traverse has none"):
        Settings(method="traverse", halving=True)
