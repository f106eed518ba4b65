"""Trainings of the task model: the proxy against the traversal, and an epoch against a plain loop.

Searches are on the synthetic family, whose best pair is known.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avfeat.collocate.arrays import Arrays, Tensors
from avfeat.collocate.candidates import gather
from avfeat.collocate.corpus import Corpus, Source
from avfeat.collocate.evidence import Pair, agreement
from avfeat.collocate.han import HAN
from avfeat.collocate.mmil import mmil_loss
from avfeat.collocate.session import Document, Settings, collocate
from avfeat.collocate.train import Hyper, fit
from avfeat.datasets import synthetic
from avfeat.datasets.synthetic import AUDIO, MOTION, SEGMENTS, VISUAL, Family
from avfeat.metrics import avvp
from avfeat.words import counted
from benchmarks.collocation_stores import write
from benchmarks.figure import Figure, least, most, plain
from benchmarks.limits import gemm_peak
from benchmarks.setting import Setting, alternate, counted_runs, medians

#: Traversal's seconds over the proxy's, Type@AV that its choice may lose, and an epoch's time over
#: that of the plain loop: what is promised.
CHEAPER, REGRET, LOOP = 5.0, 0.5, 1.2

#: Epochs of the trainings whose time is compared. All are equally long, so more say the same.
TIMED_EPOCHS = 1
#: Clips per split, epochs and seeds of the searches whose choice is judged.
JUDGED_CLIPS, JUDGED_EPOCHS, JUDGED_SEEDS = (600, 200, 400), 10, (1, 2)

_QUICK_CLIPS = (24, 12, 12)
#: The best backbones alone, which are not the best pair.
_SINGLES: Pair = ("vggish", "polynet")
_STEPS_PER_CLIP = 3  # a forward and a backward pass are three forward passes' products


def searches(setting: Setting) -> Iterator[Figure]:
    """Measure what the proxy spares and what it loses."""
    counts, epochs, seeds = JUDGED_CLIPS, JUDGED_EPOCHS, JUDGED_SEEDS
    if setting.quick:
        counts, epochs, seeds = _QUICK_CLIPS, 2, (1,)
    cheap, dear = _search(setting, counts, epochs=epochs, seeds=seeds)
    truth = _ranked(dear)
    found = agreement(_ranked(cheap), truth)
    # Pairs of these features differ, so that the proxy does choose.
    assert found is not None
    assert found.best is not None
    assert found.regret is not None
    best = max(truth.values())
    tau = found.reason if found.tau is None else f"{found.tau:.2f}"
    regret = plain(
        f"proxy: what its choice loses, {_splits(counts)} clips",
        found.regret,
        "points of Type@AV",
        f"from {' + '.join(_SINGLES)} to {' + '.join(found.best)}, place {found.rank} of "
        f"{found.pairs}; Kendall's tau "
        f"{tau}; {_told(cheap, dear)}; {counted(epochs, 'epoch')}, {counted(len(seeds), 'seed')}",
        limit=f"the pair of the best singles loses {best - truth[_SINGLES]:.2f}",
    )
    yield regret.bounded(REGRET)
    counts = _QUICK_CLIPS if setting.quick else synthetic.LLP_CLIPS
    each = [
        search["seconds"] / search["trainings"]
        for search in _search(setting, counts, epochs=TIMED_EPOCHS, seeds=(1,))
    ]
    many = cheap["trainings"], dear["trainings"]
    yield least(
        f"proxy: the traversal's seconds over its own, {_splits(counts)} clips",
        each[1] * many[1] / (each[0] * many[0]),
        CHEAPER,
        f"{many[1]} trainings of {each[1]:.2f} s an epoch to {many[0]} of {each[0]:.2f} s: as many "
        f"as the searches above took; {TIMED_EPOCHS} epoch each, features 64 wide; 1 run",
        limit=f"{counts[0] / counts[1]:.1f} times as many clips, {many[1]} trainings to {many[0]}: "
        f"{counts[0] / counts[1] * many[1] / many[0]:.1f}",
    )


def _search(
    setting: Setting, counts: tuple[int, int, int], *, epochs: int, seeds: tuple[int, ...]
) -> tuple[Document, Document]:
    """Search by proxy and by traversal; every training is made here."""
    folder = setting.fresh("searches")
    write(folder / "features", Family(clips=counts))
    visual = [one.name for one in VISUAL if not setting.quick or one.name in _SINGLES]
    # The proxy starts at the first pair: where one would who knows the single networks alone.
    visual.sort(key=lambda name: name not in _SINGLES)
    audio = [one.name for one in AUDIO]
    candidates = gather(str(folder / "features"), dataset=None, audio=audio, visual=visual)
    found = []
    for method in ("proxy", "traverse"):
        log = str(folder / method)
        settings = Settings(method=method, hyper=Hyper(epochs=epochs), seeds=seeds, log=log)
        found.append(collocate(candidates, settings)["searches"][method])
    shutil.rmtree(folder)
    return found[0], found[1]


def _ranked(search: Document) -> dict[Pair, float]:
    return {tuple(place["pair"]): place["type_av"] for place in search["places"]}


def _told(cheap: Document, dear: Document) -> str:
    moves = counted(len(cheap["facts"]["path"]), "pair")
    return (
        f"traversal {counted(dear['trainings'], 'training')}, {dear['seconds']:.0f} s; proxy "
        f"{counted(cheap['trainings'], 'training')}, {cheap['seconds']:.0f} s, tuned at {moves}"
    )


def _splits(counts: tuple[int, int, int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)


def epoch(setting: Setting, stores: Path) -> Figure:
    """Compare an epoch through `fit` with the same steps on tensors, validation on both sides."""
    names = [one.name for one in (AUDIO[0], VISUAL[1], MOTION[0])]
    candidates = gather(
        str(stores), dataset=None, audio=names[:1], visual=names[1:2], motion=names[2]
    )
    corpus = Corpus.of(candidates, {"train", "val"}, allow_random=False)
    audio, visual, motion = (Source.of(one) for one in candidates.all)
    started = time.perf_counter()
    train, val = (corpus.arrays(audio, visual, motion, split) for split in ("train", "val"))
    loading = time.perf_counter() - started
    hyper = Hyper(epochs=1)
    cpu = torch.device("cpu")
    learnt, judged = Tensors.of(train, cpu), Tensors.of(val, cpu)
    assert val.dense is not None
    repeats = setting.repeats(3)
    seconds = medians(
        alternate(
            {
                "fit": lambda: fit(train, val, hyper) and None,
                "loop": lambda: _loop(learnt, judged, val.dense, train, hyper),
            },
            repeats=repeats,
        )
    )
    network = HAN(train.sizes)
    weights = sum(p.numel() for name, p in network.named_parameters() if p.dim() == 2)
    gmacs = weights * SEGMENTS * (_STEPS_PER_CLIP * len(train) + len(val)) / 1e9
    return most(
        f"an epoch of {len(train):,} clips through fit, over the plain loop on tensors in memory",
        seconds["fit"] / seconds["loop"],
        LOOP,
        f"fit {seconds['fit']:.1f} s, loop {seconds['loop']:.1f} s, both with the scores of "
        f"{len(val):,} clips; features "
        f"{', '.join(str(one.store.dim) for one in candidates.all)} wide, loaded from stores once, "
        f"before the first epoch, in {loading:.1f} s; {counted_runs(repeats)}",
        limit=f"every weight times every segment, about {gmacs:.0f} GMAC, at the GEMM peak "
        f"{gemm_peak(setting, 'fp32').seconds(gmacs):.1f} s",
    )


def _loop(
    train: Tensors, val: Tensors, truth: NDArray[np.bool_], arrays: Arrays, hyper: Hyper
) -> None:
    """Train and judge as one writes it down: no checks, no seeds, nothing kept."""
    network = HAN(arrays.sizes, dropout=hyper.dropout)
    optimizer = torch.optim.Adam(network.parameters(), lr=hyper.lr, fused=True)
    network.train()
    for batch in torch.split(torch.randperm(len(train)), hyper.batch):
        output = network(*(stream[batch] for stream in train.streams))
        loss = mmil_loss(output, train.weak[batch], smoothing=hyper.smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        parts = [
            network(*(stream[first : first + 64] for stream in val.streams))
            for first in range(0, len(val), 64)
        ]
    segment = torch.cat([part.segment for part in parts]).numpy()
    video = torch.cat([part.video for part in parts]).numpy()
    avvp.score(avvp.decide(segment, video, gate="joint"), truth)
