"""Training and evaluating the task model on features in memory.

Every random number of a training comes from its seed and the number of the epoch: initial weights,
the order of the clips, dropout. Global generators are left as they were. The same training gives
the same numbers again on the same machine with the same number of threads, in one go or in several.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avfeat.collocate.arrays import Arrays, Tensors
from avfeat.collocate.han import HAN, Sizes
from avfeat.collocate.hyper import DECISION, Hyper
from avfeat.collocate.mmil import Probabilities, mmil_loss
from avfeat.errors import FeaturesError, TrainingError, UsageError
from avfeat.metrics import avvp

_EVALUATED = 64  # clips at a time; the network treats every clip by itself
# Dropout draws from torch's global generators, so trainings of one process take turns.
_TURN = threading.RLock()


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training clips brought.

    Attributes
    ----------
    number
        From 1.
    loss
        Mean over the training clips, with dropout, while the weights changed.
    scores
        Of the validation clips, after it.
    seconds
        Training and evaluation; epochs are equal whatever time they took.
    """

    number: int
    loss: float
    scores: avvp.Scores
    seconds: float = field(compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A training, finished or paused. Picklable; holds no features.

    Attributes
    ----------
    hyper, sizes
        What was trained.
    curve
        One entry per epoch.
    best
        The last epoch with the highest segment-level Type@AV, as HAN's authors choose (their
        ``main_avvp.py`` keeps an epoch that is as good as the best before).
    weights
        The network's, after that epoch; on the CPU.
    checkpoint
        What `fit` goes on from, as `torch.save` writes it; None once all epochs are done.
    """

    hyper: Hyper
    sizes: Sizes
    curve: tuple[Epoch, ...]
    best: Epoch
    weights: Mapping[str, Tensor]
    checkpoint: bytes | None

    @property
    def seconds(self) -> float:
        """What all epochs took together."""
        return sum(epoch.seconds for epoch in self.curve)

    def network(self) -> HAN:
        """Build the network with the weights of the best epoch, on the CPU."""
        with torch.device("meta"):  # draws no random numbers for weights that are replaced
            network = HAN(self.sizes, dropout=self.hyper.dropout)
        own = {name: value.clone() for name, value in self.weights.items()}
        network.load_state_dict(own, assign=True)
        return network


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A network's probabilities: the arrays of `Probabilities`, of all clips.

    Attributes
    ----------
    segment
        float32 [n, T, 2, C]; audio 0, visual 1.
    video
        float32 [n, C]: of either modality; not clamped, up to 2.
    modality
        float32 [n, 2, C].
    """

    segment: NDArray[np.float32]
    video: NDArray[np.float32]
    modality: NDArray[np.float32]


def fit(
    train: Arrays,
    val: Arrays,
    hyper: Hyper,
    *,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] | None = None,
    until: int | None = None,
    resume: Fit | None = None,
) -> Fit:
    """Train a network on weak labels and score it on dense ones after every epoch.

    Parameters
    ----------
    train, val
        Clips to train on, by their weak labels, and to choose the epoch with. May be the same.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    on_epoch
        Called after every epoch.
    until
        Pause after this many epochs, counted from the beginning; None trains all.
    resume
        A paused training of the same clips and hyper-parameters to go on with. The result is what
        it would be without the pause.

    Raises
    ------
    FeaturesError
        If features are not finite, `val` has no dense labels, or the two do not fit each other.
    TrainingError
        If the network's probabilities are no numbers any more.
    UsageError
        If `until` is out of range, or `resume` is a training of something else.
    """
    last = hyper.epochs if until is None else until
    if not 1 <= last <= hyper.epochs:
        raise UsageError(f"until must be from 1 to {hyper.epochs}, the epochs, not {until}")
    if train.sizes != val.sizes:
        raise FeaturesError(
            f"clips to train on and to validate on differ: {train.sizes} and {val.sizes}"
        )
    truth = _truth(val)
    if resume is not None and (resume.hyper, resume.sizes) != (hyper, train.sizes):
        raise UsageError(
            "the training to go on with is another one: "
            f"{resume.hyper} of {resume.sizes}, not {hyper} of {train.sizes}"
        )
    if resume is not None and (resume.checkpoint is None or len(resume.curve) >= last):
        return resume

    place = torch.device(device)
    training = Tensors.of(train, place)
    validation = training if val is train else Tensors.of(val, place)
    run = _Run(hyper, train.sizes, place)
    curve: list[Epoch] = []
    best: Epoch | None = None
    weights: Mapping[str, Tensor] = {}
    if resume is not None and resume.checkpoint is not None:
        run.load(resume.checkpoint)
        curve, best, weights = list(resume.curve), resume.best, resume.weights
    for number in range(len(curve) + 1, last + 1):
        with _TURN:  # waiting for another training is not this one's time
            began = time.perf_counter()
            loss = run.epoch(number, training)
            scores = _scores(_predict(run.network, validation), truth)
            epoch = Epoch(number, loss, scores, time.perf_counter() - began)
        curve.append(epoch)
        if best is None or _criterion(epoch) >= _criterion(best):
            best, weights = epoch, run.weights()
        if on_epoch is not None:
            on_epoch(epoch)
    assert best is not None  # there was an epoch, here or before the pause
    checkpoint = run.save() if last < hyper.epochs else None
    return Fit(hyper, train.sizes, tuple(curve), best, weights, checkpoint)


