"""Agreement with the traversal: Kendall's tau, place and regret by hand."""

from __future__ import annotations

import numpy as np
import pytest

from avfeat.collocate.evidence import agreement

TRUTH = {("a", "x"): 50.0, ("a", "y"): 52.0, ("b", "x"): 55.0, ("b", "y"): 53.0}


def slowly(values: list[float], truth: list[float]) -> float:
    """Kendall's tau-b by counting pairs."""
    same = other = tied_values = tied_truth = 0
    for i in range(len(values)):
        for j in range(i):
            one, two = np.sign(values[i] - values[j]), np.sign(truth[i] - truth[j])
            same += one * two > 0
            other += one * two < 0
            tied_values += one == 0
            tied_truth += two == 0
    total = len(values) * (len(values) - 1) / 2
    return (same - other) / np.sqrt((total - tied_values) * (total - tied_truth))


@pytest.mark.parametrize("seed", range(5))
def test_tau_place_and_regret(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = {("a", str(n)): float(v) for n, v in enumerate(rng.integers(40, 50, 9))}
    values = {pair: float(v) for pair, v in zip(truth, rng.integers(0, 5, 9), strict=True)}
    found = agreement(values, truth)
    assert found is not None
    assert found.tau == pytest.approx(slowly(list(values.values()), list(truth.values())))
    assert values[found.best] == max(values.values())
    assert found.regret == max(truth.values()) - truth[found.best]
    assert found.rank == 1 + sum(v > truth[found.best] for v in truth.values())
    assert found.pairs == 9


def test_the_same_order_and_its_reverse() -> None:
    one, other = agreement(TRUTH, TRUTH), agreement({p: -v for p, v in TRUTH.items()}, TRUTH)
    assert one is not None
    assert other is not None
    assert (one.tau, one.regret, one.rank) == (1.0, 0.0, 1)
    assert (other.tau, other.regret, other.rank, other.best) == (-1.0, 5.0, 4, ("a", "x"))


def test_what_cannot_be_told() -> None:
    level = agreement(dict.fromkeys(TRUTH, 0.5), TRUTH)
    assert level is not None
    assert (level.tau, level.reason) == (None, "all values are equal")
    two = agreement({("a", "x"): 1.0, ("b", "x"): 2.0}, TRUTH)
    assert two is not None
    assert (two.tau, two.reason, two.pairs) == (None, "2 pairs cannot be correlated", 2)
    assert (two.best, two.rank, two.regret) == (("b", "x"), 1, 0.0)
    assert agreement({}, TRUTH) is None
    # The regret is against all pairs, also those that the method has no value of.
    some = agreement({("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "y"): 0.0}, TRUTH)
    assert some is not None
    assert (some.rank, some.regret) == (3, 3.0)
