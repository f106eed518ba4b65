"""What dirty folders and wrong words end in: a clear message, a row, never a traceback."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from support import Cli, Corpus, tree, write_llp

import avfeat as package
from avfeat.testing.clips import AudioTrack, make_clip


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good clip and everything that can be wrong with others."""
    folder = tmp_path_factory.mktemp("dirty")
    clip = {"fps": 12, "size": (128, 96), "duration": 10.0}
    sound = AudioTrack([(0.0, 10.0, 440.0, 0.3)], rate=16000)
    make_clip(folder / "good.mp4", audio=sound, **clip)
    make_clip(folder / "no_sound.mp4", **clip)
    make_clip(folder / "no_picture.m4a", codec=None, audio=sound, duration=10.0)
    make_clip(folder / "short_sound.mp4", audio=AudioTrack(sound.tones, duration=6.0), **clip)
    make_clip(folder / "tiny.mp4", audio=sound, fps=12, size=(128, 96), duration=0.3)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>404 not found</html>\n" * 50)
    whole = (folder / "good.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    make_clip(
        folder / "cut_off.mp4", audio=sound, container_options={"movflags": "+faststart"}, **clip
    )
    front = (folder / "cut_off.mp4").read_bytes()
    (folder / "cut_off.mp4").write_bytes(front[: int(len(front) * 0.6)])
    damaged = bytearray(whole)
    for place in range(len(whole) // 8, len(whole) // 2, 301):
        damaged[place] ^= 0x55
    (folder / "bits.mp4").write_bytes(damaged)
    return folder


def test_every_kind_of_bad_media_is_its_own_row(avfeat: Cli, dirty: Path) -> None:
    options = ("-d", "folder", "--data", dirty, "--weights", "random")
    result = avfeat("extract", "-b", "tiny_image,tiny_snippet,tiny_audio", *options, code=3)
    assert "Traceback" not in result.output
    stores = {
        name: package.open_store(f"features/folder/tiny_{name}", allow_random=True)
        for name in ("image", "snippet", "audio")
    }
    full = {path.stem: path.name for path in dirty.iterdir()}

    def status(name: str, clip: str) -> str:
        outcome = stores[name].outcome(full[clip])
        return outcome.status + (f"({outcome.kind})" if outcome.kind else "")

    assert {clip: status("image", clip) for clip in ("good", "no_sound", "short_sound")} == {
        "good": "ok",
        "no_sound": "ok",
        "short_sound": "ok",
    }
    assert status("audio", "no_sound") == "no_audio"
    assert status("image", "no_picture") == "no_video"
    assert status("audio", "no_picture") == "ok"
    for name in stores:
        assert status(name, "empty") == "failed(empty_file)"
        assert status(name, "text") == "failed(not_media)"
        assert status(name, "truncated") in ("failed(truncated)", "failed(not_media)")
    assert status("image", "tiny") == "ok"
    assert status("snippet", "tiny") == "failed(too_short)"
    assert status("audio", "tiny") == "failed(too_short)"
    short = stores["audio"].outcome("short_sound.mp4")
    assert (short.status, short.kind) == ("degraded", "short")
    assert short.short == pytest.approx(4.0, abs=0.1)
    for clip in ("cut_off", "bits"):
        outcome = stores["image"].outcome(full[clip])
        assert outcome.status == "degraded", outcome
        assert outcome.corrupt_frames or outcome.short > 1
    for store in stores.values():
        for clip in [*store, "empty.mp4", "text.mp4"]:
            outcome = store.outcome(clip)
            assert outcome.rows == (len(store[clip]) if clip in store else 0)
            assert str(dirty) not in outcome.message
            assert outcome.status == "ok" or outcome.message
    avfeat("verify", "features")
    failed = avfeat("inspect", "features/folder/tiny_snippet").stdout
    assert "empty.mp4" in failed
    assert "not_media" in failed
    again = avfeat("extract", "-b", "tiny_image", *options, "--json", "-q", code=3)
    assert json.loads(again.stdout)["clips_decoded"] == 0


def test_a_failed_clip_that_was_mended_is_done_on_request(avfeat: Cli, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    make_clip(media / "a.mp4", fps=12, size=(128, 96), duration=2.0)
    (media / "b.mp4").touch()
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
    avfeat(*options, code=3)
    (media / "b.mp4").unlink()
    make_clip(media / "b.mp4", fps=12, size=(128, 96), duration=3.0)
    avfeat(*options, code=3)
    avfeat(*options, "--retry-failed")
    store = package.open_store("features/folder/tiny_image", allow_random=True)
    assert {clip: len(rows) for clip, rows in store.items()} == {"a.mp4": 16, "b.mp4": 24}
    avfeat("verify", "features")


def test_bad_annotation_rows_end_as_rows_that_name_file_and_line(
    avfeat: Cli, corpus: Corpus, tmp_path: Path
) -> None:
    own = corpus.copy(tmp_path / "own")
    weak = own.annotations / "AVVP_train.csv"
    text = weak.read_text()
    first, second, third = own.ids[:3]
    text = text.replace(f"{first}\tDog", f"{first}\tDogg")
    text = text.replace(second, second.rpartition("_")[0] + "_abc")
    weak.write_text(text)
    events = own.annotations / "AVVP_eval_audio.csv"
    events.write_text(events.read_text().replace(f"{own.ids[5]}\t2\t5", f"{own.ids[5]}\t2\t55"))
    result = avfeat("extract", "-b", "tiny_image", *own.options, code=3)
    assert "bad_annotation" in result.stdout
    store = package.open_store("features/llp/tiny_image", allow_random=True)
    assert "AVVP_train.csv line 2: unknown label 'Dogg'" in store.outcome(first).message
    bad = second.rpartition("_")[0] + "_abc"
    assert "AVVP_train.csv line 3" in store.outcome(bad).message
    assert "AVVP_eval_audio.csv line 2" in store.outcome(own.ids[5]).message
    assert store.outcome(third).status == "ok"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-b", "senet145"), "unknown backbone 'senet145'. Did you mean 'senet154'?"),
        (("-d", "lpl"), "unknown data set 'lpl'. Did you mean 'llp'? Known: folder, llp"),
        (("--sampling", "middle"), "known: avvp, ave, on-screen, center"),
        (("--split", "tset"), "unknown split 'tset'. Did you mean 'test'?"),
        (("--clip", "nothing"), "unknown clip 'nothing'"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--device", "cuda:99"), "is not there"),
        (("--batch-size", "0"), "--batch-size"),
        (("--weights", "random:x"), "seed"),
        (("--strict",), "--strict: 1 of 10 clips have no media"),
        (("--data", "nowhere"), "or put it at $AVFEAT_DATA/llp"),
        (("--data", __file__), f"it is a file; name its folder, {Path(__file__).parent}"),
        (("--weights", "publishd"), "no published weights"),
        (("--annotations", "nowhere"), "AVVP_train.csv"),
    ],
)
def test_wrong_use_is_refused_with_a_hint(
    avfeat: Cli, corpus: Corpus, options: tuple[str, ...], message: str
) -> None:
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, *options, code=2)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not Path("features").exists()


