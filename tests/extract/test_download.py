"""Downloads from a server on this machine: good, wrong, broken off, absent."""

from __future__ import annotations

import email.utils
import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from avfeat import datasets, download
from avfeat.digest import ANY, Digest
from avfeat.errors import AnnotationError, DownloadError, OfflineError, WriteError

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


def ranged(etag: str | None = '"one"', body: bytes = BODY) -> Callable[..., None]:
    """Answer as a server that can send the rest of a file."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked, condition = handler.headers["Range"], handler.headers["If-Range"]
        start = 0
        if asked and (condition is None or condition == etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:])

    return answer


def breaking_off(sent: int, *then: Any, **headers: str) -> Callable[..., None]:
    """Answer with some bytes of the file and hang up; later requests get the other answers."""
    answers = iter(then)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if answer.begun:  # type: ignore[attr-defined]
            next(answers)(handler)
            return
        answer.begun = True  # type: ignore[attr-defined]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(BODY[:sent])

    answer.begun = False  # type: ignore[attr-defined]
    return answer


def error(status: int, **headers: str) -> Callable[..., None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def in_turn(*answers: Callable[..., None]) -> Callable[..., None]:
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        left.pop(0)(handler)

    return answer


def whole(handler: BaseHTTPRequestHandler) -> None:
    ranged(None)(handler)


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


def test_what_is_not_accepted_is_looked_for_at_the_next(file_server: Any, tmp_path: Path) -> None:
    file_server.files.update({"page": b"<html>", "good": BODY, "other": b"<p>"})
    seen: list[bytes] = []

    def accept(path: Path) -> None:
        seen.append(path.read_bytes())
        if path.read_bytes().startswith(b"<"):
            raise AnnotationError("it is a web page")

    path = tmp_path / "file.bin"
    urls = [file_server.url(name) for name in ("page", "good")]
    assert download.fetch(urls, path, accept=accept) == SHA256
    assert seen == [b"<html>", BODY]
    assert download.fetch(urls, path, accept=accept) == SHA256  # was judged when it came
    assert len(seen) == len(file_server.requests) == 2

    path.unlink()
    urls = [nobody_listens(), *(file_server.url(name) for name in ("page", "other"))]
    with pytest.raises(DownloadError) as caught:
        download.fetch(urls, path, accept=accept)
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().partition(": ")[0] for line in lines] == urls
    assert "connect" in lines[0]
    assert all(line.endswith(": it is a web page") for line in lines[1:])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BODY + b"!", f"SHA-256 is {hashlib.sha256(BODY + b'!').hexdigest()}, expected {SHA256}"),
        (None, "HTTP 404 Not Found"),
        (error(403), "HTTP 403 Forbidden"),
    ],
    ids=["hash", "404", "403"],
)
def test_what_will_not_pass_is_asked_once_and_leaves_nothing_behind(
    file_server: Any, tmp_path: Path, answer: Any, reason: str, pauses: list[float]
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
    assert (file_server.requests, pauses) == (["file.bin"], [])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (short_body(len(BODY), 0), "broken off after 0 bytes, at attempt 4"),
        (error(503), "HTTP 503 Service Unavailable, at attempt 4"),
        (error(429), "HTTP 429 Too Many Requests, at attempt 4"),
        (error(408), "HTTP 408 Request Timeout, at attempt 4"),
    ],
    ids=["nothing", "503", "429", "408"],
)
def test_what_may_pass_is_asked_again_with_growing_pauses(
    file_server: Any, tmp_path: Path, answer: Any, reason: str, pauses: list[float]
) -> None:
    file_server.files["file.bin"] = answer
    with pytest.raises(DownloadError) as caught:
        download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert reason in str(caught.value)
    assert file_server.requests == ["file.bin"] * 4
    assert len(pauses) == 3
    for pause, about in zip(pauses, (1, 2, 4), strict=True):
        assert 0.5 * about <= pause <= 1.5 * about


def test_a_busy_server_is_waited_for(file_server: Any, tmp_path: Path, pauses: list[float]) -> None:
    file_server.files["file.bin"] = in_turn(error(503, Retry_After="17"), whole)
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert pauses == [17.0]
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_date_to_come_back_at(file_server: Any, tmp_path: Path, pauses: list[float]) -> None:
    then = email.utils.formatdate(time.time() + 40, usegmt=True)
    file_server.files["file.bin"] = in_turn(
        error(429, Retry_After=then), error(429, Retry_After="tomorrow"), whole
    )
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert 35 < pauses[0] <= 40
    assert pauses[1] <= 3  # as if nothing had been said


def test_a_server_that_asks_for_an_hour_is_left_for_the_next(
    file_server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    file_server.files.update({"a": error(429, Retry_After="3600"), "b": BODY})
    urls = [file_server.url("a"), file_server.url("b")]
    download.fetch(urls, tmp_path / "file.bin", sha256=SHA256)
    assert (file_server.requests, pauses) == (["a", "b"], [])
    (tmp_path / "file.bin").unlink()
    with pytest.raises(DownloadError, match="HTTP 429 Too Many Requests, asks to wait 3600 s"):
        download.fetch(urls[:1], tmp_path / "file.bin", sha256=SHA256)


def test_a_host_that_does_not_listen_is_named_at_once(tmp_path: Path, pauses: list[float]) -> None:
    urls = [nobody_listens(), "http://no-such-host.invalid/file.bin"]
    with pytest.raises(DownloadError, match=r"cannot connect \(.*refused") as caught:
        download.fetch(urls, tmp_path / "file.bin")
    assert str(caught.value).count("cannot connect") == 2
    assert all(url in str(caught.value) for url in urls)
    assert pauses == []


def test_a_transfer_that_stalls_is_given_up(
    file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    resume = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        short_body(len(BODY), 1 << 16)(handler)
        handler.wfile.flush()
        resume.wait(10)

    file_server.files["file.bin"] = stall
    try:
        with pytest.raises(DownloadError, match=r"broken off after .*, at attempt 4"):
            download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    finally:
        resume.set()
    assert not (tmp_path / "file.bin").exists()


def test_a_server_that_does_not_answer_is_given_up(
    file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 0.1)
    resume = threading.Event()
    file_server.files["file.bin"] = lambda handler: resume.wait(10) and None
    try:
        with pytest.raises(DownloadError, match=r"no answer within 0\.1 s of asking, at attempt 4"):
            download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    finally:
        resume.set()


@pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"Last_Modified": "yesterday"}])
def test_the_rest_of_a_broken_off_body_is_asked_for(
    file_server: Any, tmp_path: Path, validator: dict[str, str]
) -> None:
    (value,) = validator.values()
    file_server.files["file.bin"] = breaking_off(2_000_000, ranged(value), **validator)
    seen: list[tuple[int, int | None]] = []
    found = download.fetch(
        [file_server.url("file.bin")],
        tmp_path / "file.bin",
        progress=lambda done, total: seen.append((done, total)),
    )
    first, second = file_server.headers
    assert first["Range"] is None
    kept = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < kept <= 2_000_000
    assert second["If-Range"] == value
    assert found == SHA256
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert left_in(tmp_path) == ["file.bin"]
    assert seen[-1] == (len(BODY), len(BODY))


def test_the_rest_is_asked_for_by_a_later_run_too(file_server: Any, tmp_path: Path) -> None:
    file_server.files["file.bin"] = breaking_off(
        2_000_000, *[error(503)] * 3, ranged(), ETag='"one"'
    )
    urls, path = [file_server.url("file.bin")], tmp_path / "file.bin"
    with pytest.raises(DownloadError, match="HTTP 503"):
        download.fetch(urls, path, sha256=SHA256)
    kept = path.with_name("file.bin.part").stat().st_size
    assert BODY.startswith(path.with_name("file.bin.part").read_bytes()) and kept >= 1 << 20
    download.fetch(urls, path, sha256=SHA256)
    assert file_server.headers[-1]["Range"] == f"bytes={kept}-"
    assert path.read_bytes() == BODY
    assert left_in(tmp_path) == ["file.bin"]


def test_a_download_that_gets_on_may_break_off_often(
    file_server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    big = BODY * 5

    def a_piece(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        handler.send_response(206 if asked else 200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Range", f"bytes {start}-{len(big) - 1}/{len(big)}")
        handler.send_header("Content-Length", str(len(big) - start))
        handler.end_headers()
        handler.wfile.write(big[start : start + (3 << 20) // 2])

    file_server.files["file.bin"] = a_piece
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == big
    assert len(file_server.requests) > download.ATTEMPTS
    assert max(pauses) <= 1.5


@pytest.mark.parametrize("answer", [ranged('"two"'), whole], ids=["etag", "no-ranges"])
def test_a_server_that_sends_the_whole_file_starts_it_over(
    file_server: Any, tmp_path: Path, answer: Any
) -> None:
    file_server.files["file.bin"] = breaking_off(2_000_000, answer, ETag='"one"')
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")  # no hash to save it
    assert file_server.headers[1]["Range"] is not None
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 2000000-2303999/2304000", "ETag": '"two"'},
        {"Content_Range": "bytes 7-2303999/2304000", "ETag": '"one"'},
        {"ETag": '"one"'},
    ],
    ids=["another-etag", "another-place", "no-place"],
)
def test_a_rest_that_does_not_fit_starts_over(
    file_server: Any, tmp_path: Path, headers: dict[str, str]
) -> None:
    """Some servers pay no heed to If-Range, and some proxies none to Range."""
    file_server.files["file.bin"] = breaking_off(
        2_000_000, error(206, **headers), whole, ETag='"one"'
    )
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    assert [h["Range"] is None for h in file_server.headers] == [True, False, True]
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_rest_that_no_longer_exists_starts_over(file_server: Any, tmp_path: Path) -> None:
    file_server.files["file.bin"] = breaking_off(2_000_000, error(416), whole, ETag='"one"')
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_two_halves_that_do_not_fit_are_fetched_anew_once(file_server: Any, tmp_path: Path) -> None:
    """The server's file changed under the same ETag: only the hash shows it."""
    other = bytes(len(BODY))
    file_server.files["file.bin"] = breaking_off(
        2_000_000, ranged(body=other), ranged(), ETag='"one"'
    )
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert [h["Range"] is None for h in file_server.headers] == [True, False, True]
    assert (tmp_path / "file.bin").read_bytes() == BODY

    (tmp_path / "file.bin").unlink()
    file_server.files["file.bin"] = breaking_off(
        2_000_000, ranged(body=other), ranged(body=other), ETag='"one"'
    )
    with pytest.raises(DownloadError, match="not the file it should be: its SHA-256 is"):
        download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"one"'}], ids=["none", "weak"])
