"""Scores from stores against numpy on the same rows at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collocationkit import CLASSES, SEGMENTS, drawn_rows, make_clips, make_family

from avfeat.collocate import streams
from avfeat.collocate.candidates import Candidates, gather
from avfeat.collocate.score_table import SCORES, Options, Table
from avfeat.collocate.scoring import score
from avfeat.errors import CollocationError, FeaturesError, UnknownNameError, UsageError
from avfeat.manifests.clips import Clip, Event
from avfeat.stores.reader import open_store

CLIPS = make_clips({"train": 40, "val": 30})
K = 3


def find(out: str) -> Candidates:
    return gather(out, dataset=None, audio=["all"], visual=["all"])


def options(**values: object) -> Options:
    return Options(**{"k": K, "workers": 1, "sampled": 80} | values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_family(tmp_path_factory.mktemp("features"), CLIPS)


@pytest.fixture(scope="module")
def table(root: str) -> Table:
    return score(find(root), options(resamples=60))


def matrix(root: str, name: str, split: str) -> np.ndarray:
    """Features of a split by the second, float64 [clips, seconds, d]."""
    store = open_store(f"{root}/llp/{name}")
    ids = [clip.id for clip in CLIPS if clip.split == split]
    rows = np.array([store[i].reshape(SEGMENTS, -1, store.dim) for i in ids], float)
    return rows.mean(axis=2).astype(np.float32).astype(float)


def joint_matrices(root: str, audio: str, visual: str, centred: bool) -> list[np.ndarray]:
    """[clips, seconds, d_a + d_v] of source and target, at the source's scale."""
    found: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for name in (audio, visual):
        train = matrix(root, name, "train")
        about = train.mean(axis=(0, 1)) if centred else 0
        scale = np.sqrt(train.shape[0] * train.shape[1]) / np.linalg.norm(train - about)
        for split in found:
            found[split].append(scale * matrix(root, name, split))
    return [np.concatenate(found[split], axis=-1) for split in ("train", "val")]


def left_vectors(rows: np.ndarray, centred: bool) -> np.ndarray:
    flat = rows.reshape(-1, rows.shape[-1])
    return np.linalg.svd((flat - flat.mean(axis=0) if centred else flat).T)[0][:, :K]


def of(table: Table, *names: str):  # type: ignore[no-untyped-def]
    rows = table.pairs if len(names) == 2 else table.singles
    (row,) = (row for row in rows if row.names == names)
    return row


@pytest.mark.parametrize("visual", ["resnet152", "polynet"])
@pytest.mark.parametrize("audio", ["vggish", "openl3"])
def test_angles_of_a_pair_are_those_of_the_joint_matrix(
    root: str, table: Table, audio: str, visual: str
) -> None:
    row = of(table, audio, visual)
    for centred, angles in ((False, row.angles), (True, row.centred)):
        one, two = (left_vectors(m, centred) for m in joint_matrices(root, audio, visual, centred))
        np.testing.assert_allclose(angles.cosines, np.abs((one * two).sum(axis=0)), atol=1e-5)
        shared = np.linalg.svd(one.T @ two, compute_uv=False)
        np.testing.assert_allclose(angles.principal, shared, atol=1e-6)
    assert row.scores["svd"].value == pytest.approx(row.angles.cosines[0], abs=1e-12)
    chance = K / len(one)
    overlap = row.scores["subspace"]
    gaps = []
    for m, clips in zip(joint_matrices(root, audio, visual, True), (40, 30), strict=True):
        flat = m.reshape(-1, m.shape[-1])
        values = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2
        gaps.append((1 - values[K] / values[K - 1]) / np.sqrt(2 / clips))
    if min(gaps) < 1:
        assert "not determined" in overlap.reason
    else:
        expected = ((shared**2).mean() - chance) / (1 - chance)
        assert overlap.value == pytest.approx(expected, abs=1e-6)
    target = joint_matrices(root, audio, visual, True)[1].reshape(-1, len(one))
    singular = np.linalg.svd(target - target.mean(axis=0), compute_uv=False)
    expected = 1 - singular[0] ** 2 / (singular**2).sum()
    assert row.scores["bsp"].value == pytest.approx(expected, abs=1e-6)


def test_centred_means_are_of_the_same_angles_in_all_pairs(root: str, table: Table) -> None:
    having = [row.centred for row in table.pairs if row.centred.determined.any()]
    common = np.logical_and.reduce([one.determined for one in having])
    assert common.any()
    assert any((one.determined != common).any() for one in having)
    for row in table.pairs:
        expected = row.centred.cosines[common].mean()
        found = row.scores["svd-centred"]
        if row.centred.determined.any():
            assert found.value == pytest.approx(expected, abs=1e-12)
        else:
            assert found.reason.startswith("none of 3 singular vectors is determined")
    for row in table.singles:
        assert row.scores["svd-centred"] == row.centred.mean()


