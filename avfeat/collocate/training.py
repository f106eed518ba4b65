"""One training of the task model on one pair: what it is, and its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from avfeat.collocate.corpus import Corpus, Source
from avfeat.collocate.hyper import DECISION, Hyper
from avfeat.collocate.log import Record
from avfeat.collocate.train import Epoch, Fit, evaluate, fit
from avfeat.errors import TrainingError
from avfeat.manifests.jsonfile import digest

#: Of the task model, part of every key: raised whenever the network, its losses, the schedule, the
#: metric or features by the second change, so that records of what was before are not taken for
#: what is now.
TASK_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A pair of backbones, how the task model is trained on it, and what it is judged by.

    Attributes
    ----------
    audio, visual, motion
        Stores; `motion` None without 3-D branch.
    train, val
        Splits to train on and to choose the epoch with.
    test
        Split to judge the chosen epoch by; None for `val`'s own score.
    hyper
        Hyper-parameters, seed included.
    until
        Epochs after which it pauses; None for all.
    device
        ``cpu``, ``cuda`` or ``cuda:N``. Numbers differ by its kind, which is in the key.
    """

    audio: Source
    visual: Source
    motion: Source | None
    train: str
    val: str
    test: str | None
    hyper: Hyper
    until: int | None = None
    device: str = "cpu"

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the audio and the visual backbone."""
        return self.audio.name, self.visual.name

    def key(self, corpus: Corpus) -> str:
        """Hash over all that the result depends on."""
        splits = {self.train, self.val, *([self.test] if self.test else [])}
        described = dataclasses.asdict(self)
        for stream in ("audio", "visual", "motion"):
            if described[stream] is not None:
                del described[stream]["url"]  # a store may move
        described["clips"] = {split: corpus.digests[split] for split in sorted(splits)}
        streams = [one.name for one in (self.audio, self.visual, self.motion) if one is not None]
        described["rows"] = {
            split: [corpus.contents[split][name] for name in streams] for split in sorted(splits)
        }
        described["device"] = torch.device(self.device).type
        described["classes"] = digest(list(corpus.classes))
        described["task"] = TASK_VERSION
        described["torch"] = torch.__version__
        return digest(described)


def train(
    training: Training,
    corpus: Corpus,
    *,
    resume: Fit | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Record, Fit | None]:
    """Run a training, or go on with one that paused.

    Returns
    -------
    record
        Plain data: the training, its curve, scores in percent, and seconds: of all epochs of the
        curve, those before a pause too. Of one that diverged ``diverged`` is true, the curve has
        the epochs before, and `scores` and ``best_epoch`` are None: again it would diverge again.
    fit
        To go on from, if it paused; None if it diverged.
    """
    streams = (training.audio, training.visual, training.motion)
    learnt, chosen = (corpus.arrays(*streams, split) for split in (training.train, training.val))
    curve = [] if resume is None else list(resume.curve)

    def ended(epoch: Epoch) -> None:
        curve.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)

    found: Fit | None = None
    scores = None
    try:
        found = fit(
            learnt,
            chosen,
            training.hyper,
            device=training.device,
            until=training.until,
            resume=resume,
            on_epoch=ended,
        )
        scores = found.best.scores
        if training.test is not None:
            judged = corpus.arrays(*streams, training.test)
            scores = evaluate(found.network(), judged, device=training.device)
    except TrainingError:
        found = scores = None
    record = {
        "key": training.key(corpus),
        "pair": list(training.pair),
        "motion": training.motion and training.motion.name,
        "splits": {"train": training.train, "val": training.val, "test": training.test},
        "hyper": dataclasses.asdict(training.hyper),
        "until": training.until,
        "device": torch.device(training.device).type,
        "decision": dict(DECISION),
        "diverged": found is None,
        "scores": scores and scores.to_dict(),
        "best_epoch": found and found.best.number,
        "curve": [
            {
                "epoch": epoch.number,
                "loss": epoch.loss,
                "type_av": epoch.scores.segment.type_av,
                "seconds": epoch.seconds,
            }
            for epoch in curve
        ],
        "seconds": sum(epoch.seconds for epoch in curve),
    }
    return record, found
