"""Downloads from a server on this machine: good, wrong, broken off, absent."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from avfeat import download
from avfeat.errors import DownloadError, WriteError

BODY = bytes(range(256)) * 9000  # 2.2 MiB: more than two chunks
SHA256 = hashlib.sha256(BODY).hexdigest()


def nobody_listens() -> str:
    """URL of a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file.bin"


def short_body(declared: int, sent: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(declared))
        handler.end_headers()
        handler.wfile.write(BODY[:sent])

    return answer


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("expected", [SHA256, SHA256[:8], None])
def test_a_good_file_arrives_whole(file_server: Any, tmp_path: Path, expected: str | None) -> None:
    file_server.files["file.bin"] = BODY
    path = tmp_path / "new" / "folder" / "file.bin"
    seen: list[tuple[int, int | None]] = []

    found = download.fetch(
        [file_server.url("file.bin")],
        path,
        sha256=expected,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert found == SHA256
    assert path.read_bytes() == BODY
    assert left_in(path.parent) == ["file.bin"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_file_that_is_there_is_hashed_and_not_fetched(file_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(BODY)
    assert download.fetch([file_server.url("file.bin")], path, sha256=SHA256) == SHA256

    path.write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match=r"file\.bin is not the file it should be"):
        download.fetch([file_server.url("file.bin")], path, sha256=SHA256)
    assert path.read_bytes() == BODY[:-1]  # somebody's file stays
    assert file_server.requests == []


def test_the_next_mirror_is_tried(file_server: Any, tmp_path: Path) -> None:
    file_server.files.update({"wrong": BODY + b"!", "right": BODY})
    urls = [nobody_listens(), *map(file_server.url, ("absent", "wrong", "right", "right"))]
    download.fetch(urls, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert file_server.requests == ["absent", "wrong", "right"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BODY + b"!", f"SHA-256 is {hashlib.sha256(BODY + b'!').hexdigest()}, expected {SHA256}"),
        (short_body(len(BODY), 2_000_000), "broken off after"),
        (short_body(len(BODY), 0), "broken off after 0 bytes"),
        (None, "HTTP 404 Not Found"),
        (lambda handler: handler.send_error(503), "HTTP 503"),
    ],
    ids=["hash", "truncated", "nothing", "404", "503"],
)
def test_what_is_not_the_file_leaves_nothing_behind(
    file_server: Any, tmp_path: Path, answer: Any, reason: str
) -> None:
    if answer is not None:
        file_server.files["file.bin"] = answer
    url = file_server.url("file.bin")
    with pytest.raises(DownloadError) as caught:
        download.fetch([url], tmp_path / "file.bin", sha256=SHA256)
    assert reason in str(caught.value)
    assert url in str(caught.value)
    assert caught.value.exit_code == 2
    assert left_in(tmp_path) == []


def test_a_host_that_does_not_listen_is_named_at_once(tmp_path: Path) -> None:
    url = nobody_listens()
    with pytest.raises(DownloadError, match=r"cannot connect \(.*refused") as caught:
        download.fetch([url], tmp_path / "file.bin")
    assert url in str(caught.value)


def test_a_transfer_that_stalls_is_given_up(
    file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    resume = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        short_body(len(BODY), 1 << 20)(handler)
        handler.wfile.flush()
        resume.wait(10)

    file_server.files["file.bin"] = stall
    try:
        with pytest.raises(DownloadError, match="broken off after"):
            download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    finally:
        resume.set()
    assert left_in(tmp_path) == []


def test_a_killed_download_is_started_again(file_server: Any, tmp_path: Path) -> None:
    file_server.files["file.bin"] = BODY
    (tmp_path / "file.bin.part").write_bytes(b"half of something")
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert left_in(tmp_path) == ["file.bin"]


def test_two_at_once_download_once(file_server: Any, tmp_path: Path) -> None:
    file_server.files["file.bin"] = BODY
    found: list[str] = []

    def fetch() -> None:
        url = file_server.url("file.bin")
        found.append(download.fetch([url], tmp_path / "file.bin", sha256=SHA256))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA256] * 4
    assert file_server.requests == ["file.bin"]


def test_a_folder_that_cannot_be_written_is_named(file_server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"cannot write .*file/file\.bin"):
        download.fetch([file_server.url("file.bin")], tmp_path / "file" / "file.bin")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_network_error(file_server: Any, tmp_path: Path) -> None:
    file_server.files["file.bin"] = BODY
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(WriteError, match="No space left"):
        download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
