"""``avfeat weights``: list, fetch, verify, import, path."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support import Cli
from weightskit import Bomb, flip, publish, saved, state_of

from avfeat import config, open_store
from avfeat.extract import backbones
from avfeat.extract.weights import convert, manage, pins
from avfeat.extract.weights.registry import Source, WeightsEntry, compose
from avfeat.testing import make_clip


@pytest.fixture
def made(tiny: Any, avfeat: Cli, tmp_path: Path) -> tuple[Path, str]:
    """A good file outside the cache, and its SHA-256."""
    for tag in tiny.spec.weights:
        publish(tiny, Source(("http://nowhere.invalid/x",), f"{tag}.x", "md5:" + "0" * 32), tag=tag)
    path = tmp_path / "from a colleague.bin"
    _, sha256 = saved(state_of(tiny), path)
    return path, sha256


@pytest.fixture
def entry(tiny: Any, file_server: Any, made: tuple[Path, str]) -> WeightsEntry:
    """``tiny.v1``, served."""
    file_server.files["tiny.pth"] = made[0].read_bytes()
    source = Source((file_server.url("tiny.pth"),), "tiny.pth", f"sha256:{made[1][:8]}", 0.5)
    return publish(tiny, source)


def files() -> list[str]:
    """What the cache holds, but locks."""
    folder = config.cache_folder() / "weights"
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_every_subcommand_has_help_with_examples(avfeat: Cli) -> None:
    assert "AVFEAT_OFFLINE" in avfeat("weights", "--help").stdout
    for command in ("list", "fetch", "verify", "import", "path"):
        text = avfeat("weights", command, "--help").stdout
        assert f"  avfeat weights {command}" in text and "--json" in text


def test_list(tiny: Any, avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]) -> None:
    text = avfeat("weights", "list").stdout
    assert "resnet152.tv_in1k_v1" in text and "sha256:394f9c45" in text
    records = {r["name"]: r for r in json.loads(avfeat("weights", "list", "--json").stdout)}
    assert set(records) == set(manage.entries())
    assert records["tiny.v1"] == {
        "name": "tiny.v1",
        "licence": "CC0-1.0",
        "trained_on": "nothing",
        "citation": "none",
        "parts": {},
        "size_mib": 0.5,
        "estimated_mib": round(tiny.spec.parameters * 4 / 2**20, 3),
        "sources": [
            {
                "file": "tiny.pth",
                "urls": list(entry.sources[0].urls),
                "digest": entry.sources[0].digest,
                "size_mib": 0.5,
            }
        ],
        "cached": False,
        "problems": [],
    }
    assert records["i3d.pgi3d"]["parts"] == {"rgb": "i3d_rgb.pgi3d", "flow": "i3d_flow.pgi3d"}
    avfeat("weights", "fetch", "tiny")
    listed = json.loads(avfeat("weights", "list", "--json").stdout)
    assert [r["name"] for r in listed if r["cached"]] == ["tiny.v1"]


def test_list_has_the_models_of_libraries_that_are_in_the_cache(
    avfeat: Cli, made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        return {r["name"] for r in json.loads(avfeat("weights", "list", "--json").stdout)}

    before = names()
    name = "timm:test_resnet.r160_in1k"
    sources = backbones.get(name).weights_entry("r160_in1k").sources
    place = config.cache_folder() / "weights" / made[1] / sources[0].file
    for weights in (name, "timm:gone.v1", "a:b", "elsewhere.v1"):
        pins.write(
            pins.Pin(weights, sources[0].file, "", made[1], 1, f"{made[1]}/{sources[0].file}")
        )
    assert names() == before  # of one that was deleted, only the pin is left
    place.parent.mkdir(parents=True)
    shutil.copy(made[0], place)
    assert names() == before | {name}
    assert name in avfeat("weights", "list").stdout


@pytest.mark.parametrize("content", ["{", "", "[]"])
def test_a_damaged_pin_stops_no_listing(
    avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str], content: str
) -> None:
    """One file among many; what uses its weights is stopped."""
    avfeat("weights", "fetch", "tiny")
    pin = pins.path_of("tiny.v1", "tiny.pth")
    pin.write_text(content)
    refused = [f"{pin} is damaged; delete it to pin the file anew"]
    for command in (("weights", "list"), ("backbones",), ("backbones", "show", "tiny")):
        avfeat(*command)
    records = {r["name"]: r for r in json.loads(avfeat("weights", "list", "--json").stdout)}
    assert not records["tiny.v1"]["cached"]
    assert records["tiny.v1"]["problems"] == refused
    assert str(pin) in avfeat("weights", "list").stdout
    assert str(pin) in avfeat("weights", "fetch", "tiny", code=2).stderr
    avfeat("weights", "verify", code=4)
    pin.unlink()
    avfeat("weights", "path", "tiny")
    pin.unlink(missing_ok=True)
    pin.mkdir()
    records = {r["name"]: r for r in json.loads(avfeat("weights", "list", "--json").stdout)}
    assert f"cannot read {pin}" in records["tiny.v1"]["problems"][0]


@pytest.mark.parametrize("name", ["tiny", "tiny.v1"])
def test_fetch_prints_path_and_hash(
    avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str], name: str
) -> None:
    result = avfeat("weights", "fetch", name)
    path = config.cache_folder() / "weights" / made[1][:8] / "tiny.pth"
    assert result.stdout == f"tiny.v1  {made[1]}  {path}\n"
    assert "fetching the weights of tiny.v1" in result.stderr
    result = avfeat("weights", "fetch", name, "--json", "-q")
    assert json.loads(result.stdout) == [{"name": "tiny.v1", "path": str(path), "sha256": made[1]}]
    assert result.stderr == ""


def test_fetch_goes_on_where_one_fails(
    tiny: Any, avfeat: Cli, entry: WeightsEntry, file_server: Any, made: tuple[Path, str]
) -> None:
    publish(tiny, Source((file_server.url("gone"),), "gone", "md5:" + "0" * 32), tag="v2")
    result = avfeat("weights", "fetch", "tiny.v2", "tiny.v1", code=2)
    assert "HTTP 404" in result.stderr and file_server.url("gone") in result.stderr
    assert result.stdout.startswith("tiny.v1  ")
    records = json.loads(avfeat("weights", "fetch", "tiny.v2", "tiny", "--json", code=2).stdout)
    assert ["error" in record for record in records] == [True, False]


def test_fetch_says_why_by_its_exit_code(
    avfeat: Cli, entry: WeightsEntry, weights_cache: Path
) -> None:
    """A cache that cannot be written is another matter than weights that cannot be had."""
    weights_cache.write_text("no folder")
    result = avfeat("weights", "fetch", "tiny", code=1)
    assert f"cannot write {weights_cache}" in result.stderr


def test_fetch_of_unknown_names_fetches_nothing(
    avfeat: Cli, entry: WeightsEntry, file_server: Any
) -> None:
    result = avfeat("weights", "fetch", "tiny", "resnet125", code=2)
    assert "unknown weights 'resnet125'. Did you mean 'resnet152'?" in result.stderr
    result = avfeat("weights", "fetch", "resnet152.tv_in1k_v9", code=2)
    assert "Did you mean 'tv_in1k_v1'?" in result.stderr
    assert file_server.requests == []


def test_fetch_all_is_everything_that_has_files() -> None:
    names = [entry.name for entry in manage.select(["all"])]
    assert names == [name for name, entry in manage.entries().items() if not entry.parts]
    assert "vggish.audioset_pca" in names and "i3d.pgi3d" not in names
    assert [e.name for e in manage.select(["vggish", "vggish.audioset"])] == ["vggish.audioset"]


def test_names_of_variants_mean_their_weights() -> None:
    for name, weights in {
        "resnet152": "resnet152.tv_in1k_v1",
        "openl3.music": "openl3.v0_4_0_mel256_music",
        "openl3.linear.6144": "openl3.v0_4_0_linear_env",
        "vggish.audioset_pca8": "vggish.audioset_pca8",
        "vggish.audioset_pca": "vggish.audioset_pca",
        "i3d": "i3d.pgi3d",
    }.items():
        assert manage.resolve(name).name == weights


def test_offline(
    avfeat: Cli, entry: WeightsEntry, file_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVFEAT_OFFLINE", "1")
    result = avfeat("weights", "fetch", "tiny", code=2)
    for part in ("AVFEAT_OFFLINE is set", "tiny.pth", "weights import FILE --as tiny.v1"):
        assert part in result.stderr
    assert file_server.requests == []


def test_path(avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]) -> None:
    result = avfeat("weights", "path", "tiny", code=2)
    assert result.stdout == ""
    assert "`avfeat weights fetch tiny.v1` downloads them" in result.stderr
    avfeat("weights", "fetch", "tiny")
    path = config.cache_folder() / "weights" / made[1][:8] / "tiny.pth"
    assert avfeat("weights", "path", "tiny").stdout == f"{path}\n"
    assert json.loads(avfeat("weights", "path", "tiny.v1", "--json").stdout) == [str(path)]
    flip(path)
    assert "is not tiny.pth of tiny.v1" in avfeat("weights", "path", "tiny", code=2).stderr


def verified(avfeat: Cli, code: int = 0) -> dict[str, str]:
    records = json.loads(avfeat("weights", "verify", "--json", code=code).stdout)
    return {Path(record["path"]).name: record["status"] for record in records}


def test_verify(avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]) -> None:
    assert verified(avfeat) == {}
    weights = backbones.load("tiny", device=torch.device("cpu")).weights
    assert weights.path is not None
    names = ["tiny.pth", "tiny.pth.safetensors"]
    assert verified(avfeat) == dict.fromkeys(names, "ok")
    assert avfeat("weights", "verify").stdout == "2 ok\n"

    flip(convert.path_of(weights.path), -3)
    assert verified(avfeat, code=4) == dict(zip(names, ("ok", "damaged"), strict=True))
    backbones.load("tiny", device=torch.device("cpu"))
    assert verified(avfeat) == dict.fromkeys(names, "ok")

    flip(weights.path)
    assert verified(avfeat, code=4) == {"tiny.pth": "damaged"}
    text = avfeat("weights", "verify", code=4).stdout
    assert str(weights.path) in text and "avfeat weights fetch tiny.v1" in text
    assert f"expected {made[1]}" in text  # in full: it was pinned

    # As the message says.
    weights.path.unlink()
    avfeat("weights", "fetch", "tiny.v1")
    assert verified(avfeat) == dict.fromkeys(names, "ok")


def test_a_download_that_broke_off_is_said_to(
    avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]
) -> None:
    avfeat("weights", "fetch", "tiny")
    path = Path(avfeat("weights", "path", "tiny").stdout.strip())
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:100])
    words = f"100 of {size} bytes: the download broke off; delete it"
    assert words in avfeat("weights", "path", "tiny", code=2).stderr
    assert words in avfeat("weights", "verify", code=4).stdout
    message = avfeat("weights", "import", path, "--as", "tiny", code=2).stderr
    assert f"100 of {size} bytes: the download broke off, or it is another file" in message


def test_an_unknown_option_is_told_of_as_extract_does(avfeat: Cli) -> None:
    message = avfeat("weights", "path", "openl3.musik", code=2).stderr
    assert "unknown option of openl3 'musik'. Did you mean 'music'?" in message


def test_verify_judges_files_put_there_by_hand(
    avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]
) -> None:
    folder = config.cache_folder() / "weights" / made[1][:8]
    folder.mkdir(parents=True)
    shutil.copy(made[0], folder / "tiny.pth")
    assert verified(avfeat) == {"tiny.pth": "ok"}
    flip(folder / "tiny.pth")
    assert verified(avfeat, code=4) == {"tiny.pth": "damaged"}
    (folder / "tiny.pth").rename(folder / "what.pth")
    (folder / "tiny.pth.part").write_bytes(b"half")
    assert verified(avfeat) == {"what.pth": "unknown"}


def test_verify_knows_the_files_of_backbones_that_are_not_listed(
    avfeat: Cli, entry: WeightsEntry
) -> None:
    """Such as timm's, by their pins."""
    avfeat("weights", "fetch", "tiny")
    backbones.unregister("tiny")
    assert verified(avfeat) == {"tiny.pth": "ok"}
    pin = pins.path_of("tiny.v1", "tiny.pth")
    pin.write_bytes(pin.read_bytes()[:40])
    assert verified(avfeat, code=4) == {"tiny.pth.json": "damaged", "tiny.pth": "unknown"}