def test_nothing_is_kept_where_nothing_would_show_a_change(
    file_server: Any, tmp_path: Path, headers: dict[str, str]
) -> None:
    file_server.files["file.bin"] = breaking_off(2_000_000, whole, **headers)
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin")
    assert [h["Range"] for h in file_server.headers] == [None, None]
    # With a hash to check, the rest is enough; and a weak ETag is not sent.
    (tmp_path / "file.bin").unlink()
    file_server.files["file.bin"] = breaking_off(2_000_000, ranged(None), **headers)
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert file_server.headers[-1]["Range"] is not None
    assert file_server.headers[-1]["If-Range"] is None
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_part_of_one_mirror_is_not_continued_from_another(
    file_server: Any, tmp_path: Path
) -> None:
    file_server.files.update(
        {"a": breaking_off(2_000_000, *[error(404)] * 3, ETag='"one"'), "b": ranged()}
    )
    urls = [file_server.url("a"), file_server.url("b")]
    download.fetch(urls, tmp_path / "file.bin", sha256=SHA256)
    assert file_server.requests == ["a", "a", "b"]
    assert file_server.headers[-1]["Range"] is None


def test_a_whole_part_is_only_renamed(file_server: Any, tmp_path: Path) -> None:
    """Killed between the last byte and the rename."""
    url = file_server.url("file.bin")
    (tmp_path / "file.bin.part").write_bytes(BODY)
    note = {"url": url, "etag": None, "validator": "x", "total": len(BODY)}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(note))
    assert download.fetch([url], tmp_path / "file.bin", sha256=SHA256) == SHA256
    assert file_server.requests == []
    assert left_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("note", [None, "{", "[]", '{"url": 3}'])
