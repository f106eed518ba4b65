"""The plugin package of CONTRIBUTING.md: written out, found by its entry point, used, checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from avfeat import open_store
from avfeat.testing import make_clip

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
Run = Callable[..., str]


def package_files() -> dict[str, str]:
    """Name and text of each code block that is introduced by a file name in backquotes."""
    text = CONTRIBUTING.read_text()
    named = re.findall(
        r"`([\w.]+\.(?:py|toml))`[^`]*?:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    return dict(named)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` would make of the package: its modules, and its metadata beside them."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in package_files().items():
        (folder / name).write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """Runs a module of python in the test's folder, where the package is installed."""
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "AVFEAT_CACHE": str(tmp_path / "cache"),
        "AVFEAT_OFFLINE": "1",
    }

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    make_clip(folder / "a.mp4", fps=8, size=(128, 96), duration=1.0)
    return folder


def test_the_example_is_a_whole_package() -> None:
    assert list(package_files()) == ["pyproject.toml", "my_backbones.py", "test_my_backbones.py"]


def test_it_is_listed(run: Run) -> None:
    listed = {
        backbone["name"]: backbone for backbone in json.loads(run("avfeat", "backbones", "--json"))
    }
    mine = listed["my_resnet18"]
    assert (mine["dim"], mine["rows_per_10s"]) == (512, 80)
    net = resnet18(weights=None)
    net.fc = torch.nn.Identity()
    assert mine["parameters"] == sum(p.numel() for p in net.parameters())
    assert len(listed) > 10  # beside avfeat's own


def test_it_extracts(run: Run, media: Path, tmp_path: Path) -> None:
    options = ("-d", "folder", "--data", media, "--weights", "random", "--device", "cpu")
    run("avfeat", "extract", "-b", "my_resnet18,my_resnet18.map.second", *options)
    rows = open_store(tmp_path / "features/folder/my_resnet18", allow_random=True)
    assert rows["a.mp4"].shape == (8, 512)
    assert rows.recipe.libraries["my-backbones"] == "1.0"
    maps = open_store(tmp_path / "features/folder/my_resnet18.map.second", allow_random=True)
    assert maps["a.mp4"].shape == (1, 7, 7, 512)
    # The one is the other's mean, over the picture and the second.
    torch.testing.assert_close(
        torch.from_numpy(maps["a.mp4"]).mean((0, 1, 2)),
        torch.from_numpy(rows["a.mp4"]).mean(0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_its_weights_are_imported_and_used(run: Run, media: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = resnet18(weights=None).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "theirs.pth")
    run("avfeat", "weights", "import", "theirs.pth", "--as", "my_resnet18")
    run("avfeat", "extract", "-b", "my_resnet18", "-d", "folder", "--data", media)
    store = open_store(tmp_path / "features/folder/my_resnet18")
    assert store.recipe.weights["tag"] == "lab_v1"
    assert store["a.mp4"].shape == (8, 512)


def test_its_own_tests_pass(run: Run, site: Path) -> None:
    output = run("pytest", "-q", "-p", "no:cacheprovider", site / "test_my_backbones.py")
    assert "2 passed" in output
