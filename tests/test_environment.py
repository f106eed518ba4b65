"""pyproject.toml, constraints.txt and environment.yml say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.match(r"[A-Za-z0-9._-]+", item)[0]) for item in requirements}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().split())


def test_every_direct_dependency_is_pinned() -> None:
    assert names(DIRECT) <= CONSTRAINTS.keys()


@pytest.mark.parametrize("requirement", DIRECT)
def test_pins_satisfy_pyproject(requirement: str) -> None:
    from packaging.requirements import Requirement

    parsed = Requirement(requirement)
    assert parsed.specifier.contains(CONSTRAINTS[canonical(parsed.name)])


def test_conda_users_get_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert "ffmpeg" in conda
    lower = re.match(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert lower is not None
    assert f"python={lower[1]}.{lower[2]}" in conda
    *packages, editable = pip["pip"]
    assert editable == "-e ."
    assert pins(packages) == {name: CONSTRAINTS[name] for name in names(DIRECT)}


def test_torch_and_torchvision_are_the_pair_built_for_each_other() -> None:
    assert CONSTRAINTS["torch"] == "2.14.1"
    assert CONSTRAINTS["torchvision"] == "0.29.1"
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= set(PROJECT["dependencies"])


def test_no_addresses_in_dependency_files() -> None:
    for name in ("constraints.txt", "environment.yml", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text()


def test_the_version_is_one() -> None:
    import avfeat

    assert avfeat.__version__ == PROJECT["version"]
    assert f"## {avfeat.__version__}" in (ROOT / "CHANGELOG.md").read_text()
