"""The papers' diagnostics against literal versions, on stores in memory and on written ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support import Cli

from avfeat import datasets
from avfeat.collocate import scoring
from avfeat.collocate.candidates import Candidate, Candidates, Modality
from avfeat.collocate.diagnostics import diagnose
from avfeat.collocate.score_table import Options
from avfeat.collocate.scores.neighbours import sample
from avfeat.datasets.synthetic import Family
from avfeat.datasets.synthetic_stores import write
from avfeat.errors import CollocationError
from avfeat.manifests.clips import Clip, Event
from avfeat.stores.reader import FeatureStore

SEGMENTS = 6
CLASSES = ("Speech", "Car", "Dog", "Cello", "Banjo")


@dataclass(eq=False)
class Memory:
    """What a collocation asks of a store."""

    clips: dict[str, Clip]
    rows: dict[str, np.ndarray]
    classes: tuple[str, ...]
    url: str = "memory"

    @property
    def dim(self) -> int:
        return next(iter(self.rows.values())).shape[1]

    def clip(self, clip_id: str) -> Clip:
        return self.clips[clip_id]

    def times(self, clip_id: str) -> np.ndarray:
        return np.arange(len(self.rows[clip_id])) + 0.5

    def __getitem__(self, clip_id: str) -> np.ndarray:
        return self.rows[clip_id]

    def together(
        self, clips: Sequence[str], *, reuse: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip_id in clips:
            yield self[clip_id][None], self.times(clip_id)[None]


def candidates(
    clips: Sequence[Clip],
    features: dict[tuple[Modality, str], np.ndarray],
    *,
    classes: tuple[str, ...] = CLASSES,
) -> Candidates:
    """Stores of features [n, T, d], by modality and name."""
    ids = tuple(clip.id for clip in clips)
    known = {clip.id: clip for clip in clips}
    found: dict[Modality, list[Candidate]] = {"audio": [], "visual": []}
    for (modality, name), values in features.items():
        store = Memory(known, dict(zip(ids, values.astype(np.float32), strict=True)), classes)
        found[modality].append(Candidate(name, modality, cast(FeatureStore, store)))
    return Candidates(
        dataset="memory",
        audio=tuple(found["audio"]),
        visual=tuple(found["visual"]),
        motion=None,
        missing=(),
        left_out={},
        clips=ids,
        apart=0,
    )


def made(*, events: bool = True, seed: int = 0) -> Candidates:
    """Clips whose features follow their labels, 40 to train on and 30 to look at."""
    rng = np.random.default_rng(seed)
    clips, present = [], np.zeros((70, SEGMENTS, 2, len(CLASSES)))
    for number in range(70):
        split = "train" if number < 40 else "val"
        labels, happened = [], []
        for place in rng.choice(len(CLASSES), size=rng.integers(1, 3), replace=False):
            labels.append(CLASSES[place])
            onset = int(rng.integers(0, SEGMENTS - 1))
            offset = int(rng.integers(onset + 1, SEGMENTS + 1))
            for modality in rng.choice(2, size=rng.integers(1, 3), replace=False):
                present[number, onset:offset, modality, place] = 1
                name = ("audio", "visual")[modality]
                happened.append(Event(name, CLASSES[place], onset, offset))
        shown = tuple(happened) if events and split == "val" else ()
        clips.append(Clip(f"clip{number}", 0, SEGMENTS, split, tuple(labels), shown))

    def features(modality: int, dim: int, noise: float) -> np.ndarray:
        maps = rng.standard_normal((len(CLASSES), dim))
        values = present[:, :, modality] @ maps
        return values + noise * rng.standard_normal(values.shape) + 0.5

    return candidates(
        clips,
        {
            ("audio", "good"): features(0, 9, 0.3),
            ("audio", "poor"): features(0, 7, 3.0),
            ("visual", "sharp"): features(1, 12, 0.3),
            ("visual", "blurred"): features(1, 12, 3.0),
            ("visual", "narrow"): features(1, 6, 0.5),
        },
    )


OPTIONS = Options(sampled=24 * SEGMENTS, seed=3, k=2, workers=1)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return diagnose(made(), OPTIONS)


def drawn(of: Candidates) -> tuple[list[Clip], dict[str, np.ndarray]]:
    """The sample, by hand: clips, and features [n, T, d] by backbone."""
    val = of.split("val")
    ids = [val[place] for place in sample(len(val), 24, seed=3)]
    rows = {one.name: np.stack([one.store[clip_id] for clip_id in ids]) for one in of.all}
    return [of.all[0].store.clip(clip_id) for clip_id in ids], rows


def sets(clips: list[Clip], modality: str) -> list[set[str]]:
    return [
        {e.label for e in clip.events if e.modality == modality and e.onset <= second < e.offset}
        for clip in clips
        for second in range(SEGMENTS)
    ]


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    one, two = (each.reshape(-1, each.shape[-1]).astype(float) for each in (one, two))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    two /= np.linalg.norm(two, axis=1, keepdims=True)
    return one @ two.T


@pytest.mark.parametrize(
    ("name", "modality"), [("good", "audio"), ("poor", "audio"), ("sharp", "visual")]
)
def test_unimodal_recall_is_that_of_loops(found: dict[str, Any], name: str, modality: str) -> None:
    clips, rows = drawn(made())
    labels = sets(clips, modality)
    alike = cosines(rows[name], rows[name])
    readings = {"share, labelled, segment": [], "equal, all, clip": []}
    chances: dict[str, list[float]] = {reading: [] for reading in readings}
    for i, own in enumerate(labels):
        others = [j for j, other in enumerate(labels) if j != i and other]
        if own:
            best = max(others, key=lambda j: alike[i, j])
            readings["share, labelled, segment"].append(bool(own & labels[best]))
            hits = [bool(own & labels[j]) for j in others]
            chances["share, labelled, segment"].append(float(np.mean(hits)))
        others = [j for j in range(len(labels)) if j // SEGMENTS != i // SEGMENTS]
        best = max(others, key=lambda j: alike[i, j])
        readings["equal, all, clip"].append(own == labels[best])
        chances["equal, all, clip"].append(float(np.mean([own == labels[j] for j in others])))
    one = found["recall"]["unimodal"][name]
    assert len(one["readings"]) == 12
    for reading, hits in readings.items():
        expected = {"value": np.mean(hits), "chance": np.mean(chances[reading])}
        assert one["readings"][reading] == pytest.approx(expected, abs=1e-12)
    assert {key: one[key] for key in ("value", "chance")} == one["readings"][
        "share, labelled, segment"
    ]


def test_features_that_follow_labels_are_found_and_noise_is_not(found: dict[str, Any]) -> None:
    alone = found["recall"]["unimodal"]
    assert alone["good"]["value"] > 0.9 and alone["sharp"]["value"] > 0.9
    assert alone["poor"]["value"] < alone["good"]["value"] - 0.2
    across = found["recall"]["multimodal"]
    best = across["good + sharp"]["recall"]
    assert best["value"] > best["chance"] + 0.2
    assert across["poor + blurred"]["recall"]["value"] < best["value"] - 0.2


def test_pairs_come_in_the_candidates_order(found: dict[str, Any]) -> None:
    pairs = [f"{a} + {v}" for a in ("good", "poor") for v in ("sharp", "blurred", "narrow")]
    assert list(found["recall"]["multimodal"]) == pairs
    assert list(found["lags"]["similarity"]["pairs"]) == pairs
    assert set(found["recall"]["unimodal"]) == {"good", "poor", "sharp", "blurred", "narrow"}


def test_multimodal_recall_is_that_behind_the_score(found: dict[str, Any]) -> None:
    # The score is above chance as a share of what could be, other clips only.
    for row in scoring.score(made(), OPTIONS).pairs:
        level = found["recall"]["multimodal"][" + ".join(row.names)]["readings"][
            "share, labelled, clip"
        ]["recall"]
        above = (level["value"] - level["chance"]) / (1 - level["chance"])
        assert above == pytest.approx(row.scores["recall"].value, abs=1e-12)


def test_distinguish_has_the_chance_of_two_labelled_segments(found: dict[str, Any]) -> None:
    clips, _ = drawn(made())
    heard, seen = (np.array([bool(one) for one in sets(clips, m)]) for m in ("audio", "visual"))
    count = len(heard)
    # Any other segment of the sample is as likely to be found.
    expected = sum((seen.sum() - seen[i]) / (count - 1) for i in range(count) if heard[i]) / count
    for pair in found["recall"]["multimodal"].values():
        assert pair["distinguish"]["chance"] == pytest.approx(expected, abs=1e-12)


def test_similarity_by_lag_is_that_of_loops(found: dict[str, Any]) -> None:
    _, rows = drawn(made())
    for name in ("good", "narrow"):
        alike = cosines(rows[name], rows[name])
        by_lag: dict[int, list[float]] = {lag: [] for lag in range(SEGMENTS)}
        elsewhere = []
        for i, row in enumerate(alike):
            for j, value in enumerate(row):
                if i // SEGMENTS != j // SEGMENTS:
                    elsewhere.append(value)
                else:
                    by_lag[abs(i - j)].append(value)
        curve = found["lags"]["similarity"]["backbones"][name]
        assert curve["cosine"] == pytest.approx([np.mean(by_lag[k]) for k in by_lag], abs=1e-6)
        assert curve["elsewhere"] == pytest.approx(np.mean(elsewhere), abs=1e-6)


def test_synchronous_segments_are_most_alike_in_the_common_space(found: dict[str, Any]) -> None:
    curve = found["lags"]["similarity"]["pairs"]["good + sharp"]
    assert curve["cosine"][0] == max(curve["cosine"])
    assert curve["cosine"][0] > curve["elsewhere"] + 0.05


def test_discriminator_takes_each_two_of_a_modality(found: dict[str, Any]) -> None:
    assert found["discriminator"]["chance"] == 0.5
    assert list(found["discriminator"]["audio"]) == ["good - poor"]
    visual = found["discriminator"]["visual"]
    assert list(visual) == ["sharp - blurred", "sharp - narrow", "blurred - narrow"]
    assert visual["sharp - narrow"]["widths"] == [12, 6]
    assert set(visual["sharp - narrow"]["accuracy"]) == {"shape", "offset", "padded"}


def test_trends_narrow_the_source_and_nothing_else(found: dict[str, Any]) -> None:
    trend = found["classes"]
    of = made()
    source = [of.all[0].store.clip(clip_id) for clip_id in of.split("train")]
    for subset, keep in zip(trend["subsets"], (5, 4, 3, 2), strict=True):
        kept = [clip.id for clip in source if set(clip.labels) <= set(CLASSES[:keep])]
        assert (subset["classes"], subset["clips"]) == (keep, len(kept))
        ids = tuple(clip_id for clip_id in of.clips if clip_id in {*kept, *of.split("val")})
        table = scoring.score(replace(of, clips=ids), OPTIONS)
        for row, expected in zip(subset["pairs"], table.pairs, strict=True):
            assert row["names"] == list(expected.names)
            assert row["scores"]["logme"]["value"] == expected.scores["logme"].value
            assert row["scores"]["svd"]["value"] == expected.scores["svd"].value
        # A score that some pair lacks ranks the others.
        for name in ("svd", "subspace"):
            values = {one.names: one.scores[name].value for one in table.pairs}
            known = [(-value, list(names)) for names, value in values.items() if value is not None]
            assert subset["ranking"][name] == [names for _, names in sorted(known)]
    assert trend["subsets"][0]["tau"]["svd"]["value"] == pytest.approx(1)
    assert trend["reads"]["subspace"] == "source and target"
    first, last = (trend["subsets"][place]["pairs"][0]["scores"]["svd"] for place in (0, -1))
    assert first != last


def test_it_is_json_deterministic_and_seeded(found: dict[str, Any]) -> None:
    again = diagnose(made(), OPTIONS)
    assert json.dumps(again, allow_nan=False) == json.dumps(found, allow_nan=False)
    other = diagnose(made(), replace(OPTIONS, seed=4))
    assert other["recall"] != found["recall"]
    assert other["lags"]["labels"] == found["lags"]["labels"]  # of the whole split


def test_without_labels_by_the_second_features_are_still_compared() -> None:
    found = diagnose(made(events=False), OPTIONS)
    reason = {"reason": "not all target clips have labels by the second"}
    assert found["recall"] == reason
    assert found["lags"]["labels"] == reason
    assert len(found["lags"]["similarity"]["pairs"]["good + sharp"]["cosine"]) == SEGMENTS
    assert "accuracy" in found["discriminator"]["audio"]["good - poor"]
    json.dumps(found, allow_nan=False)


def without_labels(of: Candidates) -> Candidates:
    store = cast(Memory, of.all[0].store)
    for clip_id, clip in store.clips.items():
        store.clips[clip_id] = replace(clip, labels=(), events=())
    return of


def test_what_does_not_apply_says_why() -> None:
    of = made()
    lone = replace(of, audio=of.audio[:1], visual=of.visual[:1])
    found = diagnose(lone, replace(OPTIONS, sampled=9 * SEGMENTS))
    assert found["discriminator"]["audio"] == {"reason": "there is one backbone only"}
    few = diagnose(replace(of, audio=of.audio[:2]), replace(OPTIONS, sampled=9 * SEGMENTS))
    assert "9 clips are too few" in few["discriminator"]["audio"]["good - poor"]["reason"]
    for source in ("val", "all"):
        same = diagnose(lone, replace(OPTIONS, source=source))
        assert same["classes"] == {"reason": "source and target share 30 clips"}
        across = same["recall"]["multimodal"]["good + sharp"]
        assert "fitted on 24 clips that it is asked about" in across["reason"]
        assert "fitted on 24" in same["lags"]["similarity"]["pairs"]["good + sharp"]["reason"]
    other = diagnose(lone, replace(OPTIONS, names=("cka",)))
    assert "no score is asked for" in other["classes"]["reason"]
    none = diagnose(without_labels(lone), OPTIONS)
    assert none["classes"] == {"reason": "clips of the train split have no labels"}
    with pytest.raises(CollocationError, match="'test'"):
        diagnose(made(), replace(OPTIONS, target="test"))


def test_a_constant_backbone_has_no_common_space() -> None:
    of = made()
    for rows in cast(Memory, of.visual[0].store).rows.values():
        rows[:] = 1
    found = diagnose(replace(of, visual=of.visual[:2]), OPTIONS)
    assert "features that vary" in found["recall"]["multimodal"]["good + sharp"]["reason"]
    assert "value" in found["recall"]["multimodal"]["good + blurred"]["recall"]
    assert "do not vary" in found["discriminator"]["visual"]["sharp - blurred"]["reason"]
    # All are equally near, so what is found is chance.
    alone = found["recall"]["unimodal"]["sharp"]
    assert alone["value"] == pytest.approx(alone["chance"], abs=1e-12)
    json.dumps(found, allow_nan=False)


def test_a_subset_without_clips_is_told() -> None:
    of = made()
    store = cast(Memory, of.all[0].store)
    for clip_id, clip in store.clips.items():
        if clip.split == "train":
            store.clips[clip_id] = replace(clip, labels=("Cello", "Banjo"))
    subsets = diagnose(of, OPTIONS)["classes"]["subsets"]
    assert [one["clips"] for one in subsets] == [40, 0, 0, 0]
    assert subsets[3] == {"classes": 2, "clips": 0, "reason": "no clip has these classes only"}


#: Of LLP's test labels, counted with nothing of this package: lags 0...9.
LLP = {
    ("audio-visual", "equal"): ".539 .510 .492 .481 .471 .462 .454 .444 .440 .425",
    ("audio-audio", "equal"): "1 .800 .709 .666 .633 .604 .584 .552 .534 .522",
    ("visual-visual", "equal"): "1 .920 .871 .841 .816 .792 .772 .754 .746 .742",
    ("audio-visual", "per_class"): ".976 .974 .973 .972 .971 .971 .970 .969 .969 .969",
    ("audio-visual", "conditional"): ".765 .744 .730 .720 .711 .705 .699 .693 .682 .673",
}


def test_labels_by_lag_are_those_of_llp(
    llp_official: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    media = tmp_path_factory.mktemp("media")
    manifest = datasets.get("llp").load(annotations=llp_official, data=media)
    clips = [clip for clip in manifest.clips if clip.split in ("val", "test")]
    rng = np.random.default_rng(0)
    of = candidates(
        clips,
        {
            (modality, name): rng.standard_normal((len(clips), 10, 8))
            for modality, name in (("audio", "noise"), ("visual", "more noise"))
        },
        classes=manifest.classes,
    )
    options = Options(source="val", target="test", sampled=800, workers=1)
    found = diagnose(of, options)
    labels = found["lags"]["labels"]
    for (pair, form), printed in LLP.items():
        expected = [float(text) for text in printed.split()]
        # Printed with three digits, and conditionals counted in one direction.
        slack = 0.012 if form == "conditional" else 0.0051
        assert labels[pair][form] == pytest.approx(expected, abs=slack), (pair, form)
    # Noise reaches chance: 800 queries, of which neighbours in time are not independent.
    for level in (
        found["recall"]["unimodal"]["noise"],
        found["recall"]["multimodal"]["noise + more noise"]["recall"],
        found["recall"]["multimodal"]["noise + more noise"]["distinguish"],
    ):
        assert level["value"] == pytest.approx(level["chance"], abs=0.06)
    # Printed for random pairs: 6.2 % share a label where both may be empty.
    chance = found["recall"]["multimodal"]["noise + more noise"]["readings"]["share, all, clip"]
    assert chance["recall"]["chance"] == pytest.approx(0.062, abs=0.02)


def test_the_command_tells_them(tmp_path: Path) -> None:
    cli = Cli()
    write(Family(seed=1, clips=(20, 12, 1)), str(tmp_path))
    command = (
        *(
            "collocate",
            "--out",
            tmp_path,
            "--audio",
            "vggish,openl3",
            "--visual",
            "polynet,vgg19_bn",
        ),
        *("--motion", "none", "--allow-random"),
    )
    document = json.loads(cli(*command, "--diagnostics", "--json", "-q").stdout)
    told = document["diagnostics"]
    assert told["sampled"] == {"split": "val", "clips": 12, "segments": 120}
    assert set(told) == {"sampled", "recall", "discriminator", "lags", "classes"}
    shown = cli(*command, "--diagnostics").stdout
    level = told["recall"]["unimodal"]["vggish"]
    assert f"{level['value']:.4f} ({level['chance']:.4f})" in shown
    curve = told["lags"]["similarity"]["backbones"]["polynet"]["cosine"]
    for lag in (1, 2, 5, 9):
        assert f"{curve[lag]:.3f}" in shown
    best = told["classes"]["subsets"][2]["ranking"]["svd"][0]
    assert " + ".join(best) in shown
    assert "diagnostics" not in json.loads(cli(*command, "--json", "-q").stdout)
