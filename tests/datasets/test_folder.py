"""Any folder of videos: ids that are unique, and nothing that could be met there stops it."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
from support import Cli

from avfeat import datasets
from avfeat.errors import MediaNotFoundError
from avfeat.manifests.clips import ClipManifest
from avfeat.testing.clips import make_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "videos"
    path.mkdir()
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def load(folder: Path) -> ClipManifest:
    return datasets.get("folder").load(annotations=None, data=folder)


def ids(folder: Path) -> list[str]:
    manifest = load(folder)
    assert [clip.id for clip in manifest.clips] == list(manifest.media)
    return list(manifest.media)


def test_ids_are_paths(folder: Path) -> None:
    touch(folder, "b.mp4", "a.b.mkv", "sub/b.MP4", "sub/deep/c.wav", "-dash.webm", "é 日.mov")
    assert ids(folder) == [
        *("-dash.webm", "a.b.mkv", "b.mp4", "sub/b.MP4", "sub/deep/c.wav", "é 日.mov"),
    ]
    assert load(folder).media["sub/b.MP4"] == folder / "sub" / "b.MP4"


def test_what_is_no_media_is_left_out(folder: Path) -> None:
    touch(folder, "a.mp4", "a.json", "a.txt", "a", "a.mp4.part", ".hidden.mp4", ".git/x.mp4")
    (folder / "folder.mp4").mkdir()
    assert ids(folder) == ["a.mp4"]


def test_a_file_keeps_its_id_whatever_comes_beside_it(folder: Path) -> None:
    touch(folder, "a.mp4", "b.mp4")
    before = ids(folder)
    touch(folder, "a.webm", "a.wav", "a.mp4.mkv", "sub/a.mp4")
    assert ids(folder) == ["a.mp4", "a.mp4.mkv", "a.wav", "a.webm", "b.mp4", "sub/a.mp4"]
    assert set(before) < set(ids(folder))


def test_lengths_are_read_and_no_labels_made_up(folder: Path) -> None:
    make_clip(folder / "good.mp4", fps=10, duration=3.0, size=(128, 96))
    touch(folder, "empty.mp4")
    empty, good = load(folder).clips
    assert (good.start, good.end) == (0.0, pytest.approx(3.0, abs=0.01))
    assert math.isnan(empty.end)
    assert (good.split, good.labels, good.events, good.problem) == ("all", (), (), None)
    assert load(folder).classes == ()


def test_links_are_followed_but_never_in_circles(folder: Path, tmp_path: Path) -> None:
    touch(folder, "a.mp4", "sub/b.mp4")
    touch(tmp_path / "elsewhere", "c.mp4")
    (folder / "link.mp4").symlink_to(folder / "a.mp4")
    (folder / "other").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    (folder / "sub" / "upper").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    assert ids(folder) == ["a.mp4", "link.mp4", "other/c.mp4", "sub/b.mp4"]


def test_folders_that_link_to_each_other_do_not_multiply(folder: Path) -> None:
    touch(folder, "A/f.mp4", "B/g.mp4")
    (folder / "A" / "x").symlink_to(folder / "B")
    (folder / "B" / "y").symlink_to(folder / "A")
    assert ids(folder) == ["A/f.mp4", "A/x/g.mp4", "B/g.mp4", "B/y/f.mp4"]


def test_links_to_nothing_are_clips_that_cannot_be_opened(folder: Path) -> None:
    touch(folder, "a.mp4")
    (folder / "gone.mp4").symlink_to(folder / "nothing")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    assert ids(folder) == ["a.mp4", "gone.mp4", "loop.mp4"]


def test_pipes_are_not_waited_for(folder: Path) -> None:
    touch(folder, "a.mp4")
    os.mkfifo(folder / "pipe.mp4")
    assert ids(folder) == ["a.mp4"]


def test_names_that_are_not_utf8_are_said_and_left_out(avfeat: Cli, folder: Path) -> None:
    make_clip(folder / "a.mp4", fps=10, duration=1.0, size=(128, 96))
    bad = os.fsencode(folder) + b"/caf\xe9.mp4"
    try:
        Path(os.fsdecode(bad)).touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 names alone")
    options = ("-d", "folder", "--data", folder, "--weights", "random", "--device", "cpu")
    result = avfeat("extract", "-b", "tiny_image", *options)
    assert r"caf\xe9.mp4' is left out: its name is not UTF-8; rename it" in result.stderr
    assert Path("features/folder/tiny_image/manifest.json").exists()


def test_a_folder_that_cannot_be_read_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"cannot read the media folder .*nothing"):
        load(tmp_path / "nothing")


def test_a_subfolder_that_cannot_be_read_is_left_out_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root may read everything, the refusal is played."""
    touch(folder, "a.mp4", "lost+found/b.mp4")
    original = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert ids(folder) == ["a.mp4"]
    (note,) = load(folder).notes
    assert note.endswith("lost+found is left out: Permission denied")


def test_an_empty_folder_is_said_with_what_was_looked_for(avfeat: Cli, folder: Path) -> None:
    touch(folder, "notes.txt")
    result = avfeat("extract", "-b", "tiny_image", "-d", "folder", "--data", folder, code=2)
    assert "*.mp4, *.mkv" in result.stderr
