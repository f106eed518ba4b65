"""Stores on S3, from a server on localhost that speaks it, and on any fsspec URL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from support import Cli, Corpus, tree

import avfeat as package
from avfeat.errors import ReadError, WriteError
from avfeat.stores.files import Files
from avfeat.stores.verify import verify

BACKBONES = "tiny_image,tiny_map"
OPTIONS = ("--unit-clips", 3, "--threads", 1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server with the S3 protocol."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, its credentials and address in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    name = f"lab-{uuid.uuid4().hex}"
    remote().mkdir(name)
    return f"s3://{name}"


def remote() -> Any:
    """What another process sees and does: nothing is shared with the file system in `Files`."""
    return fsspec.filesystem("s3", use_listings_cache=False, default_fill_cache=False)


def objects(url: str) -> dict[str, bytes]:
    """Every object of a store but those of runs/, by relative path."""
    files = remote()
    root = url.removeprefix("s3://")
    return {
        name[len(root) + 1 :]: files.cat_file(name)
        for name in sorted(files.find(root))
        if "/runs/" not in name
    }


def test_stores_on_s3_have_the_bytes_of_local_ones(
    avfeat: Cli, corpus: Corpus, bucket: str
) -> None:
    options = ("-b", BACKBONES, *corpus.options, *OPTIONS)
    avfeat("extract", *options, "-o", "here")
    avfeat("extract", *options, "-o", f"{bucket}/features", "--split", "val")
    avfeat("extract", *options, "-o", f"{bucket}/features")  # goes on, and rewrites a unit
    assert objects(f"{bucket}/features") == tree(Path("here"))

    url = f"{bucket}/features/llp/tiny_map"
    assert "complete" in avfeat("inspect", url).stdout
    assert "whole" in avfeat("verify", url).stdout
    report = verify(url)
    assert (report.problems, report.notes) == ([], [])
    here = package.open_store("here/llp/tiny_map", allow_random=True)
    there = package.open_store(url, allow_random=True)
    for clip, rows in here.items():
        assert np.array_equal(there[clip], rows)


def test_damage_on_s3_is_found(avfeat: Cli, corpus: Corpus, bucket: str) -> None:
    url = f"{bucket}/features"
    avfeat("extract", "-b", "tiny_image", *corpus.options, *OPTIONS, "-o", url)
    files = remote()
    (shard, *_) = sorted(files.find(f"{url}/llp/tiny_image/features.zarr/features/c"))
    data = bytearray(files.cat_file(shard))
    data[100] ^= 1
    files.pipe_file(shard, bytes(data))
    result = avfeat("verify", f"{url}/llp/tiny_image", code=4)
    assert "unit 0" in result.output
    files.rm(shard)
    problems = verify(f"{url}/llp/tiny_image").problems
    assert problems
    assert all("unit 0" in problem for problem in problems)


def test_workers_write_to_s3(avfeat: Cli, corpus: Corpus, bucket: str) -> None:
    options = ("-b", BACKBONES, *corpus.options, *OPTIONS)
    avfeat("extract", *options, "-o", "here")
    cluster = ("--cluster", "local", "--workers", 2)
    avfeat("extract", *options, "-o", f"{bucket}/features", *cluster)
    assert objects(f"{bucket}/features") == tree(Path("here"))


def test_what_another_process_writes_is_seen_at_once(bucket: str) -> None:
    files = Files(f"{bucket}/store")
    files.write("ledger/000000.json", b"0")
    assert files.list() == ["ledger/000000.json"]
    assert (files.exists("ledger/000001.json"), files.exists("journal")) == (False, False)
    remote().pipe_file(f"{bucket}/store/ledger/000001.json", b"1")
    remote().pipe_file(f"{bucket}/store/journal/x", b"2")
    assert (files.exists("ledger/000001.json"), files.is_dir("journal")) == (True, True)
    assert files.list("ledger") == ["ledger/000000.json", "ledger/000001.json"]
    remote().rm_file(f"{bucket}/store/ledger/000000.json")
    assert not files.exists("ledger/000000.json")
    assert files.list("ledger") == ["ledger/000001.json"]


def test_copies_are_the_same(bucket: str) -> None:
    files = Files(f"{bucket}/store")
    files.write("a", b"1")
    files.copy("a", "b/c")
    assert files.same("a", "b/c")
    files.write("b/c", b"2")
    assert not files.same("a", "b/c")
    assert not files.same("a", "gone")
    with pytest.raises(FileNotFoundError):
        files.copy("gone", "b/c")


def test_a_bucket_that_is_misspelled_is_not_made(bucket: str) -> None:
    files = Files(f"{bucket}-typo/features")
    assert not files.exists("manifest.json")
    assert files.list() == []
    with pytest.raises(WriteError, match=r"there is no bucket 'lab-.*-typo'; create it"):
        files.write("manifest.json", b"{}")
    assert not remote().exists(f"{bucket}-typo")


@pytest.mark.parametrize("what", ["server", "credentials"])
def test_a_server_that_does_not_answer_is_said(
    bucket: str, server: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    options: dict[str, Any] = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    if what == "server":
        options["endpoint_url"] = "http://127.0.0.1:1"
        why = "Could not connect to the endpoint URL"
    else:
        options["endpoint_url"] = server
        why = "Unable to locate credentials"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/nowhere")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    files = Files(f"{bucket}/store")
    for read in (files.read, files.exists, files.is_dir, files.list):
        with pytest.raises(ReadError, match=f"cannot read .*/store/a: {why}"):
            read("a")
    with pytest.raises(WriteError, match=f"cannot write .*/store/a: {why}"):
        files.write("a", b"1")
    with pytest.raises(WriteError, match=f"cannot write .*/store/a: {why}"):
        files.remove("a")
    with pytest.raises((ReadError, WriteError), match=why):
        files.copy("a", "b")


def test_stores_in_memory(avfeat: Cli, corpus: Corpus) -> None:
    options = ("-b", "tiny_image", *corpus.options, *OPTIONS)
    avfeat("extract", *options, "-o", "memory://features")
    assert verify("memory://features/llp/tiny_image").ok
