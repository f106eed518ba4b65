"""Do scores keep their order of pairs when the training set has fewer classes?

Wu et al. (Information Sciences 2022, Fig. 6) train on 25, 20, 15 and 10 of LLP's classes. Here the
source split is narrowed so, and the target split stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from avfeat.collocate import scoring
from avfeat.collocate.candidates import Candidates, Pair
from avfeat.collocate.evidence import agreement
from avfeat.collocate.score_table import Options
from avfeat.datasets.subsets import class_subset
from avfeat.words import counted

#: Shares of the classes: 25, 20, 15 and 10 of LLP's.
SHARES = (1.0, 0.8, 0.6, 0.4)

#: Scores that are followed: of those that take little time, with the splits that they look at. Of
#: a pair, the source sets the scale between modalities, so it moves the target's scores a little.
SCORES = {
    "h-score": "target",
    "logme": "target",
    "svd": "source and target",
    "svd-centred": "source and target",
    "subspace": "source and target",
}


def class_trends(
    candidates: Candidates,
    options: Options,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Score pairs with source splits of fewer and fewer classes.

    Every subset is a pass over the stores, as `scoring.score` makes it. Of the scores asked for,
    those of `SCORES` are followed.

    Returns
    -------
    dict
        ``rule``; ``reads``, the splits that each score looks at; ``subsets``, one for each of
        `SHARES`, with ``classes``, ``clips`` of the source, ``pairs`` with their scores, and by
        score ``ranking`` of the pairs and ``tau``, Kendall's tau-b with the ranking under all
        classes. A subset that cannot be scored has a ``reason`` in place of these; so has the
        whole.

    Raises
    ------
    FeaturesError, CollocationError
        As `scoring.score`.
    """
    store = candidates.all[0].store
    source = [store.clip(clip_id) for clip_id in candidates.split(options.source)]
    reads = {name: SCORES[name] for name in options.names if name in SCORES}
    if not reads:
        return {"reason": f"no score is asked for of {', '.join(SCORES)}"}
    if shared := {clip.id for clip in source}.intersection(candidates.split(options.target)):
        return {"reason": f"source and target share {counted(len(shared), 'clip')}"}
    if not any(clip.labels or clip.events for clip in source):
        return {"reason": f"clips of the {options.source} split have no labels"}
    options = replace(options, names=tuple(reads), resamples=0)
    reference: dict[str, dict[Pair, float]] = {}
    subsets = []
    total = len(store.classes)
    for keep in dict.fromkeys(max(1, round(total * share)) for share in SHARES):
        progress(f"all stores for the first {keep} of {total} classes")
        kept = {clip.id for clip in class_subset(source, store.classes, keep=keep)}
        left_out = {clip.id for clip in source} - kept
        subset: dict[str, Any] = {"classes": keep, "clips": len(kept)}
        subsets.append(subset)
        if not kept:
            subset["reason"] = "no clip has these classes only"
            continue
        ids = tuple(clip_id for clip_id in candidates.clips if clip_id not in left_out)
        table = scoring.score(replace(candidates, clips=ids), options)
        values = {name: table.values(name) for name in options.names}
        reference = reference or values
        subset["pairs"] = [
            {"names": list(one.names), "scores": {n: s.to_dict() for n, s in one.scores.items()}}
            for one in table.pairs
        ]
        subset["ranking"] = {
            name: [list(pair) for pair in sorted(each, key=lambda pair: -each[pair])]
            for name, each in values.items()
        }
        subset["tau"] = {name: _tau(values[name], reference[name]) for name in options.names}
    return {"rule": "only", "reads": reads, "subsets": subsets}


def _tau(values: dict[Pair, float], reference: dict[Pair, float]) -> dict[str, Any]:
    found = agreement(values, reference)
    return {"value": found.tau} | ({"reason": found.reason} if found.tau is None else {})
