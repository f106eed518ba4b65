"""What `avfeat backbones` says of a backbone: defaults that adapt are not left out."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from avfeat import render_catalogue
from avfeat.extract import backbones
from avfeat.extract.catalogue import describe


def shown(name: str) -> str:
    out = io.StringIO()
    render_catalogue.backbone(Console(file=out, width=200), describe(backbones.get(name)))
    return out.getvalue()


def test_i3d_says_what_other_data_sets_and_devices_get() -> None:
    record = describe(backbones.get("i3d"))
    assert record["decided_by"] == ["data set", "device", ""]
    assert record["adapted"] == [
        {
            "for": "untrimmed videos",
            **{"rows_per_10s": 15, "gmacs_per_10s": 800.55},
            **{"padding": 0, "stride": 16, "fps": 25.0},
        },
        {"for": "CUDA", "flow": "tvl1-torch"},
    ]
    lines = shown("i3d").splitlines()
    assert any("on untrimmed videos" in line and "15 rows per 10 s" in line for line in lines)
    assert any("on CUDA" in line and "flow tvl1-torch" in line for line in lines)
    assert "[by data set] (default) | centred | chunks" in shown("i3d")
    assert "[by device] (default) | tvl1_opencv | tvl1_torch" in shown("i3d")


def test_what_was_chosen_no_longer_adapts() -> None:
    assert describe(backbones.get("i3d.centred.tvl1_opencv"))["adapted"] == []
    (only,) = describe(backbones.get("i3d_flow.chunks"))["adapted"]
    assert only["for"] == "CUDA"
    assert describe(backbones.get("i3d.chunks"))["rows_per_10s"] == 15


@pytest.mark.parametrize("name", [n for n in backbones.names() if not n.startswith("tiny")])
def test_what_decides_is_said_of_every_default_that_adapts(name: str) -> None:
    backbone = backbones.get(name)
    record = describe(backbone)
    assert len(record["decided_by"]) == len(record["options"])
    kinds = {"untrimmed videos": "data set", "CUDA": "device"}
    assert {kinds[one["for"]] for one in record["adapted"]} == set(record["decided_by"]) - {""}


def test_unnamed_defaults_are_listed() -> None:
    assert "[none] (default) | map" in shown("resnet152")
    assert "[env] (default) | music" in shown("openl3")


def test_what_is_chosen_is_in_brackets() -> None:
    text = shown("openl3.music.linear")
    assert "env (default) | [music]" in text
    assert "mel256 (default) | mel128 | [linear]" in text
    assert re.search(r"tags +\[v0_4_0_linear_music\]", text)
    assert "none (default) | [second]" in shown("resnet152.second")
