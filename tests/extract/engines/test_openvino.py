"""A network that OpenVINO runs: rows, shapes, NaN, threads, and the cache of prepared networks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from avfeat.errors import EngineError
from avfeat.extract import backbones
from avfeat.extract.backbones import Backbone, Extractor, extractor
from avfeat.extract.engines import prepared, threads
from avfeat.extract.engines.identity import identify
from avfeat.extract.threads import computing_with
from avfeat.extract.weights.random import smooth_items

CPU = torch.device("cpu")


def load(batch_size: int = 4, **options: str) -> Extractor:
    options = {"weights": "random", "engine": "openvino", **options}
    return backbones.load("tiny", device=CPU, batch_size=batch_size, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _cache(weights_cache: Path, tiny: type[Backbone]) -> None:
    """Every test starts with an empty cache, and with the network `tiny`."""


@pytest.fixture
def items(tiny: type[Backbone]) -> torch.Tensor:
    return smooth_items(tiny.spec.input, 9, torch.Generator().manual_seed(1))


def networks() -> list[Path]:
    return sorted(path.parent for path in prepared.folder().glob("tiny/*/about.json"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that a network was built with its weights."""
    found: list[str] = []
    original = extractor._build

    def note(backbone: Backbone, info: object) -> torch.nn.Module:
        found.append(backbone.spec.name)
        return original(backbone, info)  # type: ignore[arg-type]

    monkeypatch.setattr(extractor, "_build", note)
    return found


def test_rows_are_torchs(items: torch.Tensor) -> None:
    rows = load()(items)
    assert (rows.dtype, tuple(rows.shape), rows.is_contiguous()) == (torch.float32, (9, 4), True)
    torch.testing.assert_close(rows, load(engine="torch")(items), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
def test_a_batch_of_any_size_has_the_rows_of_the_fixed_one(items: torch.Tensor, count: int) -> None:
    extract = load()
    rows = extract(items[:count])
    assert rows.shape == (count, 4)
    for i in range(count):
        assert torch.equal(rows[i], extract(items[i : i + 1])[0])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_what_is_not_finite_shows_in_its_row_alone(
    tiny: type[Backbone], monkeypatch: pytest.MonkeyPatch, items: torch.Tensor, engine: str
) -> None:
    extract = load(engine=engine)
    clean = extract(items[:4])
    whole = tiny.to_input

    def broken(self: Backbone, items: torch.Tensor) -> torch.Tensor:
        batch = whole(self, items)
        batch[1, 0, 5, 5] = torch.nan
        batch[2, 0, 5, 5] = torch.inf
        return batch

    monkeypatch.setattr(tiny, "to_input", broken)
    rows = extract(items[:4])
    assert rows.isfinite().all(dim=1).tolist() == [True, False, False, True]
    assert torch.equal(rows[[0, 3]], clean[[0, 3]])


def test_any_thread_may_call_and_several_at_once(items: torch.Tensor) -> None:
    extract = load()
    expected = extract(items)
    rows: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: rows.append(extract(items))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows) == 4
    assert all(torch.equal(one, expected) for one in rows)


def test_more_threads_than_there_are_cores_are_refused() -> None:
    load()  # prepared, so that torch has nothing to compute below
    most = threads.obtainable(1000)
    assert threads.obtainable(1) == 1
    with computing_with(most):
        load()
    with (
        computing_with(most + 1),
        pytest.raises(EngineError, match=rf", not {most + 1}: .*`--threads {most}` in a new"),
    ):
        load()


def test_a_prepared_network_is_used_again_without_being_built(
    items: torch.Tensor, builds: list[str]
) -> None:
    cold = load()(items)
    warm = load()(items)
    assert builds == ["tiny"]
    assert torch.equal(cold, warm)
    (folder,) = networks()
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json",
        "network.bin",
        "network.xml",
    ]


def test_what_makes_other_numbers_makes_another_network(builds: list[str]) -> None:
    for options in ({}, {"weights": "random:7"}, {"batch_size": 5}):
        load(**options)  # type: ignore[arg-type]
    assert len(networks()) == len(builds) == 3


