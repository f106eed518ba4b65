"""Trainings of the task model: the proxy against the traversal, and an epoch against a plain loop.

Features are the synthetic family's.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avfeat.collocate.arrays import Arrays, Tensors
from avfeat.collocate.candidates import gather
from avfeat.collocate.corpus import Corpus, Source
from avfeat.collocate.han import HAN
from avfeat.collocate.hyper import Hyper
from avfeat.collocate.mmil import mmil_loss
from avfeat.collocate.session import Document, Method, Settings, collocate
from avfeat.collocate.train import fit
from avfeat.datasets import synthetic
from avfeat.datasets.synthetic import AUDIO, MOTION, SEGMENTS, VISUAL, Family
from avfeat.metrics import avvp
from benchmarks.collocation_stores import QUICK_CLIPS, write
from benchmarks.figure import Figure, least, most
from benchmarks.limits import gemm_peak
from benchmarks.setting import Setting, alternate, counted_runs, medians

#: Traversal's seconds over the proxy's, and an epoch's time over that of the plain loop: what is
#: promised.
CHEAPER, LOOP = 5.0, 1.2

_STEPS_PER_CLIP = 3  # a forward and a backward pass are three forward passes' products


def cheaper(setting: Setting, searches: Document) -> Figure:
    """Compare the seconds of two searches at LLP's split sizes.

    Parameters
    ----------
    searches
        Those whose trainings count, from the document of a collocation. What an epoch of theirs
        takes on more clips is measured here.
    """
    counts = QUICK_CLIPS if setting.quick else synthetic.LLP_CLIPS
    folder = setting.fresh("searches")
    write(folder / "features", Family(clips=counts))
    candidates = gather(
        str(folder / "features"),
        dataset=None,
        audio=[one.name for one in AUDIO],
        visual=[one.name for one in VISUAL],
    )
    each, many = {}, {}
    methods: tuple[Method, ...] = ("proxy", "traverse")
    for method in methods:
        log = str(folder / method)
        settings = Settings(method=method, hyper=Hyper(epochs=1), log=log)
        found = collocate(candidates, settings)["searches"][method]
        each[method] = found["seconds"] / found["trainings"]
        many[method] = searches[method]["trainings"]
    shutil.rmtree(folder)
    share = counts[0] / counts[1]
    splits = " / ".join(f"{count:,}" for count in counts)
    return least(
        f"proxy: the traversal's seconds over its own, {splits} clips, extrapolated",
        each["traverse"] * many["traverse"] / (each["proxy"] * many["proxy"]),
        CHEAPER,
        f"{many['traverse']} trainings of {each['traverse']:.2f} s an epoch to {many['proxy']} of "
        f"{each['proxy']:.2f} s, measured by searches of one epoch; as many trainings as the "
        "searches above made; features 64 wide; 1 run",
        limit=f"{share:.1f} times as many clips, {many['traverse']} trainings to {many['proxy']}: "
        f"{share * many['traverse'] / many['proxy']:.1f}",
    )


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
