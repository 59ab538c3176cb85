"""Downloads from servers that stall, close the connection, lie, or have another file by now."""

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from nucseg_pipeline.fetch.connection import RetryPolicy, check_response
from nucseg_pipeline.fetch.download import RemoteFile, retrieve, zenodo_file
from nucseg_pipeline.fetch.errors import FetchError, RefusedError

CONTENT = np.random.default_rng(0).bytes(3 << 20)
OTHER = np.random.default_rng(1).bytes(3 << 20)
HALF = len(CONTENT) // 2

Download = Callable[..., bytes]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.zip.part"


@pytest.fixture
def steps() -> list[tuple[int, int, str]]:
    """The calls of `progress`."""
    return []


@pytest.fixture
def download(tmp_path: Path, quick: RetryPolicy, steps: list[tuple[int, int, str]]) -> Download:
    """Download a URL; returns the content."""

    def run(url: str, digest: str = "") -> bytes:
        file = RemoteFile("file.zip", url, digest)
        return retrieve(file, tmp_path, lambda *step: steps.append(step), quick).read_bytes()

    return run


@pytest.fixture
def failure(download: Download) -> Callable[..., str]:
    """Why the download of a URL fails."""

    def run(url: str, digest: str = "") -> str:
        with pytest.raises(FetchError) as caught:
            download(url, digest)
        return str(caught.value)

    return run


def ranges(file_server: Any) -> list[str | None]:
    return [headers.get("Range") for headers in file_server.requests_for("/file.zip")]


def test_a_file_is_downloaded_with_progress_in_mib_and_only_once(file_server, answer, download, steps) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT))

    assert download(url) == download(url) == CONTENT
    assert all(0 <= done <= total for done, total, _ in steps)
    assert steps[-1] == (3, 3, "downloading file.zip")
    assert [headers["Accept-Encoding"] for headers in file_server.requests_for("/file.zip")] == ["identity"]


def test_an_interrupted_response_is_continued(file_server, answer, download) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, cut=HALF), answer(content=CONTENT))

    assert download(url) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-"]
    assert file_server.requests_for("/file.zip")[1]["If-Range"] == '"first"'


def test_a_later_call_continues(file_server, answer, download, failure) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, cut=HALF), answer(status=503))
    assert "HTTP 503 Service Unavailable" in failure(url)
    file_server.requests.clear()

    file_server.put("/file.zip", answer(content=CONTENT))

    assert download(url) == CONTENT
    assert ranges(file_server) == [f"bytes={HALF}-"]


def test_a_complete_part_that_was_not_yet_verified_is_not_downloaded_again(file_server, answer, download, tmp_path):
    url = file_server.put("/file.zip", answer(content=CONTENT))
    download(url)
    (tmp_path / "file.zip").unlink()
    file_server.put("/file.zip", answer(content=CONTENT, cut=0))

    assert download(url, f"md5:{hashlib.md5(CONTENT).hexdigest()}") == CONTENT


