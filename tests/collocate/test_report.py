"""The report of a collocation: all of the document is in it, escaped, and nothing from outside."""

from __future__ import annotations

import json
import random
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support import Cli

from avfeat.collocate import figures, report
from avfeat.collocate.log import Log
from avfeat.collocate.outline import Curves, Heading, Table, outline
from avfeat.collocate.reasons import collect
from avfeat.datasets.synthetic import Family
from avfeat.datasets.synthetic_stores import write as synthesize
from avfeat.errors import UsageError, WriteError

EVIL = '<script>alert("x")</script>&$a_1$'
AUDIO, VISUAL = ("vggish", EVIL), ("resnet152", "_polynet")
VOID = {"meta", "br", "path", "use", "link", "hr", "img", "rect"}


class Page(HTMLParser):
    """What a browser would make of a page; asserts that elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.numbers: set[float] = set()
        self.headings: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = dict(attrs)
        if tag == "data":
            self.numbers.add(float(found["value"] or ""))
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self._text.append(data)
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)


def draw(rng: random.Random) -> float:
    return rng.uniform(0, 100)


def places(rng: random.Random, name: str) -> list[dict[str, Any]]:
    metrics = ("audio", "visual", "audio_visual", "type_av", "event_av")
    found = [
        {
            "pair": [audio, visual],
            "type_av": draw(rng),
            "spread": draw(rng),
            "epochs": 40,
            "records": [f"{name}{seed}{audio}{visual}".ljust(64, "0") for seed in (1, 2)],
            "scores": [
                {level: {metric: draw(rng) for metric in metrics} for level in ("segment", "event")}
                for _ in (1, 2)
            ],
        }
        for audio in AUDIO
        for visual in VISUAL
    ]
    return sorted(found, key=lambda place: -place["type_av"])


def angles(rng: random.Random) -> dict[str, Any]:
    return {
        "cosines": [rng.random() for _ in range(3)],
        "determined": [True, False, False],
        "gaps": [rng.random() for _ in range(3)],
        "principal": [rng.random() for _ in range(3)],
        "energy": {split: [rng.random() for _ in range(3)] for split in ("source", "target")},
        "interval": [[rng.random(), rng.random()] for _ in range(3)],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """One with all parts, in which no number is there twice by chance."""
    rng = random.Random(7)

    def row(*names: str) -> dict[str, Any]:
        cka = {"value": rng.random()} if len(names) > 1 else {"value": None, "reason": f"no {EVIL}"}
        logme = {"value": None, "reason": f"relative gaps are up to {rng.random():.3f} of 5"}
        return {
            "names": list(names),
            "scores": {"svd": {"value": rng.random()}, "logme": logme, "cka": cka},
            "angles": {"printed": angles(rng), "centred": None},
        }

    names = [*AUDIO, *VISUAL, "r2plus1d_18"]
    return {
        "avfeat": "7.8.9",
        "dataset": f"llp {EVIL}",
        "method": "all",
        "audio": list(AUDIO),
        "visual": list(VISUAL),
        "motion": "r2plus1d_18",
        "clips": 11849,
        "clips_apart": 17,
        "missing": [
            {"name": "senet154", "modality": "visual", "command": f"avfeat extract -b {EVIL}"}
        ],
        "left_out": {"vgg19": f"its rows are maps {EVIL}"},
        "stores": {
            name: {
                "url": f"/lab/{name}",
                "fingerprint": f"{number:064x}",
                "content": f"{number + 100:064x}",
                "weights": "random" if name == "vggish" else "published",
                "dim": 2048 + number,
            }
            for number, name in enumerate(names)
        },
        "scores": {"svd": "cos psi_1", "logme": "LogME", "cka": f"CKA {EVIL}"},
        "splits": {"source": "train", "target": "val", "clips": {"train": 9999, "val": 648}},
        "k": 3,
        "resamples": 211,
        "sampled": 1987,
        "trainings": {
            "splits": {
                "train": {"split": "train", "clips": 9998},
                "val": {"split": f"val {EVIL}", "clips": 647},
                "test": {"split": "test", "clips": 1199},
            },
            "hyper": {"lr": 0.00037, "batch": 17, "epochs": 43},
            "seeds": [101, 102, 103],
            "device": "cuda:1",
            "torch": "2.99.1",
            "log": f"/lab/log {EVIL}",
        },
        "decision": {"gate": "joint", "threshold": 0.51, "gate_threshold": 0.52},
        "pairs": [row(audio, visual) for audio in AUDIO for visual in VISUAL],
        "singles": [row(name) for name in (*AUDIO, *VISUAL)],
        "seconds": draw(rng),
        "searches": {
            name: {
                "places": places(rng, name),
                "seconds": seconds,
                "trainings": trainings,
                "facts": facts,
            }
            for name, seconds, trainings, facts in (
                (
                    *("proxy", 11706.04, 23),
                    {
                        "path": [
                            {
                                "pair": ["vggish", EVIL],
                                "lr": 0.00031,
                                "best": ["vggish", "_polynet"],
                            }
                        ],
                        "grid": [0.00011, 0.00031],
                        "epochs_saved": 77,
                    },
                ),
                ("traverse", 33887.77, 21, {}),
            )
        },
        "evidence": {
            name: {
                "best": ["vggish", EVIL],
                "tied": 1,
                "tau": tau,
                "regret": draw(rng),
                "rank": 3,
                "pairs": 4,
                "reason": "" if tau is not None else "all values are equal",
                "seconds": draw(rng),
                "times_cheaper": draw(rng),
            }
            for name, tau in (("svd", 0.123456), ("cka", None), ("proxy", -0.654321))
        },
        "diagnostics": {
            "recall": {
                "unimodal": {
                    name: {
                        "value": rng.random(),
                        "chance": rng.random(),
                        "readings": {
                            f"reading {number}": {"value": rng.random(), "chance": rng.random()}
                            for number in range(12)
                        },
                    }
                    for name in names
                },
                "multimodal": {"value": None, "reason": f"no labels {EVIL}"},
            },
            "lags": {
                EVIL: {"cosine": [rng.random() for _ in range(10)], "elsewhere": rng.random()},
                "_polynet": {"cosine": [rng.random(), None, rng.random()], "elsewhere": 0.5},
            },
            "classes": [
                {"classes": number, "pairs": [{"names": ["a", "b"], "svd": rng.random()}]}
                for number in (25, 10)
            ],
        },
    }


def numbers(value: Any) -> set[float]:
    if isinstance(value, dict):
        return {number for item in value.values() for number in numbers(item)}
    if isinstance(value, list):
        return {number for item in value for number in numbers(item)}
    return (
        {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()
    )


def record(key: str) -> dict[str, Any]:
    return {"curve": [{"loss": 2.0 / epoch, "type_av": 10.0 * epoch} for epoch in (1, 2, 3)]}


def test_every_number_is_there_in_full(document: dict[str, Any]) -> None:
    page = Page(report.render(document, find=record))
    missing = numbers(document) - page.numbers
    assert missing <= {3.0}  # k, which only counts columns
    assert len(numbers(document)) > 300  # so there was something to find
    assert {33887.77, 11706.04, 33887.77 / 11706.04} <= page.numbers


def test_names_reasons_and_commands_are_there(document: dict[str, Any]) -> None:
    text = Page(report.render(document)).text
    for audio in AUDIO:
        for visual in VISUAL:
            assert f"{audio} + {visual}" in text
    for name in (*document["scores"], "traversal", "proxy", "r2plus1d_18", "senet154"):
        assert name in text
    assert all(meaning in text for meaning in document["scores"].values())
    assert document["missing"][0]["command"] in text
    assert document["left_out"]["vgg19"] in text
    assert all(store["fingerprint"] in text for store in document["stores"].values())
    assert f"no labels {EVIL}" in text
    # One line for what differs in a number alone, with the numbers behind the names.
    given = re.findall(r"[\d.]+(?= of)", document["pairs"][0]["scores"]["logme"]["reason"])
    assert re.search(r"relative gaps are up to [\d.]+…[\d.]+ of 5", text)
    assert f"vggish + resnet152 ({given[0]})" in text


def test_nothing_of_a_store_becomes_markup(document: dict[str, Any]) -> None:
    html = report.render(document, find=record)
    page = Page(html)
    assert "<script" not in html
    assert "script" not in page.tags
    assert html.count("&lt;script&gt;") >= 30
    # In figures too, as text and not as mathematics.
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        texts = "".join(ElementTree.fromstring(svg).itertext())
        assert '<script>alert("x")</script>&$a_1$' in texts


def test_nothing_is_fetched(document: dict[str, Any]) -> None:
    html = report.render(document, find=record)
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "script", "base"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#"), value
        elif not name.startswith("xmlns"):
            assert "//" not in value, (name, value)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    # Figures stand in one page: no id is there twice.
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for _, name, value in page.attributes if name == "xlink:href"} <= {*page.ids}


def test_features_that_are_not_real_are_said_at_the_top(document: dict[str, Any]) -> None:
    html = report.render(document)
    assert html.index('class="banner"') < html.index("What was compared")
    assert "Not real features. vggish: random." in Page(html).text
    document["stores"]["vggish"]["weights"] = "published"
    assert 'class="banner"' not in report.render(document)


def test_undetermined_angles_are_marked(document: dict[str, Any]) -> None:
    html = report.render(document)
    # Two of three, of four pairs and four backbones; the centred form has none at all.
    assert html.count('class="undetermined"') == 2 * 8
    assert "Of centred features" not in html
    assert "As the paper has it" in html


def test_the_order_is_the_traversals(document: dict[str, Any]) -> None:
    html = report.render(document)
    ranking = html[html.index('id="ranking"') :]
    rows = re.findall(r'<th scope="row">(.*?)</th>', ranking[: ranking.index("</tbody>")])
    pairs = [" + ".join(p["pair"]) for p in document["searches"]["traverse"]["places"]]
    assert [unescape(row) for row in rows] == pairs


def test_pairs_dropped_early_are_last_whatever_they_had(document: dict[str, Any]) -> None:
    *_, last = document["searches"]["proxy"]["places"]
    last |= {"type_av": 200.0, "epochs": 10}
    (method,) = (m for m in report._methods(document) if m.name == "proxy")
    pair = tuple(last["pair"])
    assert method.shade(pair) == 0.0
    assert method.dropped(pair) == 10
    assert [method.dropped(other) for other in method.values if other != pair] == [None] * 3
    assert "dropped after 10 epochs" in Page(report.render(document)).text


def test_a_figure_of_pairs_dropped_early_goes_by_their_order(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values after a quarter of the epochs are not on the scale of those at the end."""
    *ended, dropped = document["searches"]["proxy"]["places"]
    dropped |= {"type_av": 200.0, "epochs": 10}
    drawn: dict[str, Any] = {}

    def draw(truth: Any, followers: Any, *, proxy: Any) -> str:
        drawn.update(truth=truth, followers={one.name: one for one in followers}, proxy=proxy)
        return "<svg/>"

    monkeypatch.setattr(report.figures, "evidence", draw)
    report.render(document)
    assert [pair for pair, _, _ in drawn["proxy"]] == [tuple(place["pair"]) for place in ended]
    values = drawn["followers"]["proxy"].values
    assert sorted(values, key=lambda pair: -values[pair]) == [
        tuple(place["pair"]) for place in (*ended, dropped)
    ]
    assert (max(values.values()), values[tuple(dropped["pair"])]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("keys", "headings"),
    [
        (("scores", "splits", "k", "resamples", "pairs", "singles"), {"Corresponding angles"}),
        (("evidence",), set()),
        (("searches", "evidence"), {"Who follows the traversal", "What it took", "Proxy"}),
        (("diagnostics",), {"Diagnostics"}),
    ],
)
def test_missing_parts_leave_their_sections_out(
    document: dict[str, Any], keys: tuple[str, ...], headings: set[str]
) -> None:
    whole = Page(report.render(document)).headings
    assert headings <= {*whole}
    for key in keys:
        del document[key]
    if "pairs" in keys:
        del document["seconds"]
    left = Page(report.render(document)).headings
    assert not headings & {*left}
    assert "What was compared" in left


