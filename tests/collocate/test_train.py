"""Training: it learns, gives the same again, can be paused, and refuses what it cannot use."""

from __future__ import annotations

import io
import math
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avfeat.collocate.arrays import Arrays
from avfeat.collocate.han import HAN, Sizes
from avfeat.collocate.hyper import Hyper
from avfeat.collocate.mmil import mmil_loss
from avfeat.collocate.train import Epoch, evaluate, fit, predict
from avfeat.errors import AvfeatError, FeaturesError, TrainingError, UsageError
from avfeat.metrics import avvp

SEGMENTS = 5


def world(
    clips: int,
    *,
    seed: int,
    classes: int = 3,
    rows: int = 1,
    motion: bool = False,
    together: bool = False,
) -> Arrays:
    """Clips with one or two events, heard, seen or both; features are the events' directions.

    `together` makes all events heard and seen.
    """
    directions = np.random.default_rng(99).normal(size=(3, classes, 12))
    rng = np.random.default_rng(seed)
    dense = np.zeros((clips, SEGMENTS, 2, classes), bool)
    for clip in dense:
        for label in rng.choice(classes, min(classes, rng.integers(1, 3)), replace=False):
            onset = rng.integers(0, SEGMENTS - 1)
            offset = onset + rng.integers(1, 3)
            for modality in ([0, 1], [0], [1])[0 if together else rng.integers(3)]:
                clip[onset:offset, modality, label] = True

    def stream(modality: int, which: int, per_second: int) -> np.ndarray:
        events = dense[:, :, modality].repeat(per_second, axis=1).astype(float)
        clean = events @ directions[which]
        return (clean + 0.2 * rng.normal(size=clean.shape)).astype(np.float32)

    return Arrays(
        audio=stream(0, 0, 1),
        visual=stream(1, 1, rows),
        motion=stream(1, 2, 1) if motion else None,
        weak=dense.any(axis=(1, 2)).astype(np.float32),
        dense=dense,
    )


