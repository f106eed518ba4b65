"""The hybrid attention network against its formulas, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from avfeat.collocate.han import HAN, HybridAttention, Sizes
from avfeat.collocate.mmil import AttentiveMMIL, Probabilities, mmil_loss

Array = NDArray[np.float64]


def seeded(sizes: Sizes, *, spread: float = 1.0) -> HAN:
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(5)
        network = HAN(sizes).eval()
        # torch starts with biases of 0 and norms of 1 in places, which would hide a missing one.
        for parameter in network.parameters():
            parameter.data.add_(0.05 * spread * torch.randn(parameter.shape))
    return network


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


class Oracle:
    """Section by section, clip by clip and segment by segment, in double precision."""

    def __init__(self, network: HAN) -> None:
        self.weights = {
            name: value.detach().double().numpy() for name, value in network.state_dict().items()
        }

    def linear(self, name: str, x: Array) -> Array:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Array) -> Array:
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, name: str, query: Array, rows: Array) -> Array:
        """One head: what the segment `query` takes from `rows`."""
        w = np.split(self.weights[f"{name}.in_proj_weight"], 3)
        b = np.split(self.weights[f"{name}.in_proj_bias"], 3)
        q = w[0] @ query + b[0]
        keys = [w[1] @ row + b[1] for row in rows]
        values = [w[2] @ row + b[2] for row in rows]
        likeness = np.array([q @ key / np.sqrt(512) for key in keys])
        share = softmax(likeness)
        mixed = sum(a * value for a, value in zip(share, values, strict=True))
        return self.linear(f"{name}.out_proj", mixed)

    def hybrid(self, rows: Array, others: Array) -> Array:
        result = []
        for row in rows:
            x = row + self.attend("attention.cross", row, others)
            x = self.norm("attention.norm", x + self.attend("attention.own", row, rows))
            hidden = np.maximum(self.linear("attention.feed_forward.0", x), 0)
            hidden = self.linear("attention.feed_forward.3", hidden)
            result.append(self.norm("attention.norm_out", x + hidden))
        return np.array(result)

    def clip(self, audio: Array, visual: Array, motion: Array | None) -> tuple[Array, ...]:
        heard = np.array([self.linear("audio", row) for row in audio])
        projected = np.array([self.linear("visual", row) for row in visual])
        per_second = len(visual) // len(audio)
        seen = np.array(
            [projected[t * per_second : (t + 1) * per_second].mean(0) for t in range(len(audio))]
        )
        if motion is not None:
            moved = np.array([self.linear("motion", row) for row in motion])
            seen = np.array(
                [self.linear("fusion", np.r_[s, m]) for s, m in zip(seen, moved, strict=True)]
            )
        return self.pool(np.stack([self.hybrid(heard, seen), self.hybrid(seen, heard)], axis=1))

    def pool(self, x: Array) -> tuple[Array, ...]:
        segments, modalities, _ = x.shape

        def logits(name: str) -> Array:
            return np.array(
                [
                    [self.linear(f"pooling.{name}", x[t, m]) for m in range(2)]
                    for t in range(segments)
                ]
            )

        p = 1 / (1 + np.exp(-logits("classifier")))
        time, modality = logits("time_attention"), logits("modality_attention")
        video = np.zeros(p.shape[-1])
        parts = np.zeros((2, p.shape[-1]))
        for c in range(p.shape[-1]):
            for t in range(segments):
                for m in range(modalities):
                    by_time = softmax(time[:, m, c])[t]
                    video[c] += by_time * softmax(modality[t, :, c])[m] * p[t, m, c]
                    parts[m, c] += by_time * p[t, m, c]
        return p, video, parts


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_as_many_parameters_as_get_a_gradient_in_the_original() -> None:
    network = HAN(Sizes())
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_569_675
    output = network(features(2, 10, 128), features(2, 80, 2048), features(2, 10, 512))
    mmil_loss(output, torch.eye(2, 25), smoothing=0.1).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert [part.shape for part in output] == [(2, 10, 2, 25), (2, 25), (2, 2, 25)]


@pytest.mark.parametrize(
    ("sizes", "segments", "per_second"),
    [
        (Sizes(), 10, 8),
        (Sizes(motion=None), 10, 8),
        (Sizes(audio=7, visual=11, motion=5, classes=3), 4, 1),
        (Sizes(audio=7, visual=11, motion=None, classes=1), 3, 5),
        (Sizes(audio=7, visual=11, motion=None, classes=2), 1, 2),
    ],
)
def test_equals_the_formulas(sizes: Sizes, segments: int, per_second: int) -> None:
    network, clips = seeded(sizes), 3
    audio = features(clips, segments, sizes.audio, seed=1)
    visual = features(clips, segments * per_second, sizes.visual, seed=2)
    motion = None if sizes.motion is None else features(clips, segments, sizes.motion, seed=3)
    with torch.no_grad():
        output = network(audio, visual, motion)
    oracle = Oracle(network)
    for clip in range(clips):
        moved = None if motion is None else motion[clip].double().numpy()
        wanted = oracle.clip(audio[clip].double().numpy(), visual[clip].double().numpy(), moved)
        for found, expected in zip(output, wanted, strict=True):
            np.testing.assert_allclose(found[clip].numpy(), expected, rtol=0, atol=1e-5)
    # The comparison would be idle if everything were near one value.
    assert output.segment.std() > 0.05 or sizes.classes < 3


def test_pooling_of_strong_attention_equals_the_formulas() -> None:
    network = seeded(Sizes(audio=4, visual=4, motion=None, classes=6))
    x = 20 * features(2, 5, 2, 512)
    with torch.no_grad():
        output = network.pooling(x)
    for clip in range(2):
        wanted = Oracle(network).pool(x[clip].double().numpy())
        for found, expected in zip(output, wanted, strict=True):
            np.testing.assert_allclose(found[clip].numpy(), expected, rtol=0, atol=1e-5)


def far_apart() -> tuple[AttentiveMMIL, Tensor]:
    """Audio attends to segment 0, visual to segment 1; each rules the other there."""
    pooling = AttentiveMMIL(3, 1)
    for parameter in pooling.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        pooling.classifier.bias += 30
        pooling.time_attention.weight[0, 0] = 40
        pooling.modality_attention.weight[0, 1] = 40
    x = torch.zeros(1, 2, 2, 3)
    x[0, 0, 0], x[0, 1, 1] = torch.tensor([1.0, 1.0, 0]), torch.tensor([1.0, 1.0, 0])
    return pooling, x


def test_the_doubly_weighted_sum_reaches_two_and_the_loss_clamps_it() -> None:
    pooling, x = far_apart()
    output = pooling(x)
    assert output.video.item() == pytest.approx(2.0, abs=1e-6)
    assert output.modality.flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-6)

    weak = torch.ones(1, 1)
    loss = mmil_loss(output, weak, smoothing=0.1)
    most = float(np.float32(1 - 1e-7))
    smooth = -(0.95 * np.log(most) + 0.05 * np.log(1 - most))
    assert loss.item() == pytest.approx(-2 * np.log(most) + smooth, rel=1e-5)
    # Above 1 the clamp leaves no gradient, whatever the label.
    (gradient,) = torch.autograd.grad(loss, output.video)
    assert gradient.item() == 0


def test_loss_of_a_certain_mistake_is_bounded_by_the_clamp() -> None:
    output = Probabilities(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1), torch.zeros(1, 2, 1))
    loss = mmil_loss(output, torch.ones(1, 1), smoothing=0.1)
    assert loss.item() == pytest.approx((1 + 1 + 0.95) * -np.log(1e-7), rel=1e-5)


def test_loss_is_three_cross_entropies_with_the_visual_side_smoothed() -> None:
    rng = np.random.default_rng(3)
    video, modality = rng.uniform(0.01, 0.99, (4, 5)), rng.uniform(0.01, 0.99, (4, 2, 5))
    weak = rng.integers(0, 2, (4, 5)).astype(float)

    def entropy(p: Array, y: Array) -> float:
        return float(np.mean([-(b * np.log(a) + (1 - b) * np.log(1 - a)) for a, b in
                              zip(p.ravel(), y.ravel(), strict=True)]))  # fmt: skip

    wanted = (
        entropy(video, weak)
        + entropy(modality[:, 0], weak)
        + entropy(modality[:, 1], 0.9 * weak + 0.05)
    )
    output = Probabilities(torch.zeros(4, 1, 2, 5), torch.tensor(video), torch.tensor(modality))
    assert mmil_loss(output, torch.tensor(weak), smoothing=0.1).item() == pytest.approx(wanted)


def test_averaged_rows_give_what_the_rows_give_and_their_gradient() -> None:
    network = seeded(Sizes(audio=6, visual=9, motion=None, classes=4))
    audio, rows = features(3, 10, 6), features(3, 80, 9)
    weak = torch.eye(3, 4)
    gradients = []
    for visual in (rows, rows.reshape(3, 10, 8, 9).mean(2)):
        network.zero_grad()
        mmil_loss(network(audio, visual), weak, smoothing=0.1).backward()
        assert network.visual.weight.grad is not None
        gradients.append(network.visual.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_modalities_share_the_attention_layer_but_are_not_interchangeable() -> None:
    network = seeded(Sizes(audio=6, visual=6, motion=None, classes=4))
    audio, visual = features(2, 5, 6), features(2, 5, 6, seed=1)
    with torch.no_grad():
        before = network(audio, visual)
        network.visual, network.audio = network.audio, network.visual
        swapped = network(visual, audio)
    torch.testing.assert_close(before.segment, swapped.segment.flip(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(before.video, swapped.video, rtol=0, atol=1e-6)
    assert (before.segment[:, :, 0] - before.segment[:, :, 1]).abs().max() > 0.01


def test_dropout_is_at_the_attention_weights_and_three_more_places_and_off_in_evaluation() -> None:
    layer = HybridAttention(0.3)
    assert layer.own.dropout == layer.cross.dropout == 0.3
    assert [m.p for m in layer.modules() if isinstance(m, torch.nn.Dropout)] == [0.3] * 4
    query, other = features(2, 5, 512), features(2, 5, 512, seed=1)
    with torch.random.fork_rng([]):
        assert not torch.equal(layer(query, other), layer(query, other))
    layer.eval()
    assert torch.equal(layer(query, other), layer(query, other))