@pytest.mark.parametrize(
    "now",
    [
        {"ranges": False},
        {"content": OTHER, "etag": '"second"'},
        {"content": OTHER + b"more", "etag": '"second"'},
        {"content": OTHER[: HALF // 2], "etag": '"second"'},
    ],
    ids=["no range requests", "another file", "a longer one", "a shorter one"],
)
def test_a_part_that_cannot_be_continued_is_replaced(file_server, answer, download, now: dict[str, Any]) -> None:
    second = replace(answer(content=CONTENT), **now)

    assert download(file_server.put("/file.zip", answer(content=CONTENT, cut=HALF), second)) == second.content


@pytest.mark.parametrize(
    "lie",
    [
        {"headers": {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}},
        {"headers": {"Content-Range": "bytes all"}},
        {"headers": {"ETag": '"second"'}},
        {"status": 416},
        {"status": 206},
    ],
    ids=["from the start", "no range", "of another file", "beyond the end", "without a range"],
)
def test_a_wrong_rest_is_never_appended(file_server, answer, download, lie: dict[str, Any]) -> None:
    right = answer(content=CONTENT)
    wrong = replace(right, **{"content": OTHER, **lie})

    assert download(file_server.put("/file.zip", replace(right, cut=HALF), wrong, right)) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    ("etag", "date", "digest", "continued", "if_range"),
    [
        ('"first"', "", False, True, '"first"'),
        ('W/"first"', "Sun, 22 Nov 2020 10:00:00 GMT", False, True, "Sun, 22 Nov 2020 10:00:00 GMT"),
        ("", "", False, False, None),
        ("", "", True, True, None),
    ],
    ids=["strong ETag", "date", "neither", "digest"],
)
def test_only_a_part_that_cannot_be_of_another_version_is_continued(
    file_server, answer, download, etag: str, date: str, digest: bool, continued: bool, if_range: str | None
) -> None:
    whole = answer(content=CONTENT, etag=etag, headers={"Last-Modified": date})
    url = file_server.put("/file.zip", replace(whole, cut=HALF), whole)

    assert download(url, f"md5:{hashlib.md5(CONTENT).hexdigest()}" if digest else "") == CONTENT
    second = file_server.requests_for("/file.zip")[1]
    assert second.get("Range") == (f"bytes={HALF}-" if continued else None)
    assert second.get("If-Range") == if_range


@pytest.mark.parametrize("version", [None, "", "\0\0\0"], ids=["missing", "empty", "damaged"])
def test_a_part_of_unknown_version_is_replaced(file_server, answer, download, part, version: str | None) -> None:
    part.write_bytes(OTHER[:HALF])
    if version is not None:
        part.with_name("file.zip.part.version").write_text(version)

    assert download(file_server.put("/file.zip", answer(content=CONTENT))) == CONTENT


def test_a_busy_server_is_asked_again(file_server, answer, download) -> None:
    busy = [answer(status=503), answer(status=429)]

    assert download(file_server.put("/file.zip", *busy, answer(content=CONTENT))) == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 500}, "HTTP 500 Internal Server Error"),
        ({"stall_s": 30, "cut": 5, "content": CONTENT}, "no data for 0.3 s, 3 times in a row"),
        (
            {"length": 10, "content": CONTENT[:9], "ranges": False},
            "3 times in a row. 9 bytes have arrived and are kept",
        ),
        ({"cut": HALF, "content": CONTENT, "ranges": False}, "3 times in a row"),
        ({"status": 416, "headers": {"Content-Range": "bytes */0"}}, "other bytes than those requested, 3 times"),
    ],
    ids=["fails", "stalls", "states too much", "cannot continue", "refuses a range that was not requested"],
)
def test_a_server_that_makes_no_progress_is_given_up(file_server, answer, failure, fault, message: str) -> None:
    assert message in failure(file_server.put("/file.zip", answer(**fault)))
    assert len(file_server.requests) <= 4


def test_a_server_that_breaks_every_connection_is_used_while_it_makes_progress(file_server, answer, download) -> None:
    pieces = [answer(content=CONTENT + CONTENT, cut=1 << 20)] * 5

    assert download(file_server.put("/file.zip", *pieces, answer(content=CONTENT + CONTENT))) == CONTENT + CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404}, "HTTP 404 Not Found"),
        ({"status": 403}, "HTTP 403 Forbidden"),
        ({"status": 302, "headers": {"Location": "/file.zip"}}, "redirects"),
        ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "cannot be downloaded"),
        ({"content": b"<html>log in", "headers": {"Content-Type": "text/html; charset=utf-8"}}, "returned a web page"),
    ],
    ids=["gone", "forbidden", "in circles", "a local file", "a login page"],
)
def test_an_error_that_is_permanent_is_reported_at_once(file_server, answer, failure, part, fault, message) -> None:
    assert message in failure(file_server.put("/file.zip", answer(**fault)))
    assert not part.exists()
    assert len(file_server.requests) == 1 or "redirects" in message


def test_a_redirect_is_followed_but_not_to_an_unencrypted_address(file_server, answer, download) -> None:
    file_server.put("/moved.zip", answer(content=CONTENT))
    assert download(file_server.put("/file.zip", answer(status=302, headers={"Location": "/moved.zip"}))) == CONTENT

    response = requests.Response()
    response.status_code, response.url = 200, "http://example.invalid/file.zip"
    with pytest.raises(FetchError, match="not encrypted"):
        check_response(response, "https://example.invalid/file.zip")


def test_a_wrong_digest_is_refused_with_both_digests(file_server, answer, failure, download, tmp_path: Path) -> None:
    url = file_server.put("/file.zip", answer(content=OTHER))
    right = f"md5:{hashlib.md5(CONTENT).hexdigest()}"

    message = failure(url, right)

    assert right in message
    assert hashlib.md5(OTHER).hexdigest() in message
    assert not (tmp_path / "file.zip").exists()
    with pytest.raises(RefusedError):
        download(url, right)