def test_choices_that_are_tied_or_none(document: dict[str, Any]) -> None:
    document["evidence"]["svd"] |= {"tied": 3, "rank": 4.5}
    document["evidence"]["cka"] |= {"best": None, "tied": 4, "rank": None, "regret": None}
    page = Page(report.render(document))
    assert {3, 4.5} <= page.numbers
    assert "all values are equal" in page.text


def test_scores_alone_and_searches_that_are_empty(document: dict[str, Any]) -> None:
    for key in ("evidence", "diagnostics"):
        del document[key]
    document["searches"] = {}
    for row in [*document["pairs"], *document["singles"]]:
        row["angles"] = {"printed": None, "centred": None}
    page = Page(report.render(document))
    assert page.headings == [
        "What was compared",
        "Pairs by every method",
        "Scores that do not apply",
    ]
    assert "svg" not in page.tags
    assert document["seconds"] in page.numbers


def test_curves_are_those_of_the_log(document: dict[str, Any], tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    for search in document["searches"].values():
        for number, place in enumerate(search["places"]):
            place["records"] = [f"{search['trainings']:02d}{number:02d}{seed}" for seed in (1, 2)]
            for key in place["records"][: search["trainings"] - 21]:  # 2 of the proxy, 0 of others
                log.keep({"key": key, **record(key)})
    report.write(document, tmp_path / "without.html")
    report.write(document, tmp_path / "with.html", log=str(tmp_path / "log"))
    counts = [
        Page((tmp_path / f"{name}.html").read_text()).tags.count("svg")
        for name in ("without", "with")
    ]
    assert counts == [2, 3]  # the evidence and the lags; the curves of the proxy


def test_the_same_document_gives_the_same_bytes(document: dict[str, Any], tmp_path: Path) -> None:
    report.write(document, tmp_path / "one.html")
    report.write(json.loads(json.dumps(document)), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_it_is_written_whole_or_not_at_all(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("what was there")

    def full(path: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(WriteError, match=r"report\.html: No space left on device"):
            report.write(document, target)
    assert target.read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    report.write(document, target)
    assert target.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_not_there_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere; create it"):
        report.write(document, tmp_path / "nowhere" / "report.html")
    with pytest.raises(UsageError, match="it is a folder; name a file in it"):
        report.write(document, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_figures_take_what_is_odd() -> None:
    pairs = [("a", f"v{number}") for number in range(30)]
    svg = figures.evidence(
        [(pair, 1.0, None) for pair in pairs],
        [
            figures.Follower("same", dict.fromkeys(pairs, 2.0), None),
            figures.Follower("no", {}, None),
        ],
    )
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "a + v29" in text
    assert "does not apply" in text
    one = figures.evidence([(("a", "b"), 50.0, 1.0)], [], proxy=[(("a", "b"), 60.0, None)])
    assert "traversal" in one
    many = figures.curves([figures.Curve(pair, [1.0], [2.0]) for pair in pairs], name="c")
    assert ElementTree.fromstring(many).tag.endswith("svg")


def test_values_are_laid_out_by_their_shape() -> None:
    value = {
        "rule": "only",
        "tau": {"value": None, "reason": "one pair"},
        "recall": {"reason": "no labels"},
        "near": [1.0, 0.5, None],
        "sets": [
            {"classes": 25, "pairs": [{"names": ["a", "x"], "scores": {"svd": {"value": 0.5}}}]},
            {"classes": 10, "pairs": []},
        ],
    }
    assert list(outline(value)) == [
        Table(["", ""], [["rule", "only"], ["tau", "one pair"], ["recall", "no labels"]]),
        Curves("", {"near": [1.0, 0.5, None]}),
        Heading("sets", 0),
        Table(["", "classes", "pairs"], [["classes 25", 25, None], ["classes 10", 10, ""]]),
        Heading("classes 25", 1),
        Heading("pairs", 2),
        Table(["", "scores svd"], [["a + x", 0.5]]),
    ]
    wide = {f"r{number}": {"value": number, "chance": 0.5} for number in range(9)}
    assert list(outline({"a": {"readings": wide}}))[:2] == [Heading("a", 0), Heading("readings", 1)]
    assert list(outline(None)) == [Table(["", ""], [["", None]])]
    assert list(outline([True, 2, "x"])) == [Table(["", ""], [["", "True, 2, x"]])]


def test_reasons_with_the_same_words_are_one() -> None:
    def row(name: str, **reasons: str) -> dict[str, Any]:
        scores = {key: {"value": None, "reason": reason} for key, reason in reasons.items()}
        return {"names": ["a", name], "scores": {**scores, "fine": {"value": 1.0}}}

    rows = [
        row("x", svd="up to 0.03 of 5", logme="no labels", recall="vgg19 has none"),
        row("y", svd="up to 1e-05 of 5", logme="no labels", recall="vgg19 has none"),
    ]
    assert [(one.scores, one.text, one.whose) for one in collect(rows)] == [
        (("svd",), "up to 1e-05…0.03 of 5", ("a + x (0.03)", "a + y (1e-05)")),
        (("logme",), "no labels", ("a + x", "a + y")),
        (("recall",), "vgg19 has none", ("a + x", "a + y")),
    ]
    assert collect([]) == []


def test_the_command_writes_it(avfeat: Cli, tmp_path: Path) -> None:
    synthesize(Family(seed=3, clips=(12, 6, 6)), str(tmp_path / "features"))
    options = ("--audio", "vggish,openl3", "--visual", "polynet,vgg19_bn", "--motion", "none")
    options = (*options, "--epochs", "1", "--method", "all", "--json", "--quiet")
    refused = avfeat("collocate", *options, "--report", "no/report.html", code=2)
    assert "there is no folder no" in refused.stderr
    assert not (tmp_path / "collocation").exists()  # before any training
    found = avfeat("collocate", *options, "--report", "report.html")
    document = json.loads(found.stdout)
    page = Page((tmp_path / "report.html").read_text())
    assert page.tags.count("svg") == 3
    assert "Not real features" in page.text
    values = {
        *(place["type_av"] for s in document["searches"].values() for place in s["places"]),
        *(row["scores"]["h-score"]["value"] for row in document["pairs"]),
        document["searches"]["proxy"]["seconds"],
    }
    assert values <= page.numbers
    assert {0.0003, 16, 1, 12, 6} <= page.numbers
    for words in ("avfeat 0.", "proxy on, epochs chosen by val", "judged by test", "torch 2."):
        assert words in page.text


def test_every_title_is_of_a_part_that_there_is(avfeat: Cli, tmp_path: Path) -> None:
    synthesize(Family(seed=3, clips=(12, 12, 6)), str(tmp_path / "features"))
    options = ("--audio", "vggish,openl3", "--visual", "polynet,vgg19_bn", "--resamples", "0")
    options = (*options, "--scores", "svd", "--diagnostics", "--json", "--quiet")
    found = avfeat("collocate", *options, "--report", "report.html")
    diagnostics = json.loads(found.stdout)["diagnostics"]
    html = (tmp_path / "report.html").read_text()
    text, headings = Page(html).text, re.findall(r"<h\d[^>]*>([^<]*)</h\d>", html)
    for way, (title, meaning) in report.DIAGNOSED.items():
        part = diagnostics
        for name in way:
            part = part[name]
        assert title in headings
        assert not meaning or meaning in text
