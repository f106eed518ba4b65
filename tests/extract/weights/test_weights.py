"""Published weights: found, verified, refused. The right ones or none."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weightskit import CPU, Bomb, flip, keras, publish, saved, state_of

from avfeat import config
from avfeat.errors import WeightsError
from avfeat.extract import backbones
from avfeat.extract.weights import cache, convert, manage, pins, registry
from avfeat.extract.weights.info import WeightsInfo
from avfeat.extract.weights.random import calibrate, smooth_items
from avfeat.extract.weights.registry import Source, WeightsEntry


@pytest.fixture
def served(tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path) -> WeightsEntry:
    """``tiny.v1`` on the server, known by the first eight digits of its hash."""
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    file_server.files["tiny.pth"] = body
    return publish(tiny, Source((file_server.url("tiny.pth"),), "tiny.pth", f"sha256:{sha256[:8]}"))


def test_downloaded_once_verified_and_loaded(
    tiny: Any, served: WeightsEntry, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    info = backbones.resolve_weights("tiny")
    prefix = str(served.sources[0].digest).removeprefix("sha256:")
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
        "tensors": info.tensors,
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
        Source((file_server.url("a.pth"),), "a.pth", f"sha256:{first_sha}"),
        Source(
            (file_server.url("gone"), file_server.url("b.pth")), "b.pth", f"sha256:{second_sha}"
        ),
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
    publish(tiny, Source(urls, "tiny.pth", "sha256:0123abcd"))

    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("tiny")

    message = str(caught.value)
    wanted = str(weights_cache / "weights" / "0123abcd" / "tiny.pth")
    for part in (
        *urls,
        wanted,
        "avfeat weights import FILE --as tiny.v1",
        "--weights random",
        "connect",
    ):
        assert part in message
    assert caught.value.exit_code == 2


def test_a_wrong_download_is_not_kept(tiny: Any, file_server: Any, weights_cache: Path) -> None:
    file_server.files["tiny.pth"] = b"<html>sign in to the hotel's network</html>"
    publish(tiny, Source((file_server.url("tiny.pth"),), "tiny.pth", "sha256:0123abcd"))
    with pytest.raises(
        WeightsError, match=r"SHA-256 is [0-9a-f]{64}, expected to begin with 0123abcd"
    ):
        backbones.resolve_weights("tiny")
    assert not list(weights_cache.rglob("tiny.pth"))


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
    publish(tiny, Source((file_server.url("bomb.pth"),), "bomb.pth", f"sha256:{sha256}"))
    with pytest.raises(WeightsError, match=r"bomb\.pth holds more than plain tensors.*mkdir"):
        backbones.load("tiny", device=CPU)
    assert not mark.exists()


def load_from(tiny: Any, file_server: Any, tmp_path: Path, state: Any) -> backbones.Extractor:
    body, sha256 = saved(state, tmp_path / "x.pth")
    file_server.files["x.pth"] = body
    publish(tiny, Source((file_server.url("x.pth"),), "x.pth", f"sha256:{sha256}"))
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


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVFEAT_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert config.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("AVFEAT_CACHE")
    assert config.cache_folder() == tmp_path / "x" / "avfeat"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / ".cache" / "avfeat"


def test_what_from_published_cannot_do_is_said_of_the_file(
    tiny: Any, served: WeightsEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in (KeyError("features.0"), WeightsError("array 3 is a bias"), RuntimeError("shape")):

        def fail(self: Any, state: Any, fault: Exception = fault) -> Any:
            raise fault

        monkeypatch.setattr(tiny, "from_published", fail)
        words = r"tiny\.pth does not fit tiny\.v1: it is of another architecture\. "
        with pytest.raises(WeightsError, match=words + re.escape(str(fault))):
            backbones.load("tiny", device=CPU)


def test_keras_weights_come_in_the_order_of_the_file(
    tiny: Any,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By way of a conversion too, whose format sorts its names."""
    state = state_of(tiny)
    layers = {
        "zz": {"kernel:0": state["0.weight"].permute(2, 3, 1, 0).contiguous()},
        "aa": {"gamma:0": state["1.weight"], "beta:0": state["1.bias"]}
        | {"moving_mean:0": state["1.running_mean"], "moving_variance:0": state["1.running_var"]},
    }
    path = keras(tmp_path / "tiny.h5", layers)
    file_server.files["tiny.h5"] = path.read_bytes()
    publish(tiny, Source((file_server.url("tiny.h5"),), "tiny.h5"))
    keys = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]

    def by_position(self: Any, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = dict(zip(keys, found.values(), strict=True))
        return {**renamed, "0.weight": renamed["0.weight"].permute(3, 2, 0, 1)}

    monkeypatch.setattr(tiny, "from_published", by_position)
    items = smooth_items(tiny.spec.input, 3)
    net = tiny().build()
    calibrate(net, tiny(), seed=3)
    for _ in range(2):
        with torch.no_grad():
            expected = net(tiny().to_input(items))
        assert torch.equal(backbones.load("tiny", device=CPU)(items), expected)


def test_a_damaged_conversion_changes_nothing(tiny: Any, served: WeightsEntry) -> None:
    items = smooth_items(tiny.spec.input, 3)
    first = backbones.load("tiny", device=CPU)
    conversion = convert.path_of(first.weights.path)
    assert conversion.exists()
    flip(conversion, -5)
    again = backbones.load("tiny", device=CPU)
    assert torch.equal(first(items), again(items))
    assert again.weights == first.weights
    assert convert.check(first.weights.path, first.weights.sha256) == "good"


def unstated(tiny: Any, file_server: Any, body: bytes) -> WeightsEntry:
    """``tiny.v1`` of a publisher who states no digest."""
    file_server.files["model.bin"] = body
    return publish(tiny, Source((file_server.url("model.bin"),), "model.bin"))


def test_a_file_of_unknown_hash_is_pinned_and_its_hash_shown(
    tiny: Any,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    entry = unstated(tiny, file_server, body)
    assert cache.path_of(entry, entry.sources[0]) is None and not cache.is_cached(entry)

    info = backbones.resolve_weights("tiny")
    assert info.path == weights_cache / "weights" / sha256 / "model.bin"
    assert (info.sha256, info.path.read_bytes()) == (sha256, body)
    assert cache.path_of(entry, entry.sources[0]) == info.path and cache.is_cached(entry)
    (message,) = caplog.messages
    assert sha256 in message and "tiny.v1" in message and "pinned" in message
    pin = json.loads((weights_cache / "weights/pins/tiny.v1/model.bin.json").read_bytes())
    assert pin == {
        "weights": "tiny.v1",
        "file": "model.bin",
        "url": file_server.url("model.bin"),
        "sha256": sha256,
        "size": len(body),
        "place": f"{sha256}/model.bin",
    }
    # Later uses say nothing and fetch nothing.
    assert backbones.resolve_weights("tiny") == info
    assert len(caplog.messages) == len(file_server.requests) == 1


def test_a_pinned_file_is_never_replaced_by_another(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    entry = unstated(tiny, file_server, body)
    path = backbones.resolve_weights("tiny").path
    assert path is not None
    other, other_sha256 = saved(state_of(tiny, seed=4), tmp_path / "other.pth")

    path.write_bytes(other)
    with pytest.raises(WeightsError, match=f"its SHA-256 is {other_sha256}, expected {sha256}"):
        backbones.resolve_weights("tiny")

    path.unlink()
    file_server.files["model.bin"] = other  # the publisher has changed it
    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("tiny")
    pin = pins.path_of("tiny.v1", "model.bin")
    for part in (other_sha256, sha256, str(pin)):
        assert part in str(caught.value)
    assert not path.exists()

    pin.unlink()  # as the message says
    assert backbones.resolve_weights("tiny").sha256 == other_sha256
    assert cache.is_cached(entry)


def test_a_prefix_is_followed_by_the_full_hash(tiny: Any, served: WeightsEntry) -> None:
    """A file that differs only beyond the published digits is found once it is pinned."""
    info = backbones.resolve_weights("tiny")
    pin = pins.read("tiny.v1", "tiny.pth")
    assert pin is not None and pin.sha256 == info.sha256
    pins.write(replace(pin, sha256=pin.sha256[:8] + "0" * 56))
    with pytest.raises(WeightsError, match=f"expected {pin.sha256[:8]}{'0' * 56}"):
        backbones.resolve_weights("tiny")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sha256": 3}', b"null"])
def test_a_damaged_pin_is_named(tiny: Any, served: WeightsEntry, content: bytes) -> None:
    backbones.resolve_weights("tiny")
    path = pins.path_of("tiny.v1", "tiny.pth")
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{re.escape(str(path))} is damaged; delete it"):
        backbones.resolve_weights("tiny")


def test_a_sign_in_page_is_not_pinned(tiny: Any, file_server: Any, weights_cache: Path) -> None:
    unstated(tiny, file_server, b"<html>sign in to the hotel's network</html>")
    with pytest.raises(WeightsError, match="is cut off or no weights file"):
        backbones.resolve_weights("tiny")
    assert pins.read("tiny.v1", "model.bin") is None
    assert not list(weights_cache.rglob("model.bin"))


def test_mirrors_are_tried_in_order_where_no_digest_is_known(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    """A page that one of them serves instead is no reason to stop, and is its fault alone."""
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    page = b"<html>sign in to the hotel's network</html>"
    file_server.files.update({"page/model.bin": page, "good/model.bin": body})
    dead = "http://127.0.0.1:1/model.bin"
    page_url, good_url = (file_server.url(f"{name}/model.bin") for name in ("page", "good"))

    publish(tiny, Source((dead, page_url), "model.bin"))
    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("tiny")
    lines = {line.split(": ")[0].strip(): line for line in str(caught.value).splitlines()}
    assert "cannot connect" in lines[dead] and "plain tensors" not in lines[dead]
    assert "is cut off or no weights file" in lines[page_url]
    assert pins.read("tiny.v1", "model.bin") is None
    assert not [path for path in weights_cache.rglob("model.bin*") if path.suffix != ".lock"]

    publish(tiny, Source((dead, page_url, good_url), "model.bin"))
    assert backbones.resolve_weights("tiny").sha256 == sha256
    assert file_server.requests == ["page/model.bin", "page/model.bin", "good/model.bin"]


def test_other_files_of_the_same_tensors_are_one_recipe(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path
) -> None:
    """Saved anew, in another order, without counter and classifier: the network gets the same."""
    state = state_of(tiny)
    plain = {k: v for k, v in reversed(state.items()) if not k.startswith("5.")}
    del plain["1.num_batches_tracked"]
    other = {**state, "1.bias": state["1.bias"].nextafter(torch.tensor(9.0))}
    swapped = {**state, "1.bias": state["1.weight"], "1.weight": state["1.bias"]}
    infos = []
    for number, one in enumerate((state, plain, other, swapped)):
        if one is plain:
            save_file(plain, tmp_path / "x")
            body = (tmp_path / "x").read_bytes()
        else:
            body, _ = saved(one, tmp_path / "x")
        file_server.files[f"{number}"] = body
        publish(tiny, Source((file_server.url(f"{number}"),), f"{number}"))
        infos.append(backbones.resolve_weights("tiny"))
        assert backbones.peek_weights(tiny(), tiny.published["v1"]) == infos[-1]
    assert len({info.sha256 for info in infos}) == 4
    first, second, *others = (info.tensors for info in infos)
    assert first == second
    assert len({first, *others}) == 3
    assert first is not None and re.fullmatch("[0-9a-f]{64}", first)


@pytest.mark.parametrize("precise", [False, True], ids=["as-read", "by-conversion"])
@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.float16, "float16"), (torch.int32, "int32"), (torch.float64, "float64")],
)
def test_another_type_is_named_key_by_key(
    tiny: Any,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    dtype: torch.dtype,
    word: str,
    precise: bool,
) -> None:
    """Loading would cast without a word, and round what is not there any more."""
    state = {key: value.to(dtype) for key, value in state_of(tiny).items()}
    state["1.num_batches_tracked"] = torch.tensor(7, dtype=torch.int32)
    for _ in range(1 + precise):
        with pytest.raises(WeightsError) as caught:
            load_from(tiny, file_server, tmp_path, state)
    assert str(caught.value).endswith(
        f"does not fit tiny.v1: 5 of another type: 0.weight {word} instead of float32, "
        f"1.weight {word} instead of float32, 1.bias {word} instead of float32, …"
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_counters_are_of_any_integers(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {**state_of(tiny), "1.num_batches_tracked": torch.tensor(7, dtype=dtype)}
    assert load_from(tiny, file_server, tmp_path, state).weights.source == "published"


@pytest.mark.parametrize(
    ("dtype", "word"), [(torch.float32, "float32"), (torch.bool, "bool")], ids=str
)
def test_counters_are_no_other_numbers(
    tiny: Any,
    file_server: Any,
    weights_cache: Path,
    tmp_path: Path,
    dtype: torch.dtype,
    word: str,
) -> None:
    state = {**state_of(tiny), "1.num_batches_tracked": torch.tensor(7, dtype=dtype)}
    with pytest.raises(WeightsError, match=rf"1 of another type: 1\.num_batches_tracked {word} "):
        load_from(tiny, file_server, tmp_path, state)


@pytest.mark.parametrize("kind", ["md5", "sha1", "git-blob"])
def test_digests_of_other_kinds(
    tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path, kind: str
) -> None:
    body, sha256 = saved(state_of(tiny), tmp_path / "made.pth")
    hashed = (b"blob %d\0" % len(body) if kind == "git-blob" else b"") + body
    value = hashlib.new("md5" if kind == "md5" else "sha1", hashed).hexdigest()
    file_server.files["tiny.pth"] = body
    publish(tiny, Source((file_server.url("tiny.pth"),), "tiny.pth", f"{kind}:{value}"))
    info = backbones.resolve_weights("tiny")
    assert info.path == weights_cache / "weights" / value / "tiny.pth"
    assert info.sha256 == sha256
    assert pins.read("tiny.v1", "tiny.pth").sha256 == sha256  # type: ignore[union-attr]


def test_a_cache_that_cannot_be_written_serves(
    tiny: Any, served: WeightsEntry, weights_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = backbones.resolve_weights("tiny").path
    pins.path_of("tiny.v1", "tiny.pth").unlink()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("read-only")

    for name in ("mkdir", "write_text", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(convert, "_write", refuse)
    assert backbones.load("tiny", device=CPU).weights.path == path


@pytest.mark.parametrize("digest", [True, False], ids=["stated", "unstated"])
def test_eight_processes_download_once(
    file_server: Any, weights_cache: Path, tmp_path: Path, digest: bool
) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "made")
    body = (tmp_path / "made").read_bytes()
    sha256 = hashlib.sha256(body).hexdigest()

    def slowly(handler: Any) -> None:
        time.sleep(1)  # so that the others come to wait
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    file_server.files["model"] = slowly
    code = (
        "import sys; from avfeat.extract.weights import cache; "
        "from avfeat.extract.weights.registry import Source, WeightsEntry; "
        "source = Source((sys.argv[1],), 'model', sys.argv[2] or None); "
        "print(cache.obtain(WeightsEntry('x.y', (source,), '', '', '')).sha256)"
    )
    arguments = [file_server.url("model"), f"sha256:{sha256[:8]}" if digest else ""]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    assert [process.communicate()[0].decode().strip() for process in processes] == [sha256] * 8
    assert file_server.requests == ["model"]


def test_offline_uses_what_is_there(
    tiny: Any, served: WeightsEntry, file_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("tiny")
    for part in ("HF_HUB_OFFLINE is set", "avfeat weights import FILE --as tiny.v1"):
        assert part in str(caught.value)
    assert file_server.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    info = backbones.resolve_weights("tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert backbones.load("tiny", device=CPU).weights == info
    assert len(file_server.requests) == 1


def test_offline_with_no_digest_says_as_much(
    tiny: Any, file_server: Any, monkeypatch: pytest.MonkeyPatch, weights_cache: Path
) -> None:
    monkeypatch.setenv("AVFEAT_OFFLINE", "1")
    unstated(tiny, file_server, b"")
    with pytest.raises(WeightsError, match=r"(?s)AVFEAT_OFFLINE is set.*weights import FILE --as"):
        backbones.resolve_weights("tiny")
    assert file_server.requests == []
    assert not weights_cache.exists()


class Pair(nn.Module):
    """Two networks side by side."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.left(batch), self.right(batch)], dim=1)


@pytest.fixture
def twin(tiny: Any, file_server: Any, weights_cache: Path, tmp_path: Path) -> Iterator[Any]:
    """Backbone whose weights are put together from ``tiny.left`` and ``tiny.right``."""
    parts = {}
    for seed, name in enumerate(("left", "right")):
        body, sha256 = saved(state_of(tiny, seed), tmp_path / name)
        file_server.files[f"{name}.pth"] = body
        source = Source((file_server.url(f"{name}.pth"),), f"{name}.pth", f"sha256:{sha256[:8]}")
        parts[name] = publish(tiny, source, tag=name)

    class Twin(tiny):  # type: ignore[misc]
        spec = replace(tiny.spec, name="twin", dim=8, weights=("both",))
        published = {"both": registry.compose("twin.both", parts)}  # noqa: RUF012

        def build(self) -> nn.Module:
            return Pair(super().build(), super().build())

    yield backbones.register(Twin)
    backbones.unregister("twin")


def test_weights_put_together_from_files(
    twin: Any, tiny: Any, file_server: Any, tmp_path: Path
) -> None:
    extract = backbones.load("twin", device=CPU)
    info = extract.weights
    digests = [hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in ("left", "right")]
    assert info.sha256 == "+".join(digests)
    assert info.file == "left.pth + right.pth"
    assert info.url == f"{file_server.url('left.pth')} + {file_server.url('right.pth')}"
    assert [(name, part.sha256) for name, part in info.parts] == [
        ("left", digests[0]),
        ("right", digests[1]),
    ]
    assert info.to_dict().keys() == WeightsInfo("published").to_dict().keys()
    json.dumps(info.to_dict())

    items = smooth_items(tiny.spec.input, 3)
    rows = extract(items)
    for seed, columns in ((0, rows[:, :4]), (1, rows[:, 4:])):
        net = tiny().build()
        calibrate(net, tiny(), seed=seed)
        with torch.no_grad():
            assert torch.equal(columns, net(tiny().to_input(items)))
    assert cache.find(twin().weights_entry("both")) == replace(info, tensors=None)
    assert file_server.requests == ["left.pth", "right.pth"]


def test_a_part_that_is_missing_or_wrong(twin: Any, weights_cache: Path) -> None:
    entry = twin().weights_entry("both")
    assert cache.find(entry) is None and not cache.is_cached(entry)
    assert cache.wanted(entry)["size_mib"] is None
    right = dict(cache.obtain(entry).parts)["right"].path
    assert right is not None and cache.is_cached(entry)
    body = right.read_bytes()
    right.unlink()
    assert cache.find(entry) is None and not cache.is_cached(entry)
    right.write_bytes(body[:-1])
    with pytest.raises(WeightsError, match=r"is not right\.pth of tiny\.right"):
        backbones.load("twin", device=CPU)


def test_all_parts_that_cannot_be_had_are_named(
    twin: Any, file_server: Any, weights_cache: Path
) -> None:
    file_server.files.clear()
    with pytest.raises(WeightsError) as caught:
        backbones.resolve_weights("twin")
    for part in ("left", "right"):
        assert f"weights tiny.{part} are not in the cache" in str(caught.value)
        assert file_server.url(f"{part}.pth") in str(caught.value)
        assert f"--as tiny.{part}" in str(caught.value)


def test_composed_entries(tiny: Any, served: WeightsEntry) -> None:
    other = replace(served, name="tiny.v2", licence="MIT")
    entry = registry.compose("tiny.both", {"a": served, "b": other, "c": served})
    assert entry.leaves == (served, other, served) and entry.sources == ()
    assert (entry.licence, entry.citation) == ("CC0-1.0 + MIT", "none")
    assert served.leaves == (served,)


def test_every_entry_of_the_list_is_sound() -> None:
    for name, entry in registry.entries().items():
        assert entry.name == name and entry.tag == name.partition(".")[2]
        assert entry.licence and entry.citation and entry.trained_on
        assert bool(entry.sources) != bool(entry.parts)
        for source in entry.sources:
            assert source.urls and all(url.endswith("/" + source.file) for url in source.urls)
            kind, _, value = (source.digest or "").partition(":")
            # Some publishers put the first digits into the name: a typing error would show.
            if kind in ("sha256", "sha1"):
                assert value[:8] in source.file
        # A file has one pin.
        assert len({source.file for source in entry.sources}) == len(entry.sources)
    sources = [s for entry in registry.entries().values() for s in entry.sources]
    digests = [s.digest for s in sources if s.digest is not None]
    assert len(set(digests)) == len(digests)  # nor was one copied from another entry
    urls = [url for s in sources for url in s.urls]
    assert len(set(urls)) == len(urls)


def test_every_tag_has_an_entry_and_every_entry_a_network() -> None:
    listed = manage.entries()
    used = {leaf.name for _, entry in manage._used() for leaf in (entry, *entry.leaves)}
    assert used == set(registry.entries()) == set(listed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "394f9c45"}, "not of a known kind"),
        ({"digest": "sha256:394f9c4"}, "hexadecimal"),
        ({"file": "../x"}, "no plain file name"),
        ({"file": ""}, "no plain file name"),
    ],
)
def test_sources_that_are_none(change: dict[str, str], words: str) -> None:
    values: dict[str, Any] = {"urls": ("http://a/x",), "file": "x", "digest": None} | change
    with pytest.raises(ValueError, match=words):
        Source(**values)


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