def test_angles_of_a_backbone_alone(root: str, table: Table) -> None:
    for name in ("vggish", "polynet"):
        one, two = (left_vectors(matrix(root, name, split), False) for split in ("train", "val"))
        found = of(table, name).angles.cosines
        np.testing.assert_allclose(found, np.abs((one * two).sum(axis=0)), atol=1e-5)
    assert [row.names for row in table.singles] == [
        ("openl3",),
        ("vggish",),
        ("polynet",),
        ("resnet152",),
    ]
    assert "compares two modalities" in of(table, "vggish").scores["cka"].reason


@pytest.mark.parametrize("centred", [False, True])
def test_intervals_are_those_of_rows_drawn_again(root: str, table: Table, centred: bool) -> None:
    """Groups of clips gathered, and a full SVD of every resample."""
    row = of(table, "vggish", "polynet")
    found = (row.centred if centred else row.angles).interval
    matrices = joint_matrices(root, "vggish", "polynet", centred)
    rng = np.random.default_rng(0)
    draws = [rng.multinomial(20, [1 / 20] * 20, size=60) for _ in matrices]
    cosines = []
    for weights in zip(*draws, strict=True):
        one, two = (
            left_vectors(
                np.concatenate([m[group::20] for group in np.repeat(np.arange(20), weight)]),
                centred,
            )
            for m, weight in zip(matrices, weights, strict=True)
        )
        cosines.append(np.abs((one * two).sum(axis=0)))
    own = (row.centred if centred else row.angles).cosines
    expected = np.clip(2 * own - np.percentile(cosines, [97.5, 2.5], axis=0), 0, 1).T
    # Projections are float32; where a resample closes a gap, its vectors turn with less than that.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)


def test_cka_by_its_definition(root: str, table: Table) -> None:
    a, v = (matrix(root, name, "val") for name in ("openl3", "resnet152"))
    a, v = (x.reshape(-1, x.shape[-1]) for x in (a, v))
    a, v = a - a.mean(axis=0), v - v.mean(axis=0)
    kernels = a @ a.T, v @ v.T
    expected = (kernels[0] * kernels[1]).sum() / np.prod([np.linalg.norm(k) for k in kernels])
    found = of(table, "openl3", "resnet152").scores["cka"].value
    assert found == pytest.approx(expected, abs=1e-6)


def test_label_scores_of_a_pair_are_those_of_its_joint_rows(root: str, table: Table) -> None:
    """LogME's evidence maximised by a grid, on the joint matrix itself."""
    rows = joint_matrices(root, "vggish", "resnet152", True)[1]
    flat = rows.reshape(-1, rows.shape[-1])
    clips = [clip for clip in CLIPS if clip.split == "val"]
    labels = np.zeros((len(clips), SEGMENTS, 3))
    for clip, grid in zip(clips, labels, strict=True):
        for event in clip.events:
            grid[int(event.onset) : int(event.offset), CLASSES.index(event.label)] = 1
    n, d = flat.shape
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    evidences = []
    for y in labels.reshape(-1, 3).T:
        z, rest = (u.T @ y) ** 2, y @ y - ((u.T @ y) ** 2).sum()
        log_a, log_b = np.meshgrid(np.linspace(-6, 8, 561), np.linspace(-3, 6, 361))
        alpha, beta = np.exp(log_a)[..., None], np.exp(log_b)[..., None]
        kept = beta * s**2 / (alpha + beta * s**2)
        total = (
            n * log_b
            + d * log_a
            - n * np.log(2 * np.pi)
            - (np.log(alpha + beta * s**2)).sum(axis=-1)
            - (d - len(s)) * log_a
            - np.exp(log_b) * (rest + (z * (1 - kept)).sum(axis=-1))
        )
        evidences.append(total.max() / (2 * n))
    found = of(table, "vggish", "resnet152").scores
    assert found["logme"].value == pytest.approx(np.mean(evidences), abs=1e-3)
    assert 0 < found["h-score"].value < 1


