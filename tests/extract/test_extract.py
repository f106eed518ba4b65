"""The main job, on small clips and small networks."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support import Cli, Corpus, KilledError, tree, write_llp

import avfeat as package
from avfeat.errors import IntegrityError, RandomWeightsError
from avfeat.extract import backbones, transforms
from avfeat.extract.backbones import Geometry
from avfeat.extract.media import ClipReader, Window
from avfeat.testing.clips import AudioTrack, make_clip, read_number

ALL = "tiny_image,tiny_image2,tiny_snippet,tiny_audio"


def test_rows_are_those_of_the_network_on_the_frames_of_the_clip(
    avfeat: Cli, corpus: Corpus
) -> None:
    avfeat("extract", "-b", ALL, *corpus.options)
    clip = corpus.ids[0]
    with ClipReader(corpus.media / f"{clip[:11]}.mp4") as reader:
        window = Window(0.0, 10.0, whole=True)
        frames = list(reader.frames("avvp", window=window, fps=8, count=80))
        (sound,) = (np.concatenate([b[16000] for b in reader.audio({16000}, window=window)]),)
    assert len({read_number(frame.rgb) for frame in frames}) > 60

    def rows(name: str, items: np.ndarray) -> np.ndarray:
        model = backbones.load(name, weights="random", device=torch.device("cpu"))
        return model(torch.from_numpy(items)).numpy()

    crops = np.stack([transforms.apply(Geometry(40, 32), frame.rgb) for frame in frames])
    squashed = np.stack([transforms.apply(Geometry((16, 16)), frame.rgb) for frame in frames])
    seconds = np.array([frame.time for frame in frames])
    windows = np.stack([sound[16000 * s : 16000 * s + 15600] for s in range(10)])
    expected = {
        "tiny_image": (rows("tiny_image", crops), seconds),
        "tiny_image2": (rows("tiny_image2", crops), seconds),
        "tiny_snippet": (
            rows("tiny_snippet", squashed.reshape(10, 8, 16, 16, 3)),
            seconds.reshape(10, 8).mean(axis=1),
        ),
        "tiny_audio": (rows("tiny_audio", windows), np.arange(10) + 0.4875),
    }
    for name, (features, times) in expected.items():
        store = package.open_store(f"features/llp/{name}", allow_random=True)
        assert store[clip].dtype == np.float32
        np.testing.assert_allclose(store[clip], features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(store.times(clip), times, atol=1e-9)
        assert len(store) == 9
        assert store.complete


def test_every_clip_has_its_row_and_its_labels(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", "tiny_image", *corpus.options)
    store = package.open_store("features/llp/tiny_image", allow_random=True)
    assert store.splits == ("train", "val", "test")
    assert store.ids(split="train") == list(corpus.ids[:4])
    assert store.ids(split="test") == list(corpus.ids[7:])
    assert [event.onset for event in store.clip(corpus.ids[8]).events] == [2.0, 2.0]
    assert store.clip(corpus.ids[0]).labels == ("Dog",)
    assert store.outcome(corpus.ids[4]).status == "missing"
    assert corpus.ids[4] not in store
    with pytest.raises(KeyError, match="has no rows: missing"):
        store[corpus.ids[4]]
    with pytest.raises(KeyError, match="Did you mean"):
        store[corpus.ids[0] + "x"]
    outcome = store.outcome(corpus.ids[0])
    assert outcome.media_bytes == (corpus.media / outcome.media).stat().st_size


def test_each_clip_is_opened_once_for_all_backbones(
    avfeat: Cli, corpus: Corpus, opened: list[str]
) -> None:
    avfeat("extract", "-b", ALL, *corpus.options)
    assert len(opened) == len(set(opened)) == 9


def test_a_second_run_does_nothing(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", ALL, *corpus.options)
    before = tree(Path("features"))
    stamps = {name: (Path("features") / name).stat().st_mtime_ns for name in before}
    result = json.loads(avfeat("extract", "-b", ALL, *corpus.options, "--json", "-q").stdout)
    assert result["clips_decoded"] == 0
    assert tree(Path("features")) == before
    assert {name: (Path("features") / name).stat().st_mtime_ns for name in before} == stamps


def test_workers_and_backbones_together_do_not_change_a_byte(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", ALL, *corpus.options, "--out", "a", "--decoders", 1)
    avfeat("extract", "-b", "tiny_audio", *corpus.options, "--out", "b", "--decoders", 4)
    avfeat("extract", "-b", "tiny_image2,tiny_snippet", *corpus.options, "--out", "b")
    avfeat("extract", "-b", ALL, *corpus.options, "--out", "b", "--decoders", 3)
    assert tree(Path("a")) == tree(Path("b"))


def test_steps_by_split_limit_and_clip_end_in_the_same_bytes(avfeat: Cli, corpus: Corpus) -> None:
    """Batches differ then (fewer clips share one), so this holds to the last bit for these nets."""
    options = ("-b", ALL, *corpus.options, "--unit-clips", 4)
    avfeat("extract", *options, "--out", "whole")
    avfeat("extract", *options, "--out", "steps", "--split", "test", "--limit", 1)
    store = package.open_store("steps/llp/tiny_image", allow_random=True)
    assert list(store) == [corpus.ids[7]]
    assert not store.complete
    avfeat("verify", "steps")
    avfeat("extract", *options, "--out", "steps", "--clip", corpus.ids[1])
    first = package.open_store("steps/llp/tiny_image", allow_random=True)[corpus.ids[7]]
    avfeat("extract", *options, "--out", "steps")
    assert tree(Path("whole")) == tree(Path("steps"))
    np.testing.assert_array_equal(
        package.open_store("steps/llp/tiny_image", allow_random=True)[corpus.ids[7]], first
    )


def test_media_that_appears_later_is_picked_up_and_old_rows_keep_their_bytes(
    avfeat: Cli, corpus: Corpus, tmp_path: Path
) -> None:
    own = corpus.copy(tmp_path / "own")
    held_back = own.media / f"{own.ids[1][:11]}.mp4"
    shutil.move(held_back, tmp_path / "later.mp4")
    avfeat("extract", "-b", ALL, *own.options)
    before = {
        name: package.open_store(f"features/llp/{name}", allow_random=True)[own.ids[2]]
        for name in ALL.split(",")
    }
    shutil.move(tmp_path / "later.mp4", held_back)
    avfeat("extract", "-b", ALL, *own.options)
    for name, rows in before.items():
        store = package.open_store(f"features/llp/{name}", allow_random=True)
        assert store[own.ids[2]].tobytes() == rows.tobytes()
        assert own.ids[1] in store
    avfeat("verify", "features")
    avfeat("extract", "-b", ALL, *own.options, "--out", "fresh")
    assert tree(Path("features")) == tree(Path("fresh"))


def test_another_recipe_is_refused_and_the_field_named(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", "tiny_image", *corpus.options)
    before = tree(Path("features"))
    for options, field in (
        (("--sampling", "center"), "sampling.rule: 'avvp' in the store, 'center' now"),
        (("--batch-size", "4"), "compute.batch_size: 8 in the store, 4 now"),
        (("--weights", "random:1"), "weights.seed: 0 in the store, 1 now"),
        (("--precision", "bf16"), "compute.precision: 'fp32' in the store, 'bf16' now"),
        (("--unit-clips", "3"), "store.unit_clips: 16 in the store, 3 now"),
    ):
        result = avfeat("extract", "-b", "tiny_image", *corpus.options, *options, code=2)
        assert field in result.stderr
    assert tree(Path("features")) == before


def test_other_library_versions_need_a_word_and_are_recorded(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    avfeat("extract", "-b", "tiny_image", *corpus.options, "--split", "test")
    from avfeat.extract import plan

    monkeypatch.setattr(plan, "library_versions", lambda modality, beside: {"torch": "9.9"})
    refused = avfeat("extract", "-b", "tiny_image", *corpus.options, code=2)
    assert "libraries.torch" in refused.stderr
    assert "--allow-drift" in refused.stderr
    avfeat("extract", "-b", "tiny_image", *corpus.options, "--allow-drift")
    summary = json.loads(avfeat("inspect", "features/llp/tiny_image", "--json").stdout)
    assert summary["drift"] == [{"torch": "9.9"}]
    assert summary["complete"]
    avfeat("verify", "features")


def test_xarray_opens_the_arrays_without_a_warning(avfeat: Cli, corpus: Corpus) -> None:
    import xarray

    avfeat("extract", "-b", "tiny_image", *corpus.options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr("features/llp/tiny_image/features.zarr")
        assert dict(data.sizes) == {"clip": 10, "time": 80, "feature": 6}
        assert data.features.dims == ("clip", "time", "feature")
        assert data.length.values.tolist() == [80, 80, 80, 80, 0, 80, 80, 80, 80, 80]
        assert data.clip_id.values.tolist() == list(corpus.ids)
        assert np.isnan(data.features[4]).all()
        assert data.time.attrs["units"] == "s"
    store = package.open_store("features/llp/tiny_image", allow_random=True)
    np.testing.assert_array_equal(data.features[0].values, store[corpus.ids[0]])


def test_folder_takes_clips_of_any_length_and_grows(avfeat: Cli, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    (media / "sub").mkdir(parents=True)
    make_clip(media / "a.mp4", fps=10, duration=3.0, size=(128, 96), audio=AudioTrack())
    make_clip(media / "sub" / "b.mp4", fps=10, duration=1.5, size=(128, 96))
    (media / "notes.txt").write_text("no video")
    options = (
        "-d",
        "folder",
        "--data",
        media,
        "--weights",
        "random",
        "-b",
        "tiny_image,tiny_audio",
    )
    avfeat("extract", *options)
    image = package.open_store("features/folder/tiny_image", allow_random=True)
    audio = package.open_store("features/folder/tiny_audio", allow_random=True)
    assert {clip: len(rows) for clip, rows in image.items()} == {"a.mp4": 24, "sub/b.mp4": 12}
    assert list(audio) == ["a.mp4"]
    assert audio.outcome("sub/b.mp4").status == "no_audio"
    kept = image["a.mp4"]
    make_clip(media / "aa.mp4", fps=10, duration=40.0, size=(128, 96), audio=AudioTrack())
    avfeat("extract", *options)
    grown = package.open_store("features/folder/tiny_image", allow_random=True)
    assert {clip: len(rows) for clip, rows in grown.items()} == {
        "a.mp4": 24,
        "sub/b.mp4": 12,
        "aa.mp4": 320,
    }
    np.testing.assert_array_equal(grown["a.mp4"], kept)
    np.testing.assert_allclose(np.diff(grown.times("aa.mp4")), 0.125, atol=0.1001)
    avfeat("verify", "features")


def test_another_folder_does_not_mix_into_a_store(avfeat: Cli, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_clip(tmp_path / name / f"{name}.mp4", fps=10, duration=1.0, size=(128, 96))
    options = ("extract", "-d", "folder", "--weights", "random", "-b", "tiny_image", "--data")
    avfeat(*options, tmp_path / "one")
    assert (
        "holds other clips (such as one.mp4)" in avfeat(*options, tmp_path / "two", code=2).stderr
    )


def test_untrimmed_media_is_cut_at_the_annotated_start(avfeat: Cli, tmp_path: Path) -> None:
    media, annotations = tmp_path / "media", tmp_path / "annotations"
    media.mkdir()
    annotations.mkdir()
    make_clip(
        media / "longClip_01.mp4",
        fps=10,
        duration=25.0,
        size=(128, 96),
        gop=50,
        audio=AudioTrack([(12.0, 13.0, 1000.0, 0.5)], rate=16000),
    )
    write_llp(annotations, train=["longClip_01_11_21"], val=["tooShort_01_90_100"])
    make_clip(media / "tooShort_01.mp4", fps=10, duration=25.0, size=(128, 96))
    options = ("-d", "llp", "--data", media, "--annotations", annotations, "--weights", "random")
    result = avfeat(
        "extract", "-b", "tiny_image,tiny_audio", *options, "--sampling", "on-screen", code=3
    )
    assert "outside_media" in result.stdout
    image = package.open_store("features/llp/tiny_image", allow_random=True)
    audio = package.open_store("features/llp/tiny_audio", allow_random=True)
    times = image.times("longClip_01_11_21")
    assert len(times) == 80
    # The frame on screen at k / 8 s, of a clip with a frame every 0.1 s.
    np.testing.assert_allclose(times, np.floor(np.arange(80) / 8 * 10 + 1e-6) / 10, atol=1e-3)
    loud = audio["longClip_01_11_21"].max(axis=1)
    assert int(loud.argmax()) == 1


def test_a_network_that_gives_nan_fails_the_clip_and_writes_nothing(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    original = tiny._Net.forward
    calls = iter(range(10**6))

    def forward(self: tiny._Net, items: torch.Tensor) -> torch.Tensor:
        rows = original(self, items)
        if next(calls) == 2:  # calibration apart, this is a batch of the first clip
            rows[1] = float("nan")
        return rows

    monkeypatch.setattr(tiny._Net, "forward", forward)
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, code=3)
    assert "non_finite" in result.stdout
    store = package.open_store("features/llp/tiny_image", allow_random=True)
    assert store.outcome(corpus.ids[0]).kind == "non_finite"
    assert store.outcome(corpus.ids[0]).rows == 0
    assert len(store) == 8
    avfeat("verify", "features")
    monkeypatch.setattr(tiny._Net, "forward", original)
    avfeat("extract", "-b", "tiny_image", *corpus.options, code=3)  # not retried by itself
    avfeat("extract", "-b", "tiny_image", *corpus.options, "--retry-failed")
    assert len(package.open_store("features/llp/tiny_image", allow_random=True)) == 9


def test_random_weights_never_pass_for_real_ones(avfeat: Cli, corpus: Corpus) -> None:
    result = avfeat("extract", "-b", "tiny_image", *corpus.options)
    assert "not real features" in result.stderr
    with pytest.raises(RandomWeightsError, match="allow_random"):
        package.open_store("features/llp/tiny_image")
    summary = avfeat("inspect", "features/llp/tiny_image")
    assert "RANDOM, seed 0" in summary.stdout


def test_weights_out_of_reach_stop_the_run_before_any_decoding(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> object:
        raise AssertionError("opened a clip")

    monkeypatch.setattr(av, "open", refuse)
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    options = [option for option in corpus.options if option not in ("--weights", "random")]
    result = avfeat("extract", "-b", "resnet152", *options, code=2)
    assert "https://download.pytorch.org/models/resnet152-394f9c45.pth" in result.stderr
    assert str(Path("cache/weights/394f9c45/resnet152-394f9c45.pth")) in result.stderr
    assert "--weights random" in result.stderr
    assert "avfeat weights import" in result.stderr
    assert not Path("features").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(avfeat: Cli, corpus: Corpus) -> None:
    result = avfeat("extract", "-b", ALL, *corpus.options, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert not Path("features").exists()
    assert (plan["clips"], plan["with_media"], plan["to_decode"]) == (10, 9, 9)
    image = next(entry for entry in plan["stores"] if entry["backbone"] == "tiny_image")
    assert (image["rows"], image["units"], image["bytes"]) == (720, 1, 720 * (6 * 4 + 8))
    options = [option for option in corpus.options if option not in ("--weights", "random")]
    plan = json.loads(avfeat("extract", "-b", "senet154", *options, "--dry-run", "--json").stdout)
    assert not plan["stores"][0]["weights"]["at_hand"]
    assert "senet154" in avfeat("extract", "-b", "senet154", *options, "--dry-run").stdout


def test_a_file_that_changed_keeps_its_rows_and_holds_nobody_up(
    avfeat: Cli, tmp_path: Path
) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    for name in ("a", "b"):
        make_clip(media / f"{name}.mp4", fps=8, duration=3.0, size=(128, 96))
    options = (
        "extract",
        "-b",
        "tiny_image",
        "-d",
        "folder",
        "--data",
        media,
        "--weights",
        "random",
    )
    avfeat(*options)
    rows = dict(package.open_store("features/folder/tiny_image", allow_random=True))
    (media / "a.mp4").write_bytes(b"")
    make_clip(media / "b.mp4", fps=8, duration=5.0, size=(128, 96))
    make_clip(media / "c.mp4", fps=8, duration=1.0, size=(128, 96))
    result = avfeat(*options)
    for name in ("a", "b"):
        assert f"note: clip {name}.mp4 was extracted from 0-3 s" in result.stderr
    store = package.open_store("features/folder/tiny_image", allow_random=True)
    assert list(store) == ["a.mp4", "b.mp4", "c.mp4"]
    for name, kept in rows.items():
        np.testing.assert_array_equal(store[name], kept)
    avfeat("verify", "features")


def test_drift_is_recorded_before_the_first_row_of_it(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avfeat.extract import plan
    from avfeat.stores.writer import StoreWriter

    avfeat("extract", "-b", "tiny_image", *corpus.options, "--split", "test")

    def killed(self: StoreWriter) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(plan, "library_versions", lambda modality, beside: {"torch": "9.9"})
        patch.setattr(StoreWriter, "finish", killed)
        with pytest.raises(KilledError):
            avfeat("extract", "-b", "tiny_image", *corpus.options, "--allow-drift")
    avfeat("extract", "-b", "tiny_image", *corpus.options)
    summary = json.loads(avfeat("inspect", "features/llp/tiny_image", "--json").stdout)
    assert summary["drift"] == [{"torch": "9.9"}]


@pytest.mark.parametrize("damage", ["ledger gone", "ledger cut", "shard gone", "shard flipped"])
def test_a_damaged_unit_is_mended_by_the_way_that_verify_tells(
    avfeat: Cli, corpus: Corpus, damage: str
) -> None:
    """Delete the unit's ledger entry, run again: its clips are done again, to the same bytes."""
    options = ("extract", "-b", "tiny_image", *corpus.options, "--unit-clips", 2)
    avfeat(*options)
    store = Path("features/llp/tiny_image")
    before = tree(store)
    entry, shard = store / "ledger/000001.json", store / "features.zarr/features/c/1/0/0"
    if damage == "ledger cut":
        entry.write_bytes(entry.read_bytes()[:-20])
    elif damage == "shard gone":
        shard.unlink()
    elif damage == "shard flipped":
        data = bytearray(shard.read_bytes())
        data[100] ^= 4
        shard.write_bytes(data)
    else:
        entry.unlink()
    told = avfeat("verify", store, code=4).stdout
    assert "unit 1" in told
    assert corpus.ids[2] in told
    assert "To mend it, " in told
    assert (f"delete {entry.absolute()} and run" in told) == entry.exists()
    if damage == "ledger cut":
        assert "delete that file" in avfeat(*options, code=4).stderr
    entry.unlink(missing_ok=True)
    with pytest.raises(IntegrityError, match=r"000001\.json is gone"):
        package.open_store(store, allow_random=True)
    assert "the clips of unit 1 are done again" in avfeat(*options).stderr
    assert tree(store) == before
    avfeat("verify", store)


