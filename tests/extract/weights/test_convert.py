"""Conversions: made once, the same bytes, found when damaged, of no influence on the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from weightskit import flip

from avfeat import download
from avfeat.errors import WeightsError
from avfeat.extract.weights import convert
from avfeat.extract.weights.convert import check, path_of, read_converted

STORAGE = torch.arange(12.0)
STATE = {
    "z": STORAGE[:6].reshape(2, 3),
    "shared": STORAGE[:6],
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "a.num_batches_tracked": torch.tensor(3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "twice": STORAGE,
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.fixture
def original(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "x.pth"
    torch.save(STATE, path)
    return path, download.sha256_file(path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the originals that were read."""
    seen: list[Path] = []
    read = convert.read_state

    def spy(path: Path) -> dict[str, Tensor]:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(convert, "read_state", spy)
    return seen


def same(found: dict[str, Tensor]) -> None:
    assert list(found) == list(STATE)  # position tells the layers of some layouts
    for key, value in STATE.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape
        assert torch.equal(found[key], value)


def test_the_original_is_read_once(original: tuple[Path, str], reads: list[Path]) -> None:
    path, _ = original
    assert check(*original) == "none"
    for _ in range(3):
        same(read_converted(*original))
    assert reads == [path]
    assert check(*original) == "good"
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock") == [
        "x.pth",
        "x.pth.safetensors",
        "x.pth.safetensors.json",
    ]


def test_the_bytes_are_always_the_same(original: tuple[Path, str], tmp_path: Path) -> None:
    read_converted(*original)
    first = path_of(original[0]).read_bytes()
    path_of(original[0]).unlink()
    read_converted(*original)
    assert path_of(original[0]).read_bytes() == first
    about = json.loads(path_of(original[0]).with_name("x.pth.safetensors.json").read_bytes())
    assert about["source"] == original[1]


@pytest.mark.parametrize("at", [20, -3], ids=["header", "numbers"])
def test_a_flipped_bit_is_found_and_mended(
    original: tuple[Path, str], reads: list[Path], at: int
) -> None:
    read_converted(*original)
    good = path_of(original[0]).read_bytes()
    flip(path_of(original[0]), at)
    assert check(*original) == "damaged"
    same(read_converted(*original))
    assert len(reads) == 2
    assert path_of(original[0]).read_bytes() == good
    assert check(*original) == "good"


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"{}"])
def test_a_conversion_without_its_note_does_not_count(
    original: tuple[Path, str], reads: list[Path], note: bytes
) -> None:
    read_converted(*original)
    path_of(original[0]).with_name("x.pth.safetensors.json").write_bytes(note)
    same(read_converted(*original))
    assert len(reads) == 2 and check(*original) == "good"


def test_a_conversion_of_another_file_or_version_does_not_count(
    original: tuple[Path, str], reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = original
    read_converted(*original)
    torch.save({"new": torch.ones(1)}, path)
    assert list(read_converted(path, download.sha256_file(path))) == ["new"]
    monkeypatch.setattr(convert, "VERSION", convert.VERSION + 1)
    assert check(path, download.sha256_file(path)) == "none"
    read_converted(path, download.sha256_file(path))
    assert len(reads) == 3


@pytest.mark.parametrize("fault", [OSError("read-only"), convert.SafetensorError("disk full")])
def test_where_nothing_can_be_written_the_original_serves(
    original: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def refuse(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(convert, "save_file", refuse)
    same(read_converted(*original))
    assert check(*original) == "none"
    assert not list(original[0].parent.glob("*.part"))


def test_what_cannot_be_read_is_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"<html>")
    with pytest.raises(WeightsError):
        read_converted(path, download.sha256_file(path))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_safetensors_are_used_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    convert.save_file({"w": torch.ones(2)}, path)
    assert torch.equal(read_converted(path, download.sha256_file(path))["w"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
