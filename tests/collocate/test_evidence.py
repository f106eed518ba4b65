"""Agreement with the traversal: Kendall's tau, place and regret by hand."""

from __future__ import annotations

import dataclasses

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
    assert found.tau == pytest.approx(slowly(list(values.values()), list(truth.values())))
    tied = [pair for pair in truth if values[pair] == max(values.values())]
    assert (found.best, found.tied) == (tied[0], len(tied))
    regrets = [max(truth.values()) - truth[pair] for pair in tied]
    ranks = [1 + sum(v > truth[pair] for v in truth.values()) for pair in tied]
    assert found.regret == pytest.approx(np.mean(regrets))
    assert found.rank == pytest.approx(np.mean(ranks))
    assert found.pairs == 9
    # The traversal gives its pairs the best first, which no method may profit from.
    for order in (sorted(truth, key=lambda pair: -truth[pair]), rng.permutation(list(truth))):
        shuffled = {pair: truth[pair] for pair in map(tuple, order)}
        again = agreement(values, shuffled)
        assert dataclasses.astuple(again)[:2] == (found.best, found.tied)
        assert (again.regret, again.rank) == pytest.approx((found.regret, found.rank))
        assert again.tau == pytest.approx(found.tau)


def test_the_same_order_and_its_reverse() -> None:
    one, other = agreement(TRUTH, TRUTH), agreement({p: -v for p, v in TRUTH.items()}, TRUTH)
    assert (one.tau, one.regret, one.rank) == (1.0, 0.0, 1)
    assert (other.tau, other.regret, other.rank, other.best) == (-1.0, 5.0, 4, ("a", "x"))


def test_what_cannot_be_told() -> None:
    level = agreement(dict.fromkeys(TRUTH, 0.5), TRUTH)
    assert (level.tau, level.reason) == (None, "all values are equal")
    assert (level.best, level.regret, level.rank, level.tied) == (None, None, None, 4)
    pair = agreement({("a", "x"): 1.0, ("b", "x"): 1.0}, TRUTH)
    assert (pair.best, pair.reason) == (None, "all values are equal")
    lone = agreement({("b", "y"): 1.0}, TRUTH)
    assert (lone.best, lone.rank, lone.regret, lone.tau) == (None, None, None, None)
    assert lone.reason == "it has a value of one pair alone, which is no choice"
    same = agreement(TRUTH, dict.fromkeys(TRUTH, 50.0))
    assert (same.tau, same.best, same.regret, same.rank) == (None, None, None, None)
    assert same.reason == "the traversal does not tell the pairs apart"
    part = agreement(
        {("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "y"): 3.0},
        dict(TRUTH) | dict.fromkeys([("a", "x"), ("a", "y"), ("b", "y")], 50.0),
    )
    assert (part.tau, part.best) == (None, ("b", "y"))
    assert part.reason == "all values that it is compared with are equal"
    two = agreement({("a", "x"): 1.0, ("b", "x"): 2.0}, TRUTH)
    assert (two.tau, two.reason, two.pairs) == (None, "2 pairs cannot be correlated", 2)
    assert (two.best, two.rank, two.regret) == (("b", "x"), 1, 0.0)
    none = agreement({}, TRUTH)
    assert (none.best, none.tau, none.regret, none.pairs) == (None, None, None, 0)
    assert none.reason == "no pair has a value"
    # The regret is against all pairs, also those that the method has no value of.
    some = agreement({("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "y"): 0.0}, TRUTH)
    assert (some.rank, some.regret) == (3, 3.0)


def test_a_choice_that_diverged_in_the_traversal_is_not_another_one() -> None:
    values = {("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "x"): 3.0, ("c", "z"): 4.0}
    found = agreement(values, TRUTH)
    assert (found.best, found.rank, found.regret, found.pairs) == (None, None, None, 3)
    assert (found.tau, found.reason) == (1.0, "its choice, c + z, diverged in the traversal")