def test_a_refused_run_creates_no_store(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", "tiny_snippet", *corpus.options)
    options = (*corpus.options, "--weights", "random:1")
    avfeat("extract", "-b", "tiny_image,tiny_snippet", *options, code=2)
    assert not tree(Path("features/llp/tiny_image"))


def test_a_new_backbone_takes_after_the_stores_beside_it(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", "tiny_image", *corpus.options, "--unit-clips", 3, "--split", "val")
    result = avfeat("extract", "-b", "tiny_image,tiny_audio", *corpus.options, "--json")
    assert json.loads(result.stdout)["clips_decoded"] == 9
    assert "9 clips to extract" in result.stderr


def test_sound_that_begins_late_is_reported(avfeat: Cli, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    late = AudioTrack([(0.0, 10.0, 440.0, 0.3)], rate=16000, start=6.0)
    make_clip(media / "late.mp4", fps=8, size=(128, 96), audio=late)
    avfeat("extract", "-b", "tiny_audio", "-d", "folder", "--data", media, "--weights", "random")
    outcome = package.open_store("features/folder/tiny_audio", allow_random=True).outcome(
        "late.mp4"
    )
    assert (outcome.status, outcome.kind) == ("degraded", "short")
    assert outcome.short == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize(
    "names",
    ["vggish,openl3,r2plus1d_18", pytest.param("all", marks=pytest.mark.slow)],
)
def test_the_real_clip_has_the_shapes_of_the_papers(
    avfeat: Cli, shared: Path, names: str, opened: list[str]
) -> None:
    options = ("--data", shared / "media", "--annotations", shared / "data" / "llp")
    avfeat("extract", "-b", names, "-d", "llp", *options, "--weights", "random")
    assert len(opened) == 1
    shapes = {
        "vggish": (10, 128),
        "openl3": (10, 512),
        "openl3_image": (80, 512),
        "resnet152": (80, 2048),
        "vgg19_bn": (80, 4096),
        "vgg19.pool5": (10, 7, 7, 512),
        "senet154": (80, 2048),
        "polynet": (80, 2048),
        "r2plus1d_18": (10, 512),
        "i3d": (10, 2048),
        "i3d_flow": (10, 1024),
        "i3d_rgb": (10, 1024),
    }
    for name in shapes if names == "all" else names.split(","):
        store = package.open_store(f"features/llp/{name}", allow_random=True)
        assert store["BjCEufrlXm4_20_30"].shape == shapes[name]
        assert store.manifest.counts == {"ok": 1, "missing": 11848}
    avfeat("verify", "features")


@pytest.mark.slow
def test_the_demo_ends_with_a_picture_per_clip(avfeat: Cli) -> None:
    avfeat("demo")
    assert len(list(Path("avfeat-demo/pictures").glob("*.png"))) == 3
    avfeat("verify", "avfeat-demo/features")
