"""Published weights: found, verified, refused. The right ones or none."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from avfeat import config
from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.weights import registry
from avfeat.extract.weights.random import calibrate, smooth_items
from avfeat.extract.weights.registry import Source, WeightsEntry

CPU = torch.device("cpu")


def state_of(tiny: Any, seed: int = 3) -> dict[str, torch.Tensor]:
    net = tiny().build()
    calibrate(net, tiny(), seed=seed)
    return {**net.state_dict(), "5.weight": torch.zeros(10, 4), "5.bias": torch.zeros(10)}


def publish(tiny: Any, *sources: Source, tag: str = "v1") -> WeightsEntry:
    """Make ``tiny.<tag>`` known, with the classifier that published files carry."""
    tiny.published[tag] = WeightsEntry(
        name=f"tiny.{tag}",
        sources=sources,
        trained_on="nothing",
        licence="CC0-1.0",
        citation="none",
        drop=("5.*",),
    )
    entry: WeightsEntry = tiny.published[tag]
    return entry


def saved(state: Any, path: Path, **options: Any) -> tuple[bytes, str]:
    torch.save(state, path, **options)
    body = path.read_bytes()
    return body, hashlib.sha256(body).hexdigest()


@pytest.fixture
def served(tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path) -> WeightsEntry:
    """``tiny.v1`` on the server, known by the first eight digits of its hash."""
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    file_server.files["tiny.pth"] = body
    return publish(tiny, Source((file_server.url("tiny.pth"),), "tiny.pth", sha256[:8]))


def test_downloaded_once_verified_and_loaded(
    tiny: Any, served: WeightsEntry, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    info = backbones.resolve_weights("tiny")
    prefix = served.sources[0].sha256
    body = (tmp_path / "made.pth").read_bytes()

    assert info.path == weights_cache / "weights" / prefix / "tiny.pth"
    assert info.path.read_bytes() == body
    assert info.to_dict() == {
        "source": "published",
        "tag": "v1",
        "file": "tiny.pth",
        "sha256": hashlib.sha256(body).hexdigest(),
        "url": file_server.url("tiny.pth"),
        "licence": "CC0-1.0",
        "citation": "none",
        "seed": None,
        "method": None,
    }

    extract = backbones.load("tiny", weights="v1", device=CPU)
    net = tiny().build()
    calibrate(net, tiny(), seed=3)
    items = smooth_items(tiny.spec.input, 3)
    with torch.no_grad():
        assert torch.equal(extract(items), net(tiny().to_input(items)))
    assert file_server.requests == ["tiny.pth"]


@pytest.mark.parametrize("harm", ["flipped", "truncated", "empty"])
def test_a_damaged_cached_file_is_refused_by_name(
    served: WeightsEntry, file_server: Any, harm: str
) -> None:
    path = backbones.resolve_weights("tiny").path
    assert path is not None
    good = path.read_bytes()
    flipped = good[:900] + bytes([good[900] ^ 1]) + good[901:]
    path.write_bytes({"flipped": flipped, "truncated": good[:-7], "empty": b""}[harm])

    for action in (
        lambda: backbones.resolve_weights("tiny"),
        lambda: backbones.load("tiny", device=CPU),
    ):
        with pytest.raises(WeightsError, match=rf"{re.escape(str(path))} is not tiny\.pth"):
            action()
    assert len(file_server.requests) == 1


def test_mirrors_with_their_own_serialisation(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    state = state_of(tiny)
    _, first_sha = saved(state, tmp_path / "a.pth")
    second, second_sha = saved(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert first_sha != second_sha
    file_server.files["b.pth"] = second  # the first source's host has lost its file
    publish(
        tiny,
        Source((file_server.url("a.pth"),), "a.pth", first_sha),
        Source((file_server.url("gone"), file_server.url("b.pth")), "b.pth", second_sha),
    )
    info = backbones.resolve_weights("tiny")
    assert (info.file, info.sha256) == ("b.pth", second_sha)
    assert file_server.requests == ["a.pth", "gone", "b.pth"]
    # Once cached, the first source is not asked again; and the old file format loads too.
    backbones.load("tiny", device=CPU)
    assert file_server.requests == ["a.pth", "gone", "b.pth"]


def test_offline_says_what_to_do(tiny: Any, weights_cache: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    urls = (f"http://127.0.0.1:{port}/tiny.pth", f"http://127.0.0.1:{port}/mirror/tiny.pth")
    publish(tiny, Source(urls, "tiny.pth", "0123abcd"))

    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("tiny")

    message = str(caught.value)
    wanted = str(weights_cache / "weights" / "0123abcd" / "tiny.pth")
    for part in (*urls, wanted, "avfeat weights import tiny.v1", "--weights random", "connect"):
        assert part in message
    assert caught.value.exit_code == 2


def test_a_wrong_download_is_not_kept(tiny: Any, file_server: Any, weights_cache: Path) -> None:
    file_server.files["tiny.pth"] = b"<html>sign in to the hotel's network</html>"
    publish(tiny, Source((file_server.url("tiny.pth"),), "tiny.pth", "0123abcd"))
    with pytest.raises(WeightsError, match=r"SHA-256 is [0-9a-f]{64}, expected 0123abcd"):
        backbones.resolve_weights("tiny")
    assert not list(weights_cache.rglob("tiny.pth"))


class Bomb:
    """Pickles to a call that makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_does_not_run(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path, new_format: bool
) -> None:
    mark = tmp_path / "ran"
    body, sha256 = saved(
        {**state_of(tiny), "x": Bomb(mark)},
        tmp_path / "bomb.pth",
        _use_new_zipfile_serialization=new_format,
    )
    file_server.files["bomb.pth"] = body
    publish(tiny, Source((file_server.url("bomb.pth"),), "bomb.pth", sha256))
    with pytest.raises(WeightsError, match=r"bomb\.pth is no file of plain tensors.*mkdir"):
        backbones.load("tiny", device=CPU)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04 no archive", b"", b"some text\n" * 50, b"\x80\x02}q\x00.", bytes(99)],
    ids=["broken-zip", "empty", "text", "pickle", "zeros"],
)
def test_files_that_are_no_weights(
    tiny: Any, file_server: Any, weights_cache: Path, content: bytes
) -> None:
    file_server.files["f.pth"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    publish(tiny, Source((file_server.url("f.pth"),), "f.pth", sha256))
    with pytest.raises(WeightsError, match=r"f\.pth is no file of plain tensors"):
        backbones.load("tiny", device=CPU)


def load_from(tiny: Any, file_server: Any, tmp_path: Path, state: Any) -> backbones.Extractor:
    body, sha256 = saved(state, tmp_path / "x.pth")
    file_server.files["x.pth"] = body
    publish(tiny, Source((file_server.url("x.pth"),), "x.pth", sha256))
    return backbones.load("tiny", device=CPU)


def test_another_architecture_is_named_key_by_key(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    state = state_of(tiny)
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["1.running_var"]
    state["layer9.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_from(tiny, file_server, tmp_path, state)
    assert str(caught.value).endswith(
        "does not fit tiny.v1: it is of another architecture. 1 missing: 1.running_var; "
        "1 unexpected: layer9.weight; "
        "1 of another shape: 0.weight [4, 3, 5, 5] instead of [4, 3, 3, 3]"
    )


def test_old_files_may_lack_num_batches_tracked(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    state = state_of(tiny)
    del state["1.num_batches_tracked"]
    assert load_from(tiny, file_server, tmp_path, state).weights.source == "published"


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_only_state_dicts_are_loaded(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path, content: Any
) -> None:
    with pytest.raises(WeightsError, match="is no state dict"):
        load_from(tiny, file_server, tmp_path, content)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert config.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("AVFEAT_CACHE")
    assert config.cache_folder() == tmp_path / "x" / "avfeat"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / ".cache" / "avfeat"


def test_every_tag_has_an_entry_and_every_entry_a_tag() -> None:
    builtin = ["r2plus1d_18", "resnet152", "senet154", "vgg19_bn", "vggish"]
    tags = {f"{name}.{tag}" for name in builtin for tag in backbones.get(name).spec.weights}
    assert tags <= set(registry.entries())
    for name, entry in registry.entries().items():
        backbone, _, tag = name.partition(".")
        assert tag in backbones.get(backbone).spec.weights
        assert entry.tag == tag
        assert entry.licence and entry.citation and entry.trained_on
        for source in entry.sources:
            assert re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{56})?", source.sha256)
            # Publishers put the prefix into the name: a typing error here would show.
            assert source.sha256[:8] in source.file
            assert source.urls and all(url.endswith("/" + source.file) for url in source.urls)


def test_hash_prefixes_are_strings_in_the_file() -> None:
    raw = yaml.safe_load((Path(registry.__file__).parent / "registry.yaml").read_text())
    assert all(isinstance(s["sha256"], str) for entry in raw.values() for s in entry["sources"])


def test_random_weights_are_calibrated_and_deterministic(tiny: Any) -> None:
    states = []
    for seed in (0, 0, 1):
        net = tiny().build()
        calibrate(net, tiny(), seed=seed)
        states.append(net.state_dict())
        assert not any(module.training for module in net.modules())
        assert net[1].momentum == 0.1
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert first["1.weight"].min() >= 0.75 and first["1.weight"].max() <= 1.25
    # The statistics are those of the calibration batch, so they are not the initial 0 and 1.
    assert not torch.equal(first["1.running_mean"], torch.zeros(4))
    assert not torch.equal(first["1.running_var"], torch.ones(4))
