"""What a collocation says on the terminal of how far its methods can be trusted."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from avfeat.render_collocation import collocation


def printed(evidence: dict[str, Any]) -> list[str]:
    """Lines of a traversal of four pairs."""
    place = {"spread": None, "epochs": 1}
    values = {"w": 5.0, "x": 4.0, "y": 4.0, "z": 3.0}
    document = {
        "dataset": "llp",
        "method": "all",
        "audio": ["a"],
        "visual": ["w", "x", "y", "z"],
        "motion": None,
        "clips": 9,
        "clips_apart": 0,
        "left_out": {},
        "missing": [],
        "stores": {},
        "searches": {
            "traverse": {
                "places": [
                    {"pair": ["a", name], "type_av": value, **place}
                    for name, value in values.items()
                ],
                "seconds": 8.0,
                "trainings": 4,
                "facts": {},
            }
        },
        "evidence": evidence,
    }
    file = io.StringIO()
    collocation(Console(file=file, width=200), document)
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def agreement(**values: Any) -> dict[str, Any]:
    return {
        "best": ("a", "x"),
        "tied": 1,
        "tau": 0.5,
        "regret": 1.25,
        "rank": 2.0,
        "pairs": 4,
        "reason": "",
        "seconds": 2.0,
        "times_cheaper": 4.0,
    } | values


def test_pairs_that_are_level_share_a_place() -> None:
    lines = printed({})
    assert [line for line in lines if " a + " in line] == [
        "1 a + w 5.00 - 1",
        "2 a + x 4.00 - 1",
        "2 a + y 4.00 - 1",
        "4 a + z 3.00 - 1",
    ]
    assert "motion none" in lines


def test_evidence_tells_pairs_without_values_and_why_there_is_no_tau() -> None:
    few = "2 pairs cannot be correlated"
    level = {"best": None, "tied": 4, "regret": None, "rank": None}
    lost = {"best": None, "tied": 1, "regret": None, "rank": None, "pairs": 3}
    lines = printed(
        {
            "h-score": agreement(),
            "svd": agreement(pairs=3),
            "bsp": agreement(pairs=2, tau=None, reason=few),
            "cka": agreement(**level, tau=None, reason="all values are equal"),
            "recall": agreement(tied=2, rank=2.5),
            "proxy": agreement(**lost, reason="its choice, a + z, diverged in the traversal"),
        }
    )
    for line in (
        "h-score a + x 2 1.25 +0.50 4.0",
        "cka - - - - 4.0",
        "recall a + x (2 pairs tied) 2.5 1.25 +0.50 4.0",
        "svd: has a value of 3 of 4 pairs",
        f"bsp: has a value of 2 of 4 pairs; no tau: {few}",
        "cka: no tau: all values are equal",
        "proxy - - - +0.50 4.0",
        "proxy: has a value of 3 of 4 pairs; its choice, a + z, diverged in the traversal",
    ):
        assert line in lines
    assert not any(line.startswith(("h-score:", "recall:")) for line in lines)