def quick(**values: object) -> Hyper:
    return replace(Hyper(epochs=4, decay_every=2, batch=8, lr=1e-3), **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def train() -> Arrays:
    return world(36, seed=1, rows=2)


@pytest.fixture(scope="module")
def val() -> Arrays:
    return world(20, seed=2, rows=2)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_hyper_parameters_are_those_of_the_authors() -> None:
    assert Hyper() == Hyper(
        **{"lr": 3e-4, "batch": 16, "epochs": 40, "decay": 0.1, "decay_every": 10},
        **{"seed": 1, "smoothing": 0.1, "dropout": 0.1},
    )


@pytest.mark.parametrize("motion", [False, True])
def test_learns_to_parse_from_weak_labels(motion: bool) -> None:
    train, val = (
        world(n, seed=n, classes=6, rows=2, motion=motion, together=True) for n in (160, 60)
    )
    result = fit(train, val, Hyper(epochs=8, lr=1e-3, decay_every=6))
    assert val.dense is not None

    def everywhere(labels: np.ndarray) -> float:
        """Type@AV of clip labels, bool [n or 1, C], in all segments of both modalities."""
        predicted = np.broadcast_to(labels[:, None, None], val.dense.shape)
        return avvp.score(predicted.copy(), val.dense).segment.type_av

    chance = max(everywhere(labels[None] > 0) for labels in (*np.eye(6), np.zeros(6), np.ones(6)))
    knowing = everywhere(val.weak > 0)
    best = result.best.scores.segment.type_av
    assert best > 2 * chance, (best, chance)
    # The clip's true labels do not say when: it has learned more than it was told.
    assert best > knowing + 4, (best, knowing)
    assert result.curve[-1].loss < 0.6 * result.curve[0].loss
    assert evaluate(result.network(), val) == result.best.scores


def test_same_seed_same_numbers_another_seed_others(train: Arrays, val: Arrays) -> None:
    one, again = fit(train, val, quick()), fit(train, val, quick())
    assert one.curve == again.curve and equal(one.weights, again.weights)
    other = fit(train, val, quick(seed=2))
    assert [e.loss for e in other.curve] != [e.loss for e in one.curve]


def test_global_random_numbers_go_on_as_if_nothing_had_been(train: Arrays, val: Arrays) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    one = fit(train, val, quick(epochs=1))
    network = one.network()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert random.getstate() == before[2]
    with torch.random.fork_rng([]):
        torch.rand(3)
        assert fit(train, val, quick(epochs=1)).curve == one.curve
    # The network is the caller's: what becomes of it does not change the training's result.
    for parameter in network.parameters():
        assert parameter.requires_grad
        parameter.data.zero_()
    assert evaluate(one.network(), val) == one.best.scores


@pytest.mark.parametrize("pauses", [[1], [2], [3], [1, 2, 3]])
def test_pausing_changes_nothing(train: Arrays, val: Arrays, pauses: list[int]) -> None:
    whole = fit(train, val, quick())
    paused = None
    for until in pauses:
        paused = fit(train, val, quick(), until=until, resume=paused)
        assert [epoch.number for epoch in paused.curve] == list(range(1, until + 1))
        assert paused.checkpoint is not None
        paused = pickle.loads(pickle.dumps(paused))  # to another process
    result = fit(train, val, quick(), resume=paused)
    assert result.curve == whole.curve and result.best == whole.best
    assert equal(result.weights, whole.weights)
    assert result.checkpoint is None is whole.checkpoint
    assert fit(train, val, quick(), resume=result) is result


def test_a_pause_that_is_reached_already_is_the_result(train: Arrays, val: Arrays) -> None:
    paused = fit(train, val, quick(), until=2)
    assert fit(train, val, quick(), until=2, resume=paused) is paused
    assert fit(train, val, quick(), until=1, resume=paused) is paused


def test_every_epoch_is_told_and_the_last_best_one_kept(train: Arrays, val: Arrays) -> None:
    told: list[Epoch] = []
    result = fit(train, val, quick(epochs=5), on_epoch=told.append)
    assert tuple(told) == result.curve and result.best in told
    values = [epoch.scores.segment.type_av for epoch in told]
    assert result.best.number == len(values) - values[::-1].index(max(values))
    assert result.seconds == pytest.approx(sum(epoch.seconds for epoch in told))
    assert all(epoch.seconds > 0 for epoch in told)


def test_of_equal_epochs_the_last_is_kept_and_its_weights(train: Arrays, val: Arrays) -> None:
    still = quick(lr=1e-30, dropout=0.3)
    result = fit(train, val, still)
    assert len({epoch.scores for epoch in result.curve}) == 1 and result.best.number == 4
    # Adam's steps, however small, make the weights of every epoch others.
    whole = fit(train, val, quick(lr=1e-30, dropout=0.3, epochs=5), until=4)
    assert whole.checkpoint is not None
    saved, _ = torch.load(io.BytesIO(whole.checkpoint), weights_only=True)
    assert equal(result.weights, saved)
    # Every epoch has a dropout of its own, here all that can change the loss.
    assert len({epoch.loss for epoch in result.curve}) == 4


def test_the_loss_is_the_mean_over_clips_whatever_the_batches(train: Arrays, val: Arrays) -> None:
    losses = [
        fit(train, val, quick(lr=1e-30, dropout=0.0, epochs=1, batch=batch)).curve[0].loss
        for batch in (36, 7, 35, 1, 100)
    ]
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-5)