def test_import_of_a_good_file(
    avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str], file_server: Any
) -> None:
    result = avfeat("weights", "import", made[0], "--as", "tiny")
    path = config.cache_folder() / "weights" / made[1][:8] / "tiny.pth"
    assert result.stdout == f"tiny  {made[1]}  {path}\n"
    assert path.read_bytes() == made[0].read_bytes()
    assert files() == [f"{made[1][:8]}/tiny.pth", "pins/tiny.v1/tiny.pth.json"]
    extract = backbones.load("tiny", device=torch.device("cpu"))
    assert extract.weights.sha256 == made[1]
    assert file_server.requests == []
    document = json.loads(avfeat("weights", "import", made[0], "--as", "tiny.v1", "--json").stdout)
    assert document == {"name": "tiny.v1", "path": str(path), "sha256": made[1]}


def test_import_as_any_of_the_sources(
    tiny: Any, avfeat: Cli, made: tuple[Path, str], tmp_path: Path
) -> None:
    second = tmp_path / "second"
    _, sha256 = saved(state_of(tiny), second, _use_new_zipfile_serialization=False)
    publish(
        tiny,
        Source(("http://nowhere.invalid/a.pth",), "a.pth", f"sha256:{made[1]}"),
        Source(("http://nowhere.invalid/b.pth",), "b.pth", f"sha256:{sha256}"),
    )
    avfeat("weights", "import", second, "--as", "tiny")
    assert avfeat("weights", "path", "tiny").stdout.strip().endswith(f"{sha256}/b.pth")


