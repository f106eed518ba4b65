"""Moments over stores: those of all rows at once, whatever the parts and the threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from collocationkit import SEGMENTS, make_clips, make_family, make_store

from avfeat.collocate import streams
from avfeat.collocate.candidates import Candidate, Candidates, gather
from avfeat.collocate.scores.moments import Moments
from avfeat.collocate.streams import GROUPS, Clips, Measured, measure, project
from avfeat.manifests.clips import Clip

CLIPS = make_clips({"train": 3, "val": 53})


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    folder = tmp_path_factory.mktemp("features")
    out = make_family(folder, CLIPS, names=("vggish", "openl3", "resnet152"))
    return gather(out, dataset=None, audio=["all"], visual=["all"])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_CLIPS", 5)
    monkeypatch.setattr(streams, "_BLOCK", 4 * SEGMENTS * 8)


def rows_of(candidates: Candidates, name: str, clips: Clips) -> np.ndarray:
    (one,) = (one for one in candidates.all if one.name == name)
    return clips.features(one).astype(np.float64)


def test_clips_of_a_split_and_their_labels(candidates: Candidates) -> None:
    val, train = Clips.of(candidates, "val"), Clips.of(candidates, "train")
    assert (len(val), val.segments, train.labels, train.either) == (53, SEGMENTS, None, None)
    assert val.labels is not None
    assert val.labels.shape == (53, SEGMENTS, 2, 3)
    assert Clips.of(candidates, "all").labels is None  # train's would look like silence
    part = val.part(np.array([7, 2]))
    assert part.ids == ("val_07", "val_02")
    np.testing.assert_array_equal(part.labels, val.labels[[7, 2]])
    np.testing.assert_array_equal(part.either, val.labels[[7, 2]].any(axis=2))


@pytest.mark.parametrize("workers", [1, 3])
def test_moments_are_those_of_all_rows(
    candidates: Candidates, small_parts: None, workers: int
) -> None:
    clips = Clips.of(candidates, "val")
    found = measure(candidates.visual[0], clips, beside=candidates.audio, workers=workers)
    seen = rows_of(candidates, "resnet152", clips).reshape(-1, 6)
    assert found.own.count == len(seen)
    np.testing.assert_allclose(found.own.covariance, np.cov(seen.T, bias=True), atol=1e-10)
    for name in ("vggish", "openl3"):
        heard = rows_of(candidates, name, clips)
        heard = heard.reshape(-1, heard.shape[-1])
        expected = (heard - heard.mean(axis=0)).T @ (seen - seen.mean(axis=0))
        np.testing.assert_allclose(found.cross[name].scatter, expected, atol=1e-8)
    assert found.sums is not None
    assert clips.either is not None
    labels = clips.either.reshape(-1, 3)
    np.testing.assert_allclose(found.sums.sums, labels.T.astype(float) @ seen, rtol=1e-12)
    assert found.sums.positives.tolist() == labels.sum(axis=0).tolist()


@pytest.mark.parametrize("size", [5, 12])
def test_parts_are_as_many_for_each_of_four(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of 53 clips, and of fewer clips than parts."""
    monkeypatch.setattr(streams, "_CLIPS", size)
    seen = []

    def measured(candidate: Candidate, clips: Clips, beside: object) -> Measured:
        seen.append(len(clips))
        return Measured(Moments(candidate.store.dim), None, {})

    monkeypatch.setattr(streams, "_measured", measured)
    clips = Clips.of(candidates, "val")
    measure(candidates.visual[0], clips, workers=1)
    assert sum(seen) == 53
    assert len(seen) == {5: 12, 12: 8}[size]
    assert max(seen) - min(seen) <= 1
    seen.clear()
    measure(candidates.visual[0], clips.part(slice(0, 3)), workers=1)
    assert seen == [1, 1, 1]


def test_threads_change_no_bit(candidates: Candidates, small_parts: None) -> None:
    clips = Clips.of(candidates, "val")
    one, three = (measure(candidates.visual[0], clips, workers=n) for n in (1, 3))
    np.testing.assert_array_equal(one.own.scatter, three.own.scatter)
    np.testing.assert_array_equal(one.own.mean, three.own.mean)


def test_threads_change_no_bit_of_wide_products(tmp_path: Path) -> None:
    """Of some thousand rows, which BLAS would share out among threads of its own."""
    clips = make_clips({"train": 3, "val": 300})
    rng = np.random.default_rng(0)

    def rows(dim: int) -> Callable[[Clip], tuple[np.ndarray, np.ndarray]]:
        return lambda clip: (
            rng.gamma(2.0, size=(SEGMENTS, dim)).astype(np.float32),
            np.arange(SEGMENTS) + 0.5,
        )

    for name, modality, dim in (("vggish", "audio", 500), ("resnet152", "visual", 700)):
        make_store(tmp_path / "llp" / name, name, clips, rows(dim), modality=modality, dim=dim)
    found = gather(str(tmp_path), dataset=None, audio=["all"], visual=["all"])
    val = Clips.of(found, "val")
    one, two = (measure(found.visual[0], val, beside=found.audio, workers=n) for n in (1, 2))
    for first, second in ((one.own.own, two.own.own), (one.cross["vggish"], two.cross["vggish"])):
        np.testing.assert_array_equal(first.scatter, second.scatter)
        for third, other in zip(first.thirds, second.thirds, strict=True):
            np.testing.assert_array_equal(third, other)
    whole = found.visual[0].store
    seen = np.concatenate([whole[i] for i in val.ids]).astype(np.float64)
    scale = np.abs(one.own.scatter).max()
    expected = (seen - seen.mean(axis=0)).T @ (seen - seen.mean(axis=0))
    np.testing.assert_allclose(one.own.scatter / scale, expected / scale, atol=2e-6)


@pytest.mark.parametrize(("parts", "block"), [(1000, 400), (5, 4), (10, 1), (50, 50)])
def test_projected_groups_deal_clips_out_in_turn(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch, parts: int, block: int
) -> None:
    monkeypatch.setattr(streams, "_CLIPS", parts)
    monkeypatch.setattr(streams, "_BLOCK", block * SEGMENTS * 8)
    clips = Clips.of(candidates, "val")
    rng = np.random.default_rng(1)
    bases = {
        "pair": {"vggish": rng.normal(size=(5, 3)), "resnet152": rng.normal(size=(6, 3))},
        "single": {"resnet152": rng.normal(size=(6, 4))},
    }
    chosen = [one for one in candidates.all if one.name != "openl3"]
    found = project(chosen, clips, bases, workers=2)
    for key, members in bases.items():
        rows = sum(rows_of(candidates, name, clips) @ basis for name, basis in members.items())
        assert len(found[key]) == GROUPS
        for number, group in enumerate(found[key]):
            own = rows[number::GROUPS].reshape(-1, rows.shape[-1])
            assert group.count == len(own)
            np.testing.assert_allclose(group.mean, own.mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(
                group.covariance, np.cov(own.T, bias=True), rtol=1e-4, atol=1e-5
            )


def test_fewer_clips_than_groups_are_a_group_each(candidates: Candidates) -> None:
    clips = Clips.of(candidates, "val").part(slice(0, 7))
    found = project(candidates.visual, clips, {0: {"resnet152": np.eye(6)[:, :2]}}, workers=1)
    assert [group.count for group in found[0]] == [SEGMENTS] * 7