def test_no_media_at_all_says_where_it_was_looked_for(avfeat: Cli, corpus: Corpus) -> None:
    empty = Path("empty")
    empty.mkdir()
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, "--data", empty, code=2)
    assert str(empty.absolute()) in result.stderr
    assert "<11-character id>.*" in result.stderr


def test_media_is_found_by_environment_and_by_default(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*corpus.options]
    at = options.index("--data")
    del options[at : at + 2]
    Path("data").mkdir()
    Path("data/llp").symlink_to(corpus.media)
    avfeat("extract", "-b", "tiny_image", *options)
    Path("data/llp").unlink()
    Path("elsewhere").mkdir()
    Path("elsewhere/llp").symlink_to(corpus.media)
    monkeypatch.setenv("AVFEAT_DATA", "elsewhere")
    avfeat("extract", "-b", "tiny_image", *options, "--out", "second")
    assert tree(Path("features")) == tree(Path("second"))


@pytest.mark.parametrize("kind", ["file", "folder", "other_dataset"])
def test_an_output_that_is_something_else_is_left_alone(
    avfeat: Cli, corpus: Corpus, kind: str
) -> None:
    store = Path("features/llp/tiny_image")
    store.parent.mkdir(parents=True)
    if kind == "file":
        store.write_text("mine")
    elif kind == "folder":
        store.mkdir()
        (store / "thesis.tex").write_text("mine")
    else:
        avfeat(
            "extract",
            "-b",
            "tiny_image",
            "-d",
            "folder",
            "--data",
            corpus.media,
            "--weights",
            "random",
        )
        Path("features/folder/tiny_image").rename(store)
    before = tree(Path("features"))
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, code=2)
    assert "choose another folder with --out" in result.stderr
    assert tree(Path("features")) == before


def test_an_output_below_a_file_is_refused(avfeat: Cli, corpus: Corpus) -> None:
    Path("features").write_text("a file")
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, code=None)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "features" in result.stderr


def test_a_folder_that_may_not_be_written_is_said(
    avfeat: Cli, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root may write anywhere, the refusal is played."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "fsync", refuse)
    result = avfeat("extract", "-b", "tiny_image", *corpus.options, code=1)
    assert "no permission; choose another folder with --out" in result.stderr
    assert "Traceback" not in result.output


def test_duplicate_ids_in_the_splits_are_refused(
    avfeat: Cli, corpus: Corpus, tmp_path: Path
) -> None:
    write_llp(tmp_path, train=[corpus.ids[0]], test=[corpus.ids[0]])
    options = [*corpus.options, "--annotations", tmp_path]
    result = avfeat("extract", "-b", "tiny_image", *options, code=2)
    assert "two places" in result.stderr