def test_code_and_libraries_are_part_of_what_a_network_is(
    tiny: type[Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    from avfeat.extract.engines import identity

    found = identify(tiny(), batch_size=4)
    assert found is not None
    assert found["libraries"].keys() >= {"avfeat", "openvino", "torch", "torchvision", "timm"}
    assert all(len(digest) == 64 for digest in found["code"])
    monkeypatch.setattr(identity, "_own_source", lambda: "other")
    assert identify(tiny(), batch_size=4) != found


def test_classes_made_in_functions_are_prepared_each_time(
    tiny: type[Backbone], items: torch.Tensor, builds: list[str]
) -> None:
    class Local(tiny):  # type: ignore[misc,valid-type]
        pass

    assert identify(Local(), batch_size=4) is None
    rows = [
        backbones.load(Local(), weights="random", device=CPU, engine="openvino", batch_size=4)(
            items
        )
        for _ in range(2)
    ]
    assert torch.equal(*rows)
    assert len(builds) == 2
    assert networks() == []


@pytest.mark.parametrize("name", ["network.bin", "network.xml", "about.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_network_is_prepared_again(
    items: torch.Tensor,
    builds: list[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    rows = load()(items)
    (folder,) = networks()
    data = bytearray((folder / name).read_bytes())
    whole = bytes(data)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    (folder / name).write_bytes({"flipped": bytes(data), "cut": whole[:-1], "emptied": b""}[damage])
    assert torch.equal(load()(items), rows)
    assert len(builds) == 2
    assert "prepared again" in caplog.text
    load()
    assert len(builds) == 2


@pytest.mark.parametrize("name", ["network.bin", "network.xml"])
def test_a_network_that_lost_a_file_is_prepared_again(
    items: torch.Tensor, builds: list[str], name: str
) -> None:
    rows = load()(items)
    (networks()[0] / name).unlink()
    assert torch.equal(load()(items), rows)
    assert len(builds) == 2


def test_what_a_killed_process_left_is_no_obstacle(builds: list[str]) -> None:
    load()
    (folder,) = networks()
    folder.rename(folder.with_name(f"{folder.name}.part"))
    load()
    assert len(builds) == 2
    assert networks() == [folder]


def test_networks_that_nobody_asked_for_in_a_month_go_when_another_comes(
    builds: list[str],
) -> None:
    load()
    load(weights="random:1")
    for folder in networks():
        os.utime(folder / "about.json", (0, 0))
    load(weights="random:1")  # used, and so kept
    assert len(networks()) == 2
    load(weights="random:2")
    assert len(networks()) == 2
    load(weights="random:1")
    assert len(builds) == 3
    load()
    assert len(builds) == 4


def test_a_cache_that_cannot_be_written_is_done_without(
    weights_cache: Path, items: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    rows = load()(items)
    shutil.rmtree(weights_cache / "prepared")
    (weights_cache / "prepared").write_text("in the way")
    assert torch.equal(load()(items), rows)
    assert "cannot keep the prepared tiny" in caplog.text


def scale_rows(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Let OpenVINO compute something else."""
    from avfeat.extract.engines import convert

    compile_model = convert.compile_model
    monkeypatch.setattr(
        convert,
        "compile_model",
        lambda *args, **kwargs: (
            lambda inputs: [compile_model(*args, **kwargs)(inputs)[0] * np.float32(factor)]
        ),
    )


@pytest.mark.parametrize(("factor", "words"), [(1.1, "1.0e-01"), (1.002, "2.0e-03")])
def test_a_network_that_comes_out_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: type[Backbone], factor: float, words: str
) -> None:
    monkeypatch.setattr(tiny, "converts", True)
    scale_rows(monkeypatch, factor)
    with pytest.raises(EngineError, match=rf"cannot run tiny: it gives rows {words} away.*torch$"):
        load()
    assert networks() == []


def test_a_network_may_be_as_far_away_as_torch_is_from_exact_arithmetic(
    monkeypatch: pytest.MonkeyPatch, tiny: type[Backbone]
) -> None:
    """PolyNet's map is 3 % from torch's, which is as far from float64: nobody is nearer."""
    from avfeat.extract.engines import convert

    monkeypatch.setattr(tiny, "converts", True)
    scale_rows(monkeypatch, 1.03)
    monkeypatch.setattr(convert, "_rounding", lambda net, example, expected: 0.02)
    convert.convert(tiny().build(), tiny(), batch_size=2)
    monkeypatch.setattr(convert, "_rounding", lambda net, example, expected: 0.005)
    with pytest.raises(EngineError, match=r"3.0e-02 away"):
        convert.convert(tiny().build(), tiny(), batch_size=2)


PROGRAM = """
import hashlib, sys, torch
sys.path[:0] = sys.argv[1:]
import tiny
from avfeat.extract import backbones
from avfeat.extract.weights.random import smooth_items
b = backbones.get("tiny_image")
items = smooth_items(b.spec.input, 8, torch.Generator().manual_seed(1))
e = backbones.load(b, weights="random", device=torch.device("cpu"), engine="openvino")
print(hashlib.sha256(e(items).numpy().tobytes()).hexdigest())
"""


def test_processes_that_start_together_prepare_once_and_get_the_same_bytes() -> None:
    tests = str(Path(__file__).parents[2])
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, tests], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    digests = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(digests) == 1
    import tiny

    extract = backbones.load(tiny.TinyImage(), weights="random", device=CPU, engine="openvino")
    items = smooth_items(tiny.TinyImage.spec.input, 8, torch.Generator().manual_seed(1))
    own = hashlib.sha256(extract(items).numpy().tobytes()).hexdigest()
    assert digests == {f"{own}\n"}
    assert len(list(prepared.folder().glob("tiny_image/*/about.json"))) == 1