def test_only_what_is_asked_for_is_given(root: str, table: Table) -> None:
    found = score(find(root), options(names=("cka", "svd")))
    row = of(found, "vggish", "polynet")
    assert list(row.scores) == ["cka", "svd"]
    assert row.centred is None
    assert row.angles.interval is None
    full = of(table, "vggish", "polynet")
    assert row.scores["cka"] == full.scores["cka"]
    assert row.scores["svd"] == full.scores["svd"]
    assert set(full.scores) == set(SCORES)
    assert found.clips == {"train": 40, "val": 30}
    assert found.segments == SEGMENTS


def test_scores_depend_on_neither_workers_nor_parts(
    root: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CLIPS", 7)
    monkeypatch.setattr(streams, "_BLOCK", 3 * SEGMENTS * 8)
    parts = [score(find(root), options(resamples=60, workers=n)) for n in (1, 2)]
    for one, two, whole in zip(*(t.pairs for t in (*parts, table)), strict=True):
        assert one.names == two.names == whole.names
        assert one.scores == two.scores
        np.testing.assert_array_equal(one.angles.interval, two.angles.interval)
        for name, value in whole.scores.items():
            assert one.scores[name].reason == value.reason
            if value.value is not None:
                assert one.scores[name].value == pytest.approx(value.value, abs=1e-6)
        np.testing.assert_allclose(one.angles.interval[0], whole.angles.interval[0], atol=1e-5)


def test_too_few_clips_are_said_not_scored(tmp_path: Path) -> None:
    clips = make_clips({"train": 9, "val": 3})
    out = make_family(tmp_path, clips, names=("vggish", "resnet152"))
    row = score(find(out), options(resamples=20)).pairs[0]
    assert row.scores["svd"].reason == "target: 3 clips cannot determine 3 singular vectors"
    assert row.scores["bsp"].value is None
    assert row.scores["cka"].value is not None
    row = score(find(out), options(k=1, resamples=20)).pairs[0]
    assert row.angles.interval is None  # three clips are no bootstrap
    assert "target: the span of 1 singular vector is not" in row.scores["subspace"].reason
    row = score(find(out), options(k=12, names=("svd",))).singles[0]
    assert "5 features have no 12 singular vectors" in row.scores["svd"].reason


def test_without_dense_labels_label_scores_do_not_apply(root: str) -> None:
    found = score(find(root), options(source="val", target="train"))
    for row in found.pairs:
        for name in ("logme", "h-score", "recall"):
            assert row.scores[name].reason == "not all target clips have labels by the second"
        assert row.scores["svd"].value is not None


def test_one_class_that_everything_has(tmp_path: Path) -> None:
    def always(clip: Clip) -> Clip:
        events = tuple(Event(m, "Dog", 0, SEGMENTS) for m in ("audio", "visual"))  # type: ignore[arg-type]
        return replace(clip, labels=("Dog",), events=events if clip.split == "val" else ())

    clips = [always(clip) for clip in make_clips({"train": 12, "val": 12})]
    out = make_family(tmp_path, clips, names=("vggish", "resnet152"), classes=("Dog",))
    row = score(find(out), options()).pairs[0]
    for name in ("logme", "h-score"):
        assert "every class is constant" in row.scores[name].reason
    assert row.scores["recall"].reason == "chance alone is always right"
    assert row.scores["cka"].value is not None


def test_constant_features_have_no_scores_but_reasons(tmp_path: Path) -> None:
    def constant(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((SEGMENTS, 5), np.float32), np.arange(SEGMENTS) + 0.5

    out = make_family(
        tmp_path,
        make_clips({"train": 12, "val": 12}),
        names=("vggish", "resnet152"),
        rows={"vggish": constant},
    )
    found = score(find(out), options())
    alone = of(found, "vggish").scores
    assert "all features are constant" in alone["svd-centred"].reason
    row = of(found, "vggish", "resnet152").scores
    assert row["cka"].reason == "the features of a modality are constant"
    assert "features that vary" in row["recall"].reason
    assert row["svd"].value is not None


def test_infinite_features_name_store_and_clip(tmp_path: Path) -> None:
    def broken(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        features, times = drawn_rows("vggish", "audio", 5, 1)(clip)
        if clip.id == "val_04":
            features[1, 1] = np.inf
        return features, times

    out = make_family(
        tmp_path,
        make_clips({"train": 8, "val": 8}),
        names=("vggish", "resnet152"),
        rows={"vggish": broken},
    )
    with pytest.raises(FeaturesError, match=r"llp/vggish: clip val_04 has infinite features"):
        score(find(out), options(workers=2))


def test_wrong_options(root: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'logme'"):
        options(names=("logm",))
    with pytest.raises(UsageError, match="no score is asked for"):
        options(names=())
    with pytest.raises(CollocationError, match="split 'dev'"):
        score(find(root), options(target="dev"))
