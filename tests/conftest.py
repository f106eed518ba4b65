"""Fixtures that every part of the tests may use."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support import Cli, Corpus, write_llp

from avfeat import datasets
from avfeat.testing.clips import AudioTrack, make_clip


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared media and annotations next to the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared next to the repository")
    return folder


@pytest.fixture(scope="session")
def llp_official(shared: Path) -> Path:
    """The folder of LLP's official annotation files."""
    folder = shared / "data" / "llp"
    if not folder.is_dir():
        pytest.skip("no LLP annotations in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def llp_dense(llp_official: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Segment labels of LLP's test split by the words of its rules, bool [1200, 10, 2, 25]."""
    media = tmp_path_factory.mktemp("media")
    manifest = datasets.get("llp").load(annotations=llp_official, data=media)
    clips = [clip for clip in manifest.clips if clip.split == "test"]
    dense = np.zeros((len(clips), 10, 2, 25), bool)
    for index, clip in enumerate(clips):
        for event in clip.events:
            row = manifest.classes.index(event.label)
            modality = ("audio", "visual").index(event.modality)
            dense[index, int(event.onset) : int(event.offset), modality, row] = True
    return dense


@pytest.fixture(scope="session")
def ffmpeg51() -> str:
    """The ffmpeg command, if it is of the release that made the published features' frames."""
    binary = shutil.which("ffmpeg")
    if binary is None:
        pytest.skip("no ffmpeg command")
    banner = subprocess.run([binary, "-version"], capture_output=True, text=True, check=True).stdout
    if re.match(r"ffmpeg version 5\.1\.", banner) is None:
        pytest.skip(f"ffmpeg is not 5.1.x: {banner.splitlines()[0]}")
    return binary


@pytest.fixture
def avfeat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The avfeat command, in an empty working folder and with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AVFEAT_DATA", raising=False)
    # Most tests are not about it, and each process takes half a second to start.
    monkeypatch.setenv("AVFEAT_EXTRACT_ISOLATE", "0")
    # Nor about this: each test would prepare its networks anew.
    monkeypatch.setenv("AVFEAT_EXTRACT_ENGINE", "torch")
    return Cli()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Ten clips of 10 s, 5 train, 2 val, 3 test, one of them (the last of train) without media."""
    folder = tmp_path_factory.mktemp("corpus")
    media, annotations = folder / "media", folder / "annotations"
    media.mkdir()
    annotations.mkdir()
    ids = [f"{'-_'[number % 2]}clipNumb{number:02d}"[:11] for number in range(10)]
    for number, media_id in enumerate(ids):
        if number != 4:
            tones = [(0.0, 10.0, 200.0 + 100 * number, 0.3)]
            make_clip(
                media / f"{media_id}.mp4",
                fps=12,
                size=(128, 96),
                audio=AudioTrack(tones, rate=16000),
                b_frames=2,
            )
    names = [f"{media_id}_{10 * n}_{10 * n + 10}" for n, media_id in enumerate(ids)]
    write_llp(annotations, train=names[:5], val=names[5:7], test=names[7:])
    return Corpus(media, annotations, tuple(names))