def test_a_chunked_response_without_a_size_is_complete_or_an_error(file_server, answer, download, failure) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (CONTENT[:HALF], CONTENT[HALF:], b""))
    chunked = answer(content=chunks, length=-1, etag="", headers={"Transfer-Encoding": "chunked"})

    assert "3 times in a row" in failure(file_server.put("/cut", replace(chunked, cut=HALF)))
    assert download(file_server.put("/file.zip", chunked)) == CONTENT


def test_a_full_disk_is_reported_before_the_download(file_server, answer, failure, part, monkeypatch) -> None:
    usage = shutil.disk_usage(part.parent)._replace(free=len(CONTENT) - 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert "0.00 GiB are free" in failure(file_server.put("/file.zip", answer(content=CONTENT)))
    assert not part.exists()


def test_a_disk_that_is_full_during_the_download_keeps_the_part(
    file_server, answer, download, failure, part, max_file_size
) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT))
    with max_file_size(HALF):
        assert "cannot be written: File too large. What has arrived is kept" in failure(url)
    assert part.read_bytes() == CONTENT[:HALF]

    assert download(url) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-"]


def test_a_server_without_a_valid_certificate_is_refused(file_server, answer, failure, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT)).replace("http:", "https:")

    assert "no secure connection to 127.0.0.1" in failure(url)
    assert not part.exists()


def test_an_unreachable_server_is_reported_with_the_proxy_in_use(failure, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert "cannot be reached without a proxy (HTTPS_PROXY is not set)" in failure(f"http://127.0.0.1:{port}/file.zip")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{port}")
    assert "cannot be reached through the proxy 127.0.0.1" in (message := failure("http://example.invalid/file.zip"))
    assert "secret" not in message


def test_the_proxy_of_the_environment_is_used(file_server, answer, download, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", file_server.address)
    file_server.put("http://example.invalid/file.zip", answer(content=CONTENT))

    assert download("http://example.invalid/file.zip") == CONTENT


KILLED = """
import sys
from pathlib import Path
from nucseg_pipeline.fetch.connection import RetryPolicy
from nucseg_pipeline.fetch.download import RemoteFile, retrieve
retrieve(RemoteFile("file.zip", sys.argv[1]), Path(sys.argv[2]), lambda *_: print("more", flush=True), RetryPolicy())
"""


def test_a_killed_download_is_continued(file_server, answer, download, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, cut=HALF, stall_s=60), answer(content=CONTENT))
    with subprocess.Popen([sys.executable, "-c", KILLED, url, part.parent], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + 20
        while part.stat().st_size < HALF // 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    n_bytes = part.stat().st_size
    assert HALF // 2 <= n_bytes <= HALF

    assert download(url) == CONTENT
    assert ranges(file_server) == [None, f"bytes={n_bytes}-"]


@pytest.fixture
def read_record(file_server, answer, quick: RetryPolicy) -> Callable[[bytes], RemoteFile]:
    """What is read of NuInsSeg.zip from a record with this content, after the server was busy once."""

    def run(content: bytes) -> RemoteFile:
        url = file_server.put("/api/records/1", answer(status=503), answer(content=content))
        return zenodo_file(url, "NuInsSeg.zip", quick)

    return run


FILE = {"key": "NuInsSeg.zip", "checksum": "md5:0123", "links": {"self": "https://zenodo.org/x"}}


def test_a_record_states_the_url_digest_and_licence_of_a_file(read_record) -> None:
    record = {"metadata": {"license": {"id": "cc-by-4.0"}}, "files": [{**FILE, "key": "README"}, FILE]}

    found = read_record(json.dumps(record).encode())

    assert found == RemoteFile("NuInsSeg.zip", "https://zenodo.org/x", "md5:0123", "cc-by-4.0")
    assert read_record(json.dumps({**record, "metadata": {}}).encode()).licence == ""


@pytest.mark.parametrize(
    "content",
    [
        *(
            json.dumps({"metadata": {}, "files": files}).encode()
            for files in ([], None, [1], [{**FILE, "links": None}], [{**FILE, "checksum": ""}])
        ),
        *(b"", b"no json", b"\xff\xfe", b"[" * 100_000, b"[]"),
    ],
)
def test_an_unexpected_record_is_reported(read_record, content: bytes) -> None:
    with pytest.raises(FetchError, match=r"record .* does not describe NuInsSeg\.zip as expected"):
        read_record(content)
