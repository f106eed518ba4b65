"""docs/parity.md lists what the parity tests compare: a new backbone needs a new `make parity`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flowkit import MOTIONS
from parity_cases import CASES
from test_parity_inputs import PIPELINES

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "parity.md"
BLOCKS = {
    "networks": [variant for case in CASES.values() for variant in case.oracles],
    "inputs": list(PIPELINES),
    "flow": [f"texture, {motion}" for motion in MOTIONS],
    "rounding": list(CASES),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_has_a_row_for_all_that_is_measured(block: str) -> None:
    found = re.search(
        rf"<!-- {block}: begin[^>]*-->\n(.*?)<!-- {block}: end -->", DOCUMENT.read_text(), re.DOTALL
    )
    assert found is not None
    rows = {line.split("|")[1].strip().strip("`") for line in found[1].strip().splitlines()}
    assert set(BLOCKS[block]) <= rows
