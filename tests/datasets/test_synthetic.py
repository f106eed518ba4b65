"""The synthetic family: what is drawn has the statistics and the truth that are declared."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from avfeat.datasets import synthetic
from avfeat.datasets.synthetic import AUDIO, BACKBONES, CLASSES, VISUAL, Family, like_llp
from avfeat.errors import UsageError
from avfeat.metrics.avvp import dense_labels, weak_labels

BY_NAME = {backbone.name: backbone for backbone in BACKBONES}


def segments(family: Family, name: str, clips: int, split: str = "test") -> np.ndarray:
    """Rows averaged per second: float64 [clips, 10, dim]."""
    backbone = BY_NAME[name]
    rows = [family.features(backbone, split, number)[0] for number in range(clips)]
    return np.stack(rows).reshape(clips, 10, backbone.rows, -1).mean(axis=2, dtype=np.float64)


def active(family: Family, name: str, clips: int, split: str = "test") -> np.ndarray:
    """What the backbone's modality has: bool [clips, 10, 25]."""
    modality = 0 if BY_NAME[name].modality == "audio" else 1
    return np.stack([family.scene(split, number).active[modality] for number in range(clips)])


def detection(family: Family, name: str) -> np.ndarray:
    """Area under the ROC curve of a linear detector of each class, fitted on other clips."""
    half = 250
    features = segments(family, name, 2 * half)
    labels = active(family, name, 2 * half)
    fitted = LinearRegression().fit(
        features[:half].reshape(half * 10, -1), labels[:half].reshape(half * 10, -1)
    )
    scores = fitted.predict(features[half:].reshape(half * 10, -1))
    truth = labels[half:].reshape(half * 10, -1)
    return np.array([roc_auc_score(truth[:, c], scores[:, c]) for c in range(len(CLASSES))])


def test_a_total_is_shared_out_as_llp_has_it() -> None:
    assert like_llp(11_849) == (10_000, 649, 1_200)
    assert like_llp(1_185) == (1_000, 65, 120)
    assert like_llp(3) == (1, 1, 1)
    for total in range(3, 400):
        shared = like_llp(total)
        assert sum(shared) == total
        assert min(shared) >= 1


@pytest.mark.parametrize("wrong", [{"clips": (1, 0, 1)}, {"seed": -1}, {"seed": 2**32}])
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Family(**wrong)  # type: ignore[arg-type]


def test_scenes_have_the_declared_statistics() -> None:
    family, clips = Family(), 4000
    scenes = [family.scene("train", number) for number in range(clips)]
    sizes = Counter(len(scene.labels) for scene in scenes)
    for size, wanted in enumerate(synthetic.CLASS_COUNTS, start=1):
        assert sizes[size] / clips == pytest.approx(wanted, abs=0.025)
    kinds: Counter[tuple[str, ...]] = Counter()
    whole = 0
    for scene in scenes:
        for label in scene.labels:
            events = [event for event in scene.events if event.label == label]
            kinds[tuple(event.modality for event in events)] += 1
            assert len({(event.onset, event.offset) for event in events}) == 1
            assert 0 <= events[0].onset < events[0].offset <= 10
            assert events[0].onset == int(events[0].onset)
            whole += (events[0].onset, events[0].offset) == (0, 10)
    assert set(kinds) == {("audio", "visual"), ("audio",), ("visual",)}
    for kind, wanted in zip(
        [("audio", "visual"), ("audio",), ("visual",)], synthetic.EVENT_KINDS, strict=True
    ):
        assert kinds[kind] / kinds.total() == pytest.approx(wanted, abs=0.02)
    # Of the others, those that start at 0 (1 in 9) and end at 10 (1 in 10) last the whole clip too.
    wanted = synthetic.WHOLE + (1 - synthetic.WHOLE) / 90
    assert whole / kinds.total() == pytest.approx(wanted, abs=0.02)
    classes = Counter(label for scene in scenes for label in scene.labels)
    mean = classes.total() / len(CLASSES)
    assert all(abs(classes[name] - mean) < 5 * mean**0.5 for name in CLASSES)
    background = np.mean([~scene.active.any(axis=(0, 2)) for scene in scenes])
    assert 0.15 < background < 0.4


def test_clips_carry_what_llp_carries() -> None:
    family = Family(seed=3, clips=(40, 30, 20))
    clips = family.manifest_clips
    assert Counter(clip.split for clip in clips) == {"train": 40, "val": 30, "test": 20}
    assert len({clip.id for clip in clips}) == 90
    assert all(clip.seconds == 10 for clip in clips)
    assert not any(clip.events for clip in clips if clip.split == "train")
    rated = [clip for clip in clips if clip.split != "train"]
    dense = dense_labels(rated, CLASSES)
    scenes = [family.scene(clip.split, int(clip.id.partition("_")[2])) for clip in rated]
    assert np.array_equal(dense, np.stack([s.active.transpose(1, 0, 2) for s in scenes]))
    assert np.array_equal(dense.any(axis=(1, 2)), weak_labels(rated, CLASSES) == 1)
    for clip in clips:
        assert list(clip.labels) == sorted(clip.labels, key=CLASSES.index)


@pytest.mark.parametrize("width", ["small", "real"])
def test_rows_are_those_of_the_networks_that_lend_their_names(width: synthetic.Width) -> None:
    from avfeat.extract.backbones import get

    family = Family(width=width)
    for backbone in BACKBONES:
        spec = get(backbone.name).spec
        features, times = family.features(backbone, "val", 5)
        assert (backbone.modality, backbone.real) == (spec.modality, spec.dim)
        assert features.shape == (spec.rows(10.0), spec.dim if width == "real" else 64)
        assert features.dtype == np.float32
        assert features.min() == 0
        assert np.isfinite(features).all()
        step = 0.125 if backbone.rows == 8 else 1.0
        assert np.allclose(np.diff(times), step)
        assert 0 <= times[0] < times[-1] < 10


