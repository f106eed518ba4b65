"""Fixtures of the extraction tests: an empty weights cache, and a file server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from torch import nn

from avfeat import download
from avfeat.extract.backbones import Backbone, BackboneSpec, Geometry, VisualInput, unregister
from avfeat.extract.backbones import register as register_backbone
from avfeat.extract.weights.registry import WeightsEntry

Answer = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """Serves bytes, or whatever an `Answer` writes, and keeps the requests in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Answer] = {}
        self.requests: list[str] = []
        self.headers: list[Message] = []  # of each request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                outer.requests.append(name)
                outer.headers.append(self.headers)
                answer = outer.files.get(name)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that downloads would have paused; they do not here, nor are they offline."""
    for name in download.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    seconds: list[float] = []
    monkeypatch.setattr(download, "sleep", seconds.append)
    return seconds


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def weights_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("AVFEAT_CACHE", str(folder))
    return folder


class Tiny(Backbone):
    """A network of a few kilobytes, with whatever weights a test publishes for it."""

    spec = BackboneSpec(
        name="tiny",
        modality="visual",
        dim=4,
        layer="global average pool",
        input=VisualInput(Geometry(16, 12)),
        weights=("v1", "v2"),
        parameters=3 * 4 * 9 + 8,
        gmacs_per_item=1e-5,
        paper="none",
        description="for tests",
    )
    published: dict[str, WeightsEntry]

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def weights_entry(self, tag: str) -> WeightsEntry:
        return self.published[tag]


@pytest.fixture
def tiny() -> Iterator[type[Tiny]]:
    Tiny.published = {}
    yield register_backbone(Tiny)
    unregister("tiny")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were opened as media, in order, as often as they were."""
    files: list[str] = []
    original = av.open

    def note(file: object, *args: object, **kwargs: object) -> object:
        files.append(str(file))
        return original(file, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(av, "open", note)
    return files
