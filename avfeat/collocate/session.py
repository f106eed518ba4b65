"""One collocation from stores to a document: scores, searches, and what each is worth."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from avfeat import __version__
from avfeat.collocate import scoring
from avfeat.collocate.candidates import ALL, Candidates, Pair
from avfeat.collocate.evidence import agreement
from avfeat.collocate.hyper import DECISION, GRID, Hyper
from avfeat.collocate.log import Log
from avfeat.collocate.score_table import SCORES, Options, Scored, Table
from avfeat.errors import CollocationError, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from avfeat.collocate.corpus import Corpus
    from avfeat.collocate.runner import EpochListener, Listener, Runner
    from avfeat.collocate.scores.angles import Angles
    from avfeat.collocate.search import Search

Method = Literal["scores", "proxy", "traverse", "all"]

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked of a collocation.

    Attributes
    ----------
    method
        ``scores``, ``proxy``, ``traverse`` or ``all``.
    scoring
        Splits and scores; the searches take its splits too.
    test
        Split that the traversal judges by.
    hyper
        Of the task model.
    seeds
        Trainings of each pair.
    grid
        Learning rates that the proxy tunes.
    halving
        Whether the proxy drops hopeless pairs early; the traversal trains all to the end.
    diagnostics
        Whether the papers' diagnostics are run too.
    log
        Folder or URL of the trainings' records.
    allow_random
        Whether stores of random weights may be read.
    device
        That trains: ``cpu``, ``cuda`` or ``cuda:N``, here or of each worker.
    """

    method: Method = "scores"
    scoring: Options = field(default_factory=Options)
    test: str = "test"
    hyper: Hyper = field(default_factory=Hyper)
    seeds: Sequence[int] = (1,)
    grid: Sequence[float] = GRID
    halving: bool = False
    diagnostics: bool = False
    log: str = "collocation"
    allow_random: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.halving and not self.wants("proxy"):
            raise UsageError(
                f"halving is for the proxy: method {self.method} has none, and the traversal "
                "trains every pair to the end"
            )
        splits = (self.scoring.source, self.scoring.target, self.test)
        if self.method != "scores" and ALL in splits:
            raise UsageError(f"split {ALL!r} is for scores: a search needs splits of its own")

    def wants(self, method: Method) -> bool:
        """Whether a method is to run."""
        return self.method in (method, "all")


def collocate(
    candidates: Candidates,
    settings: Settings,
    *,
    client: Client | None = None,
    reading: Callable[[str], None] = lambda name: None,
    epoch: EpochListener | None = None,
    trained: Listener | None = None,
) -> Document:
    """Rank pairs by every method asked for, and hold them against each other.

    Parameters
    ----------
    client
        Of a Dask cluster that trains; None to train here.
    reading
        Told whose store is being read for the scores.
    epoch
        Told of each epoch of a training in this process.
    trained
        Told of each training.

    Returns
    -------
    dict
        Ready for JSON; docs/collocation.md describes it.

    Raises
    ------
    CollocationError
        If a split has no clips in common, or no labels that a search needs; before any work.
    FeaturesError
        If features are not finite.
    TrainingError
        If all trainings of a search diverge.
    """
    document = _head(candidates, settings)
    corpus = _corpus(candidates, settings)
    log = Log(settings.log)
    if corpus is not None:
        document["decision"] = dict(DECISION)
        document["trainings"] = _trainings(corpus, settings)
    cheap: dict[str, tuple[dict[Pair, float], float]] = {}
    if settings.wants("scores"):
        started = time.perf_counter()
        table = scoring.score(candidates, settings.scoring, progress=reading)
        seconds = time.perf_counter() - started
        document |= _scored(table, settings, seconds)
        for name in settings.scoring.names:
            cheap[name] = (table.values(name), seconds)
    if settings.diagnostics:
        from avfeat.collocate.diagnostics import diagnose

        document["diagnostics"] = diagnose(
            candidates, dataclasses.replace(settings.scoring, resamples=0), progress=reading
        )
    searches: dict[str, Search] = {}
    if corpus is not None:
        from avfeat.collocate.runner import Runner

        runner = Runner(corpus, log, client=client, listener=trained, on_epoch=epoch)
        searches = _searches(runner, candidates, settings)
    document["searches"] = {name: _searched(search) for name, search in searches.items()}
    if "proxy" in searches:
        found = searches["proxy"]
        # A pair that was dropped early is behind those that were not, whatever it had reached.
        reached = {p.pair: (p.epochs, p.value) for p in found.places if p.value is not None}
        steps = sorted(set(reached.values()))
        order = {pair: float(steps.index(one)) for pair, one in reached.items()}
        cheap["proxy"] = (order, found.seconds)
    if "traverse" in searches:
        document["evidence"] = _evidence(cheap, searches["traverse"])
    return document


def _head(candidates: Candidates, settings: Settings) -> Document:
    def names(ones: Sequence[Any]) -> list[str]:
        return [one.name for one in ones]

    return {
        "avfeat": __version__,
        "dataset": candidates.dataset,
        "method": settings.method,
        "audio": names(candidates.audio),
        "visual": names(candidates.visual),
        "motion": candidates.motion and candidates.motion.name,
        "clips": len(candidates.clips),
        "clips_apart": candidates.apart,
        "missing": [dataclasses.asdict(one) for one in candidates.missing],
        "left_out": candidates.left_out,
        "stores": {
            one.name: {
                "url": one.store.url,
                "fingerprint": one.store.fingerprint,
                "content": one.store.content(candidates.clips),
                "weights": one.store.recipe.weights["source"],
                "dim": one.store.dim,
            }
            for one in candidates.all
        },
    }