def test_a_part_of_unknown_origin_is_started_again(
    file_server: Any, tmp_path: Path, note: str | None
) -> None:
    file_server.files["file.bin"] = BODY
    (tmp_path / "file.bin.part").write_bytes(b"half of something")
    if note is not None:
        (tmp_path / "file.bin.part.json").write_text(note)
    download.fetch([file_server.url("file.bin")], tmp_path / "file.bin", sha256=SHA256)
    assert file_server.headers[0]["Range"] is None
    assert left_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("variable", ["AVFEAT_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "YES", "on ", "y", "2", "please"])
def test_offline_opens_no_connection(
    file_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    file_server.files["file.bin"] = BODY
    url, path = file_server.url("file.bin"), tmp_path / "new" / "file.bin"
    monkeypatch.setenv(variable, value)

    def refuse(*args: object, **kwargs: object) -> object:
        raise AssertionError("looked for a host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OfflineError) as caught:
        download.fetch([url], path, sha256=SHA256)
    for part in (variable, url, str(path)):
        assert part in str(caught.value)
    assert not path.parent.exists()
    # What is there is served as ever.
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert download.fetch([url], path, sha256=SHA256) == SHA256
    assert file_server.requests == []


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_not_offline(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AVFEAT_OFFLINE", value)
    assert download.offline() is None


def test_the_annotations_heed_the_switch(
    tmp_path: Path, weights_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVFEAT_OFFLINE", "1")
    with pytest.raises(AnnotationError, match=r"AVFEAT_OFFLINE is set.*\n.*--annotations DIR"):
        datasets.get("llp").load(annotations=None, data=tmp_path)


def test_digests_of_every_kind(tmp_path: Path) -> None:
    """The values are those of sha256sum, sha1sum, md5sum and git hash-object."""
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    for text in (
        f"sha256:{sha256}",
        "sha256:5891b5b5",
        "sha1:f572d396fae9206628714fb2ce00f72e94f2258f",
        "md5:b1946ac92492d2347c6235b4d2611184",
        "git-blob:ce013625030ba8dba906f756967f9e9ca394464a",
    ):
        assert Digest.parse(text).difference(path) == (None, sha256)
        assert str(Digest.parse(text)) == text
    assert ANY.difference(path) == (None, sha256)
    difference, _ = Digest.parse("md5:" + "0" * 32).difference(path)
    assert difference == (f"its MD5 is b1946ac92492d2347c6235b4d2611184, expected {'0' * 32}")


@pytest.mark.parametrize(
    "text",
    ["394f9c45", "sha256:394f9c4", "sha256:394F9C45", "md5:394f9c45", "crc:00", "sha1:", "sha256"],
)
def test_digests_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        Digest.parse(text)


def test_threads_at_once_download_once(file_server: Any, tmp_path: Path) -> None:
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


def test_eight_processes_download_once(file_server: Any, tmp_path: Path) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1)  # so that the others come to wait
        whole(handler)

    file_server.files["file.bin"] = slowly
    code = (
        "import sys; from pathlib import Path; from avfeat import download; "
        "seen = []; "
        "print(download.fetch([sys.argv[1]], Path(sys.argv[2]), sha256=sys.argv[3][:8], "
        "progress=lambda done, total: seen.append(done)))"
    )
    arguments = [file_server.url("file.bin"), str(tmp_path / "file.bin"), SHA256]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    assert [process.communicate()[0].decode().strip() for process in processes] == [SHA256] * 8
    assert file_server.requests == ["file.bin"]
    assert left_in(tmp_path) == ["file.bin"]


def test_who_waits_is_told_how_far_the_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_WATCH_SECONDS", 0.05)
    path = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    told = threading.Event()

    def wait(done: int, total: int | None) -> None:
        assert (done, total) == (1000, None)
        told.set()

    def second() -> None:
        with download.alone(path, progress=wait):
            pass

    with download.alone(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(10)
    thread.join()


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