def test_every_clip_is_taken_once_an_epoch_in_another_order(
    train: Arrays, val: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    forward = HAN.forward

    def watched(self: HAN, audio: torch.Tensor, *rest: torch.Tensor) -> object:
        if self.training:
            seen.append(audio.numpy())
        return forward(self, audio, *rest)

    monkeypatch.setattr(HAN, "forward", watched)
    fit(train, val, quick(epochs=2))
    assert [len(batch) for batch in seen] == [8, 8, 8, 8, 4] * 2
    number = {clip.tobytes(): i for i, clip in enumerate(train.audio)}
    order = [number[clip.tobytes()] for batch in seen for clip in batch]
    first, second = order[:36], order[36:]
    assert sorted(first) == sorted(second) == list(range(36))
    assert first != second and first != list(range(36))


def test_segments_count_where_the_joint_probability_of_the_clip_lets_them(val: Arrays) -> None:
    network = HAN(val.sizes)
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.default_generator.manual_seed(3)
        network.pooling.classifier.weight.normal_(std=0.2)
        for layer in (network.pooling.time_attention, network.pooling.modality_attention):
            for parameter in layer.parameters():
                parameter.zero_()
    found = predict(network, val)
    np.testing.assert_allclose(found.video, found.segment.mean(axis=(1, 2)), rtol=1e-5)
    decided = (found.segment >= 0.5) & (found.video[:, None, None] >= 0.5)
    assert val.dense is not None
    assert evaluate(network, val) == avvp.score(decided, val.dense)
    assert evaluate(network, val) != avvp.score(found.segment >= 0.5, val.dense)


def test_equals_a_loop_written_out(train: Arrays, val: Arrays) -> None:
    """Without dropout nothing is random but the weights at first and the order of clips.

    With one batch per epoch the order does not matter either.
    """
    hyper = quick(dropout=0.0, batch=len(train), epochs=5, decay=0.5)
    result = fit(train, val, hyper)
    # A learning rate of nearly nothing leaves the initial weights.
    network = HAN(train.sizes, dropout=0.0)
    network.load_state_dict(fit(train, val, replace(hyper, lr=1e-30, epochs=1)).weights)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        output = network(torch.from_numpy(train.audio), torch.from_numpy(train.visual))
        loss = mmil_loss(output, torch.from_numpy(train.weak), smoothing=0.1)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert [epoch.loss for epoch in result.curve] == pytest.approx(losses, rel=1e-4)


def test_many_clips_at_a_time_give_what_one_gives(val: Arrays) -> None:
    clips = world(150, seed=3, motion=True)  # more than are evaluated at a time
    network = fit(clips, clips, quick(epochs=1)).network()
    together = predict(network, clips)
    assert together.segment.shape == (150, SEGMENTS, 2, 3)
    for i in (0, 63, 64, 149):
        one = slice(i, i + 1)
        assert clips.motion is not None
        alone = predict(
            network,
            Arrays(
                audio=clips.audio[one],
                visual=clips.visual[one],
                motion=clips.motion[one],
                weak=clips.weak[one],
            ),
        )
        for name in ("segment", "video", "modality"):
            np.testing.assert_allclose(
                getattr(together, name)[one], getattr(alone, name), rtol=0, atol=1e-6
            )


def test_memory_maps_read_only_and_double_arrays_train_alike(
    tmp_path: Path, train: Arrays, val: Arrays
) -> None:
    wanted = fit(train, val, quick(epochs=1)).curve
    averaged = train.averaged()
    assert averaged.averaged() is averaged
    assert averaged.visual == pytest.approx(
        train.visual.reshape(len(train), SEGMENTS, 2, -1).mean(2), abs=1e-6
    )
    for name, array in (("audio", train.audio), ("visual", averaged.visual)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = replace(
        train,
        audio=np.load(tmp_path / "audio.npy", mmap_mode="r"),
        visual=np.load(tmp_path / "visual.npy", mmap_mode="r"),
    )
    double = replace(train, audio=train.audio.astype(float), weak=train.weak.astype(float))
    strided = replace(averaged, audio=np.asfortranarray(train.audio))
    for other in (averaged, mapped, double, strided):
        assert fit(other, val, quick(epochs=1)).curve == wanted


def test_one_class_is_enough() -> None:
    clips = world(24, seed=4, classes=1)
    clips.weak[:8], clips.dense[:8] = 0, False  # type: ignore[index]
    result = fit(clips, clips, quick())
    assert result.sizes == Sizes(audio=12, visual=12, motion=None, classes=1)
    assert result.curve[-1].loss < result.curve[0].loss


@pytest.mark.parametrize("stream", ["audio", "visual", "motion"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_no_numbers_are_refused(stream: str, value: float) -> None:
    good, bad = (world(300, seed=5, rows=2, motion=True) for _ in range(2))
    getattr(bad, stream)[270, 3, 1] = value
    message = f"{stream} features of clip 270 .* not finite"
    for arrays in ((bad, good), (good, bad)):
        with pytest.raises(FeaturesError, match=message):
            fit(*arrays, quick(epochs=1, batch=300))
    with pytest.raises(FeaturesError, match=message):
        predict(HAN(bad.sizes), bad)


def test_rows_that_do_not_fit_the_seconds_are_refused() -> None:
    clips = world(4, seed=6)
    with pytest.raises(FeaturesError, match=r"^7 visual rows .* over 5 segments.* 5 or 40$"):
        replace(clips, visual=np.zeros((4, 7, 12), np.float32))
    with pytest.raises(FeaturesError, match="4 visual rows"):
        replace(clips, visual=clips.visual[:, :4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.zeros((0, 5, 12), np.float32)}, r"audio features have shape \(0, 5, 12\)"),
        ({"audio": np.zeros((4, 12), np.float32)}, r"audio features have shape \(4, 12\)"),
        ({"visual": np.zeros((3, 5, 12), np.float32)}, r"visual has shape \(3, 5, 12\)"),
        ({"motion": np.zeros((4, 10, 12), np.float32)}, r"motion .* must be \[4, 5, any\]"),
        ({"weak": np.zeros((3, 3), np.float32)}, r"weak .* must be \[4, any\]"),
        ({"weak": np.zeros((4, 2), np.float32)}, r"dense .* must be \[4, 5, 2, 2\]"),
        ({"weak": np.zeros((4, 0), np.float32), "dense": None}, "one class or more"),
        ({"weak": np.full((4, 3), 2, np.float32)}, r"in \[0, 1\]"),
        ({"weak": np.full((4, 3), math.nan, np.float32)}, r"in \[0, 1\]"),
        ({"dense": np.zeros((4, 5, 2, 3), np.float32)}, "must be bool, not float32"),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(
    change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(FeaturesError, match=message):
        replace(world(4, seed=7), **change)  # type: ignore[arg-type]


def test_what_does_not_belong_together_is_refused(train: Arrays, val: Arrays) -> None:
    with pytest.raises(FeaturesError, match="no dense labels"):
        fit(train, replace(val, dense=None), quick())
    with pytest.raises(FeaturesError, match="no dense labels"):
        evaluate(HAN(val.sizes), replace(val, dense=None))
    with pytest.raises(FeaturesError, match=r"differ: .*audio=12.*audio=11"):
        fit(train, replace(val, audio=val.audio[:, :, 1:]), quick())
    with pytest.raises(FeaturesError, match="cannot parse"):
        predict(HAN(Sizes()), val)
    paused = fit(train, val, quick(), until=1)
    for other in (quick(lr=1e-4), quick(epochs=9), quick(seed=7)):
        with pytest.raises(UsageError, match="is another one"):
            fit(train, val, other, resume=paused)
    for until in (0, -1, 5):
        with pytest.raises(UsageError, match=f"from 1 to 4, the epochs, not {until}"):
            fit(train, val, quick(), until=until)


@pytest.mark.parametrize(
    "values",
    [
        *({"lr": 0.0}, {"lr": math.nan}, {"batch": 0}, {"epochs": -1}, {"decay_every": 0}),
        *({"dropout": 1.0}, {"dropout": -0.1}, {"smoothing": 1.5}, {"seed": -1}, {"decay": 0.0}),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        Hyper(**values)  # type: ignore[arg-type]


def test_a_training_that_diverges_says_so(train: Arrays, val: Arrays) -> None:
    huge = replace(train, audio=train.audio * np.float32(1e36))
    with pytest.raises(TrainingError, match="lower the learning rate") as caught:
        fit(huge, val, quick())
    assert isinstance(caught.value, AvfeatError) and caught.value.kind == "training"
    # After the only step of the only epoch.
    with pytest.raises(TrainingError):
        fit(train, val, quick(lr=1e38, epochs=1, batch=len(train)))


def test_trainings_side_by_side_count_no_second_twice(train: Arrays, val: Arrays) -> None:
    """Those of one process take turns: waiting for the other is not a training's time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        fits = list(pool.map(lambda seed: fit(train, val, quick(seed=seed)), (1, 2)))
    assert sum(one.seconds for one in fits) <= time.perf_counter() - began
    for seed, found in enumerate(fits, start=1):
        assert equal(dict(found.weights), dict(fit(train, val, quick(seed=seed)).weights))