def test_a_clip_depends_on_seed_split_and_number_alone() -> None:
    small, large = Family(seed=1, clips=(2, 2, 2)), Family(seed=1, clips=(50, 9, 9))
    backbone = BY_NAME["resnet152"]
    first, _ = small.features(backbone, "train", 1)
    assert np.array_equal(first, large.features(backbone, "train", 1)[0])
    others = [
        Family(seed=2).features(backbone, "train", 1)[0],
        small.features(backbone, "val", 1)[0],
        small.features(backbone, "train", 0)[0],
        small.features(BY_NAME["senet154"], "train", 1)[0],
    ]
    for one, other in itertools.combinations([first, *others], 2):
        assert not np.array_equal(one, other)
    streams = {
        family._rng(stream, split, number).integers(2**63)
        for family in (Family(seed=0), Family(seed=1))
        for stream, split, number in itertools.product(range(9), synthetic.SPLITS, range(20))
    }
    assert len(streams) == 2 * 9 * 3 * 20


def test_rows_do_not_depend_on_how_a_blas_adds() -> None:
    """Float products and sums are exact: those of whole numbers, without a BLAS, are the same."""
    family = Family(seed=4)
    for backbone in BACKBONES:
        (matrix,) = [m for one, m in family._maps.items() if one == backbone]
        assert np.array_equal(matrix, np.rint(matrix))
        latents = np.random.default_rng(0).normal(0, 6, (80, len(matrix)))
        whole = np.rint(latents * 64)
        exact = whole.astype(np.int64) @ matrix.astype(np.int64)
        assert np.array_equal(whole @ matrix, exact.astype(np.float64))
    rows, _ = family.features(BY_NAME["vggish"], "test", 0)
    # Rows lie on the grid: no rounding is left to chance.
    assert np.array_equal(np.asarray(rows, np.float64) * 4096 % 1, np.zeros(rows.shape))


def test_the_numbers_of_version_1_stay() -> None:
    """Whoever changes them raises VERSION."""
    assert synthetic.VERSION == 1
    digest = hashlib.sha256()
    family = Family(seed=0)
    for backbone, number in itertools.product(BACKBONES, range(20)):
        digest.update(family.features(backbone, "val", number)[0].tobytes())
    assert digest.hexdigest()[:16] == "11dee27a8636d932"


@pytest.mark.parametrize("name", ["vggish", "vgg19_bn", "senet154"])
def test_quality_is_how_well_a_class_can_be_detected(name: str) -> None:
    areas = detection(Family(seed=5), name)
    quality = np.resize(BY_NAME[name].quality, len(CLASSES))
    assert areas[quality >= 0.9].min() > 0.9
    assert areas[quality <= 0.05].max() < 0.68
    if (quality == 0.3).any():
        assert 0.7 < areas[quality == 0.3].mean() < 0.9


def test_width_is_not_quality() -> None:
    narrow = detection(Family(seed=5), "vggish").mean()
    wide = detection(Family(seed=5, width="real"), "vggish").mean()
    assert wide == pytest.approx(narrow, abs=0.02)


def test_the_best_singles_are_best_alone() -> None:
    family = Family(seed=6)
    areas = {one.name: detection(family, one.name).mean() for one in (*AUDIO, *VISUAL)}
    truth = family.truth()
    for modality, of in (("audio", AUDIO), ("visual", VISUAL)):
        ranked = sorted((one.name for one in of), key=lambda name: -areas[name])
        assert truth["best_singles"][modality] == ranked[0]
        assert areas[ranked[0]] > areas[ranked[1]] + 0.02


@pytest.mark.parametrize("name", ["vggish", "openl3", "vgg19_bn", "senet154"])
def test_context_is_shared_as_declared(name: str) -> None:
    """Clip means tell the clip's context as far as a backbone shares it: R2 is its share."""
    family, clips, fitted_on = Family(seed=7), 1200, 1000
    context = np.stack([family.scene("test", number).context for number in range(clips)])
    means = segments(family, name, clips).mean(axis=1)
    fitted = LinearRegression().fit(means[:fitted_on], context[:fitted_on])
    determined = fitted.score(means[fitted_on:], context[fitted_on:])
    assert determined == pytest.approx(BY_NAME[name].context, abs=0.12)


def test_the_truth_is_stated() -> None:
    truth = Family(seed=8, clips=(5, 6, 7)).truth()
    assert truth["best_pair"] == {"audio": "vggish", "visual": "vgg19_bn"}
    assert truth["best_singles"] == {"audio": "vggish", "visual": "polynet"}
    assert len(truth["pairs"]) == 10
    by_hand = {}
    for audio, visual in itertools.product(AUDIO, VISUAL):
        seen = [
            1 - (1 - audio.quality[c % 5]) * (1 - visual.quality[c % 5])
            for c in range(len(CLASSES))
        ]
        by_hand[audio.name, visual.name] = sum(seen) / len(seen)
    for pair in truth["pairs"]:
        assert pair["coverage"] == pytest.approx(by_hand[pair["audio"], pair["visual"]], abs=1e-6)
    best, second, *_ = sorted(by_hand.values(), reverse=True)
    assert best > second + 0.15
    assert by_hand["vggish", "polynet"] < best - 0.3
    # By the context they share, those look best aligned that are not.
    looks = max(truth["pairs"], key=lambda pair: pair["context_alignment"])
    assert (looks["audio"], looks["visual"]) == ("vggish", "polynet")
    assert truth["clips"] == {"train": 5, "val": 6, "test": 7}
    assert truth["seed"] == 8