def _scored(table: Table, settings: Settings, seconds: float) -> Document:
    options = settings.scoring
    return {
        "scores": {name: SCORES[name] for name in options.names},
        "splits": {"source": options.source, "target": options.target, "clips": table.clips},
        "k": options.k,
        "resamples": options.resamples,
        "sampled": table.sampled,
        "pairs": [_row(one) for one in table.pairs],
        "singles": [_row(one) for one in table.singles],
        "seconds": seconds,
    }


def _row(one: Scored) -> Document:
    return {
        "names": list(one.names),
        "scores": {name: score.to_dict() for name, score in one.scores.items()},
        "angles": {"printed": _angles(one.angles), "centred": _angles(one.centred)},
    }


def _angles(angles: Angles | None) -> Document | None:
    if angles is None or angles.reason:
        return None
    return {
        "cosines": angles.cosines.tolist(),
        "determined": angles.determined.tolist(),
        "gaps": angles.gaps.tolist(),
        "thresholds": dict(zip(("source", "target"), angles.thresholds, strict=True)),
        "last_gaps": dict(zip(("source", "target"), angles.last_gaps, strict=True)),
        "principal": angles.principal.tolist(),
        "energy": dict(zip(("source", "target"), angles.energy, strict=True)),
        "interval": None if angles.interval is None else angles.interval.tolist(),
    }


def _corpus(candidates: Candidates, settings: Settings) -> Corpus | None:
    """Take what searches need; None if none is asked for."""
    proxied, traversed = settings.wants("proxy"), settings.wants("traverse")
    if not (proxied or traversed):
        return None
    # Torch with all that it brings is half a gigabyte, which scores do without.
    from avfeat.collocate.corpus import Corpus

    train, val = settings.scoring.source, settings.scoring.target
    scored = {val} | ({settings.test} if traversed else set())
    splits = scored | ({train} if traversed else set())
    corpus = Corpus.of(candidates, splits, allow_random=settings.allow_random)
    if traversed:
        seen = {clip.id for split in (train, val) for clip in corpus.splits[split]}
        if any(clip.id in seen for clip in corpus.splits[settings.test]):
            raise CollocationError(
                "the traversal judges pairs by clips that it never saw, and "
                f"--test {settings.test} has clips that it trains on or chooses by"
            )
    for split in sorted(scored):
        if not any(clip.events for clip in corpus.splits[split]):
            raise CollocationError(
                f"the {split} split of {candidates.dataset} has no labels by the second to score "
                "a parsing by; --method scores needs none"
            )
    return corpus


def _trainings(corpus: Corpus, settings: Settings) -> Document:
    """Say what all trainings have in common."""
    import torch

    hyper = dataclasses.asdict(settings.hyper)
    del hyper["seed"]  # each training has its own
    roles = {"train": settings.scoring.source, "val": settings.scoring.target}
    if settings.wants("traverse"):
        roles["test"] = settings.test
    else:
        del roles["train"]
    return {
        "splits": {
            role: {"split": split, "clips": len(corpus.splits[split])}
            for role, split in roles.items()
        },
        "hyper": hyper,
        "seeds": list(settings.seeds),
        "device": settings.device,
        "torch": torch.__version__,
        "log": settings.log,
    }


def _searches(runner: Runner, candidates: Candidates, settings: Settings) -> dict[str, Search]:
    from avfeat.collocate.corpus import Source
    from avfeat.collocate.search import proxy, traverse

    train, val = settings.scoring.source, settings.scoring.target
    pairs = [(Source.of(audio), Source.of(visual)) for audio, visual in candidates.pairs]
    motion = Source.of(candidates.motion) if candidates.motion else None
    found: dict[str, Search] = {}
    if settings.wants("proxy"):
        found["proxy"] = proxy(
            runner,
            pairs,
            motion=motion,
            split=val,
            hyper=settings.hyper,
            seeds=settings.seeds,
            device=settings.device,
            grid=settings.grid,
            halving=settings.halving,
        )
    if settings.wants("traverse"):
        found["traverse"] = traverse(
            runner,
            pairs,
            motion=motion,
            splits=(train, val, settings.test),
            hyper=settings.hyper,
            seeds=settings.seeds,
            device=settings.device,
        )
    return found


def _searched(search: Search) -> Document:
    return {
        "places": [
            {
                "pair": list(place.pair),
                "type_av": place.value,
                "diverged": place.value is None,
                "spread": place.spread,
                "epochs": place.epochs,
                "records": [record["key"] for record in place.records],
                "scores": [record["scores"] for record in place.records],
            }
            for place in search.places
        ],
        "seconds": search.seconds,
        "trainings": search.trainings,
        "facts": search.facts,
    }


def _evidence(
    cheap: dict[str, tuple[dict[Pair, float], float]], traversal: Search
) -> dict[str, Document]:
    """Hold every method against the traversal; seconds of scores are those of all together."""
    truth = {place.pair: place.value for place in traversal.places if place.value is not None}
    found = {}
    for name, (values, seconds) in cheap.items():
        ratio = traversal.seconds / seconds if seconds else None
        found[name] = dataclasses.asdict(agreement(values, truth)) | {
            "seconds": seconds,
            "times_cheaper": ratio,
        }
    return found