@pytest.mark.parametrize("harm", ["flipped", "truncated", "empty", "other"])
def test_import_of_a_wrong_file(
    tiny: Any, avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str], harm: str
) -> None:
    path, sha256 = made
    body = path.read_bytes()
    if harm == "flipped":
        flip(path)
    elif harm == "other":
        saved(state_of(tiny, seed=9), path)
    else:
        path.write_bytes(body[:-7] if harm == "truncated" else b"")
    message = avfeat("weights", "import", path, "--as", "tiny", code=2).stderr
    assert f"({path.stat().st_size} bytes) is not tiny.v1:" in message
    assert re.search(
        rf"not tiny\.pth: its SHA-256 is [0-9a-f]{{64}}, expected to begin with {sha256[:8]}",
        message,
    )
    assert files() == []


def test_import_of_another_architecture(
    tiny: Any, avfeat: Cli, made: tuple[Path, str], tmp_path: Path
) -> None:
    """Even under the right hash, or where none is published."""
    state = state_of(tiny)
    state["layer9.weight"] = state.pop("0.weight")
    for digest in (True, False):
        _, sha256 = saved(state, tmp_path / "x")
        source = Source(("http://nowhere.invalid/x",), "x", f"sha256:{sha256}" if digest else None)
        publish(tiny, source)
        message = avfeat("weights", "import", tmp_path / "x", "--as", "tiny", code=2).stderr
        assert "1 missing: 0.weight; 1 unexpected: layer9.weight" in message
        assert files() == []