def predict(network: HAN, arrays: Arrays, *, device: str = "cpu") -> Predictions:
    """Parse clips, many at a time; up to rounding what one by one gives.

    The network is moved to the device and set to evaluation.

    Raises
    ------
    FeaturesError
        If features are not finite, or the network is for others.
    """
    if network.sizes != arrays.sizes:
        raise FeaturesError(f"a network for {network.sizes} cannot parse {arrays.sizes}")
    place = torch.device(device)
    return _predict(network.to(place), Tensors.of(arrays, place))


def evaluate(network: HAN, arrays: Arrays, *, device: str = "cpu") -> avvp.Scores:
    """Score a network on clips with dense labels, by the rules of HAN's authors.

    A segment's event counts where its probability and the clip's joint one both reach 0.5.

    Raises
    ------
    FeaturesError
        If features are not finite, the network is for others, or there are no dense labels.
    """
    truth = _truth(arrays)
    return _scores(predict(network, arrays, device=device), truth)


class _Run:
    """Network and optimiser of a training."""

    def __init__(self, hyper: Hyper, sizes: Sizes, device: torch.device) -> None:
        self.hyper = hyper
        # On the CPU, for the same initial weights on every device.
        with _randomness(_seeds(hyper, 0)[0], torch.device("cpu")):
            self.network = HAN(sizes, dropout=hyper.dropout).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=hyper.lr, fused=True)

    def epoch(self, number: int, clips: Tensors) -> float:
        """Pass once over the clips; return the mean loss."""
        hyper, device = self.hyper, clips.weak.device
        lr = hyper.lr * hyper.decay ** ((number - 1) // hyper.decay_every)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        ordering, seed = _seeds(hyper, number)
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(ordering))
        total = torch.zeros((), device=device)
        self.network.train()
        with _randomness(seed, device):
            for batch in torch.split(order.to(device), hyper.batch):
                streams = [stream.index_select(0, batch) for stream in clips.streams]
                output: Probabilities = self.network(*streams)
                # Before the loss: of NaN it is a crash on a GPU, which takes the process along.
                _check_numbers(output.video)
                weak = clips.weak.index_select(0, batch)
                loss = mmil_loss(output, weak, smoothing=hyper.smoothing)
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                total += loss.detach() * len(batch)
        return float(total) / len(clips)

    def weights(self) -> dict[str, Tensor]:
        state = self.network.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def save(self) -> bytes:
        buffer = io.BytesIO()
        torch.save((self.network.state_dict(), self.optimizer.state_dict()), buffer)
        return buffer.getvalue()

    def load(self, checkpoint: bytes) -> None:
        # To the CPU first: the pause may have been on another device.
        saved = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
        self.network.load_state_dict(saved[0])
        self.optimizer.load_state_dict(saved[1])


@torch.inference_mode()
def _predict(network: HAN, clips: Tensors) -> Predictions:
    network.eval()
    parts = [
        network(*streams)
        for streams in zip(*(torch.split(s, _EVALUATED) for s in clips.streams), strict=True)
    ]
    output = Probabilities(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))
    _check_numbers(output.video)
    return Predictions(*(part.numpy() for part in output))


def _check_numbers(video: Tensor) -> None:
    if not bool(video.isfinite().all()):
        raise TrainingError(
            "the network's probabilities are not finite, as its training diverged: lower the "
            "learning rate, or bring the features to a smaller scale"
        )


def _truth(arrays: Arrays) -> NDArray[np.bool_]:
    if arrays.dense is None:
        raise FeaturesError("the clips have no dense labels: a parsing cannot be scored on them")
    return arrays.dense


def _scores(found: Predictions, truth: NDArray[np.bool_]) -> avvp.Scores:
    return avvp.score(avvp.decide(found.segment, found.video, **DECISION), truth)


def _criterion(epoch: Epoch) -> float:
    return epoch.scores.segment.type_av


def _seeds(hyper: Hyper, epoch: int) -> tuple[int, int]:
    """Seeds of an epoch's order of clips and of its dropout; the first of epoch 0 is of weights."""
    drawn = np.random.SeedSequence((hyper.seed, epoch)).generate_state(2, np.uint64) >> 1
    return int(drawn[0]), int(drawn[1])


@contextmanager
def _randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch's global generators start at a seed, and put them back at the end."""
    cuda = [device] if device.type == "cuda" else []
    with _TURN, torch.random.fork_rng(cuda):
        # Not torch.manual_seed, which seeds the generators of all devices.
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield
