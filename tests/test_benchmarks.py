"""The benchmarks run, with tiny networks and clips; nothing here looks at a clock."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as main
from benchmarks import report
from benchmarks.figure import Figure, least, most, plain
from benchmarks.setting import Setting, alternate


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    # Preparing networks for another engine would take longer than all the rest.
    return Setting(tmp_path_factory.mktemp("benchmarks"), quick=True, engine="torch")


# Somebody else on the machine may have a Dask scheduler too.
@pytest.mark.filterwarnings("ignore:Port 8787 is already in use:UserWarning")
@pytest.mark.parametrize("section", main.SECTIONS)
def test_every_section_runs(
    section: str, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path))
    figures = list(main.section(section)(setting))
    assert figures
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        # A choice that loses nothing is the best there is.
        assert figure.value > 0 or (figure.value == 0 and figure.bound == "most")
        assert (figure.met is None) == (figure.target is None)
        json.dumps(report.record(section, figure, load=0.0))


def test_targets_are_bounds() -> None:
    assert least("a", 1.8, 1.8, "").met
    assert not least("a", 1.79, 1.8, "").met
    assert most("a", 1.08, 1.08, "").met
    assert not most("a", 1.09, 1.08, "").met
    assert plain("a", 1.0, "s", "").met is None


def test_nobody_always_runs_after_the_same_one() -> None:
    order: list[str] = []
    found = alternate(
        {"a": lambda: order.append("a"), "b": lambda: 2.0 if not order.append("b") else 0.0},
        repeats=2,
    )
    assert order == ["a", "b", "b", "a"]
    assert found["b"] == [2.0, 2.0]
    assert all(seconds < 1 for seconds in found["a"])


def test_results_that_were_not_measured_again_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, page = tmp_path / "benchmarks.md", tmp_path / "collocation.md"
    document.write_text("a\n<!-- results: begin (x) -->\n<!-- results: end -->\nb\n")
    page.write_text("a\n<!-- benchmarks: begin (x) -->\n<!-- benchmarks: end -->\nb\n")
    monkeypatch.setattr(report, "DOCUMENT", document)
    monkeypatch.setattr(report, "PAGES", {"collocation": page})
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results" / "latest.json")
    figure = Figure("speed", 1.234, "x", 2.0, False, "5 runs", "3")
    for section, name, value in (
        ("store", "one", 1.0),
        ("media", "two", 2.0),
        ("store", "one", 3.0),
    ):
        found = report.record(section, replace(figure, name=name, value=value), load=2.5)
        report.write([found], order=main.SECTIONS, not_measured=["GPU: none."])
    stored = json.loads(report.RESULTS.read_text())
    assert [(one["name"], one["value"]) for one in stored["figures"]] == [
        ("two", 2.0),
        ("one", 3.0),
    ]
    assert stored["not_measured"] == ["GPU: none."]
    text = document.read_text()
    assert text.startswith("a\n") and text.endswith("b\n")
    assert "| one | 3 x | >= 2 | **no** | 5 runs | 3 |" in text
    assert "### store, " in text and ", load 2.5 to 2.5" in text
    assert page.read_text() == "a\n<!-- benchmarks: begin (x) -->\n<!-- benchmarks: end -->\nb\n"
    found = report.record("collocation", figure, load=0.0)
    report.write([found], order=main.SECTIONS, not_measured=["GPU: none."])
    own = page.read_text()
    assert own.startswith("a\n") and own.endswith("b\n")
    assert "| speed | 1.23 x | >= 2 | **no** | 5 runs | 3 |" in own
    assert "### collocation, " in own and "### store" not in own and "GPU: none." not in own
    assert "### store, " in document.read_text() and "### collocation, " in document.read_text()


def test_figures_keep_the_device_and_the_machine_they_were_measured_on() -> None:
    figure = plain("speed", 1.0, "x", "5 runs")
    first = report.record("limits", figure, load=0.0)
    gpu = report.record("limits", figure, load=0.0, device="cuda")
    here = report.record("store", figure, load=0.0)
    there = {**here, "name": "size", "machine": {**here["machine"], "processor": "Abacus"}}
    before = {**here, "section": "memory", "versions": {**here["versions"], "torch": "0.1"}}
    kept = {"figures": [before, there, here, first]}
    figures = report.merge(kept, [gpu], order=main.SECTIONS)
    assert figures == [first, gpu, there, here, before]

    text = report.table({"not_measured": [], "figures": figures})
    heading, *parts = text.split("\n\n### ")
    assert "networks on cpu" in heading
    headings = [part.split("\n\n|")[0].split("\n\n")[1:] for part in parts]
    assert " ".join(part.split(",")[0] for part in parts) == "limits limits store store memory"
    assert headings[0] == headings[3] == []  # that of the document
    assert "networks on cuda" in headings[1][0]
    assert headings[2][0].startswith("Abacus, ")
    assert "torch 0.1, " in headings[4][0]
    assert [part.count("\n| s") for part in parts] == [1, 1, 1, 1, 1]
