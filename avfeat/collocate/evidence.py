"""How far cheap answers agree with the dear one: every method against the traversal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import kendalltau

from avfeat.words import counted

Pair = tuple[str, str]

# Of fewer pairs a rank correlation says nothing: two are always in agreement or not.
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a method's order of pairs is worth.

    Attributes
    ----------
    best
        The pair that it puts first.
    tau
        Kendall's tau-b with the traversal, in [-1, 1]; None where it cannot be told.
    regret
        Segment-level Type@AV, in points, that its choice loses against the best pair.
    rank
        Place of its choice in the traversal, from 1.
    pairs
        How many pairs both have a value of.
    reason
        Why there is no `tau`, or empty.
    """

    best: Pair
    tau: float | None
    regret: float
    rank: int
    pairs: int
    reason: str = ""


def agreement(values: Mapping[Pair, float], truth: Mapping[Pair, float]) -> Agreement | None:
    """Compare values of pairs with what training and testing them gave; greater is better.

    Parameters
    ----------
    values
        Of a method; it need not have all pairs.
    truth
        Type@AV of the traversal, in percent.

    Returns
    -------
    Agreement or None
        None if no pair has both.

    Examples
    --------
    >>> truth = {("a", "x"): 50.0, ("a", "y"): 52.0, ("b", "x"): 55.0}
    >>> found = agreement({("a", "x"): 1.0, ("a", "y"): 3.0, ("b", "x"): 2.0}, truth)
    >>> found.best, round(found.tau, 3), found.regret, found.rank
    (('a', 'y'), 0.333, 3.0, 2)
    """
    both = [pair for pair in truth if pair in values]
    if not both:
        return None
    best = max(both, key=lambda pair: values[pair])
    better = sum(value > truth[best] for value in truth.values())
    tau, reason = None, ""
    if len(both) < _LEAST:
        reason = f"{counted(len(both), 'pair')} cannot be correlated"
    else:
        found = float(
            kendalltau([values[pair] for pair in both], [truth[pair] for pair in both]).statistic
        )
        if found == found:
            tau = found
        else:
            reason = "all values are equal"
    return Agreement(best, tau, max(truth.values()) - truth[best], better + 1, len(both), reason)
