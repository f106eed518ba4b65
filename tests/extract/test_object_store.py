"""Stores on S3, from a server on localhost that speaks it, and on any fsspec URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from support import Cli, Corpus, tree

import avfeat as package
from avfeat.stores.verify import verify

BACKBONES = "tiny_image,tiny_map"
OPTIONS = ("--unit-clips", 3)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server with the S3 protocol."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket, its credentials and address in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    fsspec.filesystem("s3").clear_instance_cache()
    name = "lab-" + request.node.name.lower().replace("_", "-")[:40].strip("-")
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def objects(url: str) -> dict[str, bytes]:
    """Every object of a store but those of runs/, by relative path."""
    files = fsspec.filesystem("s3", skip_instance_cache=True)
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
    assert "whole" in avfeat("verify", url).stdout or verify(url).ok
    here = package.open_store("here/llp/tiny_map", allow_random=True)
    there = package.open_store(url, allow_random=True)
    for clip, rows in here.items():
        assert np.array_equal(there[clip], rows)


def test_damage_on_s3_is_found(avfeat: Cli, corpus: Corpus, bucket: str) -> None:
    url = f"{bucket}/features"
    avfeat("extract", "-b", "tiny_image", *corpus.options, *OPTIONS, "-o", url)
    files = fsspec.filesystem("s3")
    (shard, *_) = sorted(files.find(f"{url}/llp/tiny_image/features.zarr/features/c"))
    data = bytearray(files.cat_file(shard))
    data[100] ^= 1
    files.pipe_file(shard, bytes(data))
    result = avfeat("verify", f"{url}/llp/tiny_image", code=4)
    assert "unit 0" in result.output
    files.rm(shard)
    assert not verify(f"{url}/llp/tiny_image").ok


def test_workers_write_to_s3(avfeat: Cli, corpus: Corpus, bucket: str) -> None:
    options = ("-b", BACKBONES, *corpus.options, *OPTIONS)
    avfeat("extract", *options, "-o", "here")
    cluster = ("--cluster", "local", "--workers", 2)
    avfeat("extract", *options, "-o", f"{bucket}/features", *cluster)
    assert objects(f"{bucket}/features") == tree(Path("here"))


def test_stores_in_memory(avfeat: Cli, corpus: Corpus) -> None:
    options = ("-b", "tiny_image", *corpus.options, *OPTIONS)
    avfeat("extract", *options, "-o", "memory://features")
    assert verify("memory://features/llp/tiny_image").ok
