"""Maps, means of a second, other frame rates, optical flow and other sound, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import Cli, Corpus

import avfeat as package
from avfeat.extract import backbones, session, transforms
from avfeat.extract.backbones import Geometry
from avfeat.extract.flow import flow
from avfeat.extract.media import ClipReader, Window
from avfeat.extract.plan import Settings, make_recipe
from avfeat.extract.weights.info import WeightsInfo
from avfeat.testing.clips import AudioTrack, make_clip

WINDOW = Window(0.0, 10.0, whole=True)


def rows(name: str, items: np.ndarray) -> np.ndarray:
    model = backbones.load(name, weights="random", device=torch.device("cpu"))
    return model(torch.from_numpy(np.ascontiguousarray(items))).numpy()


def opened_store(name: str, dataset: str = "llp") -> package.FeatureStore:
    return package.open_store(f"features/{dataset}/{name}", allow_random=True)


def test_maps_flow_and_other_rates_are_what_direct_reading_gives(
    avfeat: Cli, corpus: Corpus, opened: list[str]
) -> None:
    names = ["tiny_image", "tiny_map", "tiny_two_stream", "tiny_wide", "tiny_wide.16k"]
    clip = corpus.ids[0]
    avfeat("extract", "-b", ",".join(names), *corpus.options, "--clip", clip)
    assert len(opened) == 1  # for 8 and 16 frames a second, and for two ways to 48 kHz
    path = corpus.media / f"{clip[:11]}.mp4"
    with ClipReader(path) as reader:
        by_time = list(reader.frames("avvp", window=WINDOW, fps=8, count=80))
    with ClipReader(path) as reader:
        by_count = list(reader.frames("ave", window=WINDOW, fps=16, count=160))
    with ClipReader(path) as reader:
        sound = list(reader.audio([48000, (16000, 48000)], window=WINDOW))

    squash = Geometry((20, 24), interpolation="cv2-linear")
    maps = rows("tiny_map", np.stack([transforms.apply(squash, f.rgb) for f in by_count]))
    store = opened_store("tiny_map")
    assert store.row_shape == (6, 7, 4) and store[clip].shape == (10, 6, 7, 4)
    expected = maps.reshape(10, 16, 6, 7, 4).mean(axis=1)
    np.testing.assert_allclose(store[clip], expected, rtol=1e-5, atol=1e-6)
    seconds = np.array([frame.time for frame in by_count]).reshape(10, 16).mean(axis=1)
    np.testing.assert_allclose(store.times(clip), seconds, atol=1e-9)
    assert store.recipe.sampling == {"rule": "ave", "fps": 16.0}
    assert "opencv-contrib-python-headless" in store.recipe.libraries

    crop = Geometry(40, 32)
    whole = np.stack([transforms.resize(crop, frame.rgb) for frame in by_time])
    flows = flow(whole)
    both = np.concatenate(
        [
            transforms.crop(crop, whole).astype(np.float32),
            transforms.crop(crop, np.concatenate([flows, flows[-1:]])),
        ],
        axis=-1,
    )
    windows = [both[np.clip(np.arange(8 * s - 4, 8 * s + 12), 0, 79)] for s in range(10)]
    found = opened_store("tiny_two_stream")[clip]
    np.testing.assert_allclose(
        found, rows("tiny_two_stream", np.stack(windows)), rtol=1e-4, atol=1e-6
    )
    assert np.abs(flows).max() > 0.5  # something moves in it

    wide, through = (np.concatenate([b[rate] for b in sound]) for rate in (48000, (16000, 48000)))
    for name, samples in (("tiny_wide", wide), ("tiny_wide.16k", through)):
        expected = rows("tiny_wide", samples.reshape(10, 48000))
        np.testing.assert_allclose(opened_store(name)[clip], expected, rtol=1e-4, atol=1e-6)
    assert opened_store("tiny_wide.16k").recipe.backbone["input"]["via"] == 16000
    avfeat("verify", "features")


def test_pool_second_is_the_mean_of_the_rows_of_each_second(avfeat: Cli, corpus: Corpus) -> None:
    avfeat("extract", "-b", "tiny_image,tiny_snippet", *corpus.options, "--split", "test")
    said = avfeat(
        *("extract", "-b", "tiny_image,tiny_snippet", *corpus.options, "--split", "test"),
        *("--pool", "second", "--json"),
    )
    # The snippets are one per second already: their store is the same, and whole.
    assert [(s["store"], s["new_rows"]) for s in json.loads(said.stdout)["stores"]] == [
        ("features/llp/tiny_image.second", 30),
        ("features/llp/tiny_snippet", 0),
    ]
    clip = corpus.ids[8]
    frames = opened_store("tiny_image")
    pooled = opened_store("tiny_image.second")
    expected = frames[clip].reshape(10, 8, 6).mean(axis=1)
    np.testing.assert_allclose(pooled[clip], expected, rtol=1e-6)
    np.testing.assert_allclose(
        pooled.times(clip), frames.times(clip).reshape(10, 8).mean(axis=1), atol=1e-9
    )
    assert pooled.recipe.backbone["pool"] == {"items": 8, "by": "mean"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-b", "tiny_audio", "--pool", "second"), "--pool second does nothing for tiny_audio"),
        (
            ("-b", "tiny_audio", "--audio-rate", "16000"),
            "--audio-rate 16000 does nothing for tiny_audio",
        ),
        (("-b", "tiny_image.map"), "Known: second"),
        (("-b", "tiny_map.second"), "option of tiny_map"),
    ],
)
def test_options_that_a_backbone_lacks_are_refused(
    avfeat: Cli, corpus: Corpus, options: tuple[str, ...], words: str
) -> None:
    result = avfeat("extract", *options, *corpus.options, code=2)
    assert words in result.stderr
    assert not Path("features").exists()


def test_the_audio_rate_is_short_for_an_option(avfeat: Cli, corpus: Corpus) -> None:
    options = (*corpus.options, "--clip", corpus.ids[0], "--audio-rate", "16000")
    avfeat("extract", "-b", "tiny_wide,tiny_image", *options)
    names = sorted(path.name for path in Path("features/llp").iterdir())
    assert names == ["tiny_image", "tiny_wide.16k"]


def test_a_clip_of_one_frame(avfeat: Cli, tmp_path: Path) -> None:
    """It is on screen all the time; nothing in it moves."""
    media = tmp_path / "videos"
    media.mkdir()
    make_clip(media / "still.mp4", fps=1, duration=1.0, size=(128, 96), audio=AudioTrack())
    names = "tiny_image,tiny_snippet,tiny_two_stream,tiny_map"
    avfeat("extract", "-b", names, "-d", "folder", "--data", media, "--weights", "random")
    rows_of = {name: opened_store(name, "folder")["still.mp4"] for name in names.split(",")}
    assert [len(found) for found in rows_of.values()] == [8, 1, 1, 1]
    assert np.array_equal(rows_of["tiny_image"], np.repeat(rows_of["tiny_image"][:1], 8, axis=0))
    for name in names.split(","):
        assert opened_store(name, "folder").outcome("still.mp4").status == "ok"


def test_windows_of_i3d_and_their_frame_rate_are_in_the_recipe() -> None:
    sampled = {}
    for dataset in ("llp", "folder"):
        (backbone,) = session.choose(["i3d_rgb"], dataset=dataset, device="cpu")
        recipe = make_recipe(
            backbone,
            WeightsInfo.random(0),
            Settings(out="x"),
            engine="torch",
            batch_size=4,
            unit_clips=1,
        )
        taken = recipe.backbone["input"]
        sampled[dataset] = (recipe.sampling["fps"], taken["frames"], taken["stride"])
        assert recipe.backbone["name"] == "i3d_rgb"
    assert sampled == {"llp": (8.0, 16, 8), "folder": (25.0, 16, 16)}


def test_recipes_from_before_variants_keep_their_fingerprints() -> None:
    """Stores of the first networks can be gone on with: no field was added to their recipes."""
    spec = backbones.get("resnet152").spec
    assert set(spec.recipe()) == {"name", "modality", "layer", "dim", "input"}
    assert set(spec.recipe()["input"]) == {
        *("resize", "crop", "interpolation", "colour", "frames", "stride", "mean", "std")
    }