def test_import_runs_no_code(
    tiny: Any, avfeat: Cli, made: tuple[Path, str], tmp_path: Path
) -> None:
    saved({**state_of(tiny), "x": Bomb(tmp_path / "ran")}, tmp_path / "x")
    publish(tiny, Source(("http://nowhere.invalid/x",), "x"))
    message = avfeat("weights", "import", tmp_path / "x", "--as", "tiny", code=2).stderr
    assert "holds more than plain tensors" in message
    assert not (tmp_path / "ran").exists() and files() == []


def test_import_pins_what_has_no_digest(
    tiny: Any, avfeat: Cli, made: tuple[Path, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    publish(tiny, Source(("http://nowhere.invalid/x",), "x"))
    avfeat("weights", "import", made[0], "--as", "tiny")
    assert files() == [f"{made[1]}/x", "pins/tiny.v1/x.json"]
    assert made[1] in caplog.text
    saved(state_of(tiny, seed=9), tmp_path / "other")
    message = avfeat("weights", "import", tmp_path / "other", "--as", "tiny", code=2).stderr
    assert f"expected {made[1]}" in message
    assert avfeat("weights", "path", "tiny").stdout.strip().endswith(f"{made[1]}/x")


def test_import_lets_nothing_in_for_a_mirror_of_unknown_digest(
    tiny: Any, avfeat: Cli, file_server: Any, made: tuple[Path, str], tmp_path: Path
) -> None:
    """Or weights of another training, which fit, would be taken for its file."""
    save_file(state_of(tiny, seed=9), tmp_path / "model.safetensors")
    other = tmp_path / "model.safetensors"
    publish(
        tiny,
        Source((file_server.url("tiny.pth"),), "tiny.pth", f"sha256:{made[1]}"),
        Source((file_server.url("model.safetensors"),), "model.safetensors"),
    )
    message = avfeat("weights", "import", other, "--as", "tiny", code=2).stderr
    assert f"its SHA-256 is {hashlib.sha256(other.read_bytes()).hexdigest()}" in message
    assert "not to be told from model.safetensors, which has no known digest" in message
    assert files() == []

    # What came from there itself is known by its pin.
    file_server.files["model.safetensors"] = other.read_bytes()
    avfeat("weights", "fetch", "tiny")
    path = Path(avfeat("weights", "path", "tiny").stdout.strip())
    path.unlink()
    avfeat("weights", "import", other, "--as", "tiny")
    assert path.read_bytes() == other.read_bytes()


def test_import_of_what_is_put_together(
    tiny: Any, avfeat: Cli, entry: WeightsEntry, made: tuple[Path, str]
) -> None:
    tiny.published["v2"] = compose("tiny.v2", {"a": entry, "b": entry})
    message = avfeat("weights", "import", made[0], "--as", "tiny.v2", code=2).stderr
    assert "import each: --as tiny.v1, --as tiny.v1" in message


def test_import_of_nothing(avfeat: Cli, made: tuple[Path, str]) -> None:
    result = avfeat("weights", "import", made[0], "--as", "resnet125", code=2)
    assert "Did you mean 'resnet152'?" in result.stderr
    assert "does not exist" in avfeat("weights", "import", "no", "--as", "tiny", code=2).stderr
    assert "Missing option '--as'" in avfeat("weights", "import", made[0], code=2).stderr
    assert "is a directory" in avfeat("weights", "import", ".", "--as", "tiny", code=2).stderr


def test_a_store_goes_on_whichever_mirror_served(
    tiny: Any, avfeat: Cli, file_server: Any, made: tuple[Path, str], tmp_path: Path
) -> None:
    """Rows depend on the tensors; files of other bytes that hold the same make one recipe."""
    media = tmp_path / "videos"
    media.mkdir()
    make_clip(media / "a.mp4", fps=8, size=(160, 120), duration=1.0)
    state = state_of(tiny)
    plain = {k: v for k, v in state.items() if not k.startswith("5.")}
    save_file(plain, tmp_path / "model.safetensors")
    file_server.files["a.pth"] = made[0].read_bytes()
    file_server.files["b.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
    file_server.files["c.pth"] = saved(state_of(tiny, seed=4), tmp_path / "c.pth")[0]
    run = ("extract", "-b", "tiny", "-d", "folder", "--data", media, "--device", "cpu")
    fingerprints = []
    for number, file in enumerate(("a.pth", "b.safetensors")):
        shutil.rmtree(config.cache_folder() / "weights", ignore_errors=True)
        publish(tiny, Source((file_server.url(file),), file))
        avfeat(*run)
        store = open_store("features/folder/tiny")
        assert len(store.ids()) == number + 1
        fingerprints.append(store.fingerprint)
        shutil.copy(media / "a.mp4", media / "b.mp4")
    assert fingerprints[0] == fingerprints[1]
    assert torch.equal(torch.from_numpy(store["a.mp4"]), torch.from_numpy(store["b.mp4"]))

    shutil.rmtree(config.cache_folder() / "weights")
    publish(tiny, Source((file_server.url("c.pth"),), "c.pth"))
    assert "weights.sha256" in avfeat(*run, code=2).stderr


def test_backbones_without_published_weights(avfeat: Cli) -> None:

    result = avfeat("weights", "fetch", "tiny_image", code=2)
    assert "backbone 'tiny_image' has no published weights" in result.stderr
