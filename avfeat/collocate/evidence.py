"""How far cheap answers agree with the dear one: every method against the traversal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import kendalltau

from avfeat.collocate.candidates import Pair
from avfeat.words import counted

# Of fewer pairs a rank correlation says nothing: two are always in agreement or not.
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a method's order of pairs is worth.

    Attributes
    ----------
    best
        The pair that it puts first, of several the first by name; None where it chooses none, as
        it has no values, one alone, or all are equal, where its choice has no true value, or where
        all true values are equal.
    tied
        How many pairs share its highest value.
    tau
        Kendall's tau-b with the traversal, in [-1, 1]; None where it cannot be told.
    regret
        Segment-level Type@AV, in points, that its choice loses against the best pair: of tied
        pairs the mean, what one drawn from them is expected to lose. None without a choice.
    rank
        Place of its choice in the traversal, from 1; of tied pairs the mean.
    pairs
        How many pairs both have a value of.
    reason
        Why there is no `tau`, and no choice where there is none; or empty.
    """

    best: Pair | None
    tied: int
    tau: float | None
    regret: float | None
    rank: float | None
    pairs: int
    reason: str = ""


def agreement(values: Mapping[Pair, float], truth: Mapping[Pair, float]) -> Agreement:
    """Compare values of pairs with what training and testing them gave; greater is better.

    A choice that `truth` has no value of, as its training diverged, has neither place nor regret.

    Parameters
    ----------
    values
        Of a method; it need not have all pairs.
    truth
        Type@AV of the traversal, in percent.

    Examples
    --------
    >>> truth = {("a", "x"): 50.0, ("a", "y"): 52.0, ("b", "x"): 55.0}
    >>> found = agreement({("a", "x"): 1.0, ("a", "y"): 3.0, ("b", "x"): 2.0}, truth)
    >>> found.best, round(found.tau, 3), found.regret, found.rank
    (('a', 'y'), 0.333, 3.0, 2.0)
    """
    both = [pair for pair in truth if pair in values]
    if not both:
        return Agreement(None, 0, None, None, None, 0, "no pair has a value")
    highest = max(values.values())
    chosen = sorted(pair for pair, value in values.items() if value == highest)
    if len(values) > 1 and len(chosen) == len(values):
        return Agreement(None, len(chosen), None, None, None, len(both), "all values are equal")
    if len(truth) > 1 and len(set(truth.values())) == 1:
        reason = "the traversal does not tell the pairs apart"
        return Agreement(None, len(chosen), None, None, None, len(both), reason)
    if len(values) == 1 and len(truth) > 1:
        reason = "it has a value of one pair alone, which is no choice"
        return Agreement(None, 1, None, None, None, len(both), reason)
    tau, reason = _tau([values[pair] for pair in both], [truth[pair] for pair in both])
    if lost := [pair for pair in chosen if pair not in truth]:
        reason = f"its choice, {' + '.join(lost[0])}, diverged in the traversal"
        return Agreement(None, len(chosen), tau, None, None, len(both), reason)
    # The order of pairs that a method cannot tell apart is not its own.
    best = max(truth.values())
    regret = fmean(best - truth[pair] for pair in chosen)
    rank = fmean(1 + sum(value > truth[pair] for value in truth.values()) for pair in chosen)
    return Agreement(chosen[0], len(chosen), tau, regret, rank, len(both), reason)


def _tau(values: Sequence[float], truth: Sequence[float]) -> tuple[float | None, str]:
    """Kendall's tau-b of values that are not all equal, or why there is none."""
    if len(values) < _LEAST:
        return None, f"{counted(len(values), 'pair')} cannot be correlated"
    found = float(kendalltau(values, truth).statistic)
    if math.isnan(found):
        return None, "all values that it is compared with are equal"
    return found, ""
