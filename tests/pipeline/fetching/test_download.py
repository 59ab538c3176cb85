"""Downloads from a server that stalls, breaks off, lies, or has another file by now."""

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

from nucseg_pipeline.fetching.download import Wanted, download, read_document
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.patience import Patience

CONTENT = np.random.default_rng(0).bytes(3 << 20)
OTHER = np.random.default_rng(1).bytes(3 << 20)
HALF = len(CONTENT) // 2


@pytest.fixture
def get(part: Path, hasty: Patience, shown: list[tuple[int, int, str]]) -> Callable[..., bytes]:
    """Download an address; what came."""

    def run(url: str, **more: Any) -> bytes:
        download(Wanted(url=url, **more), part, lambda *told: shown.append(told), hasty)
        return part.read_bytes()

    return run


@pytest.fixture
def failed(get: Callable[..., bytes]) -> Callable[..., str]:
    """Why a download of an address fails."""

    def run(url: str, **more: Any) -> str:
        with pytest.raises(FetchError) as caught:
            get(url, **more)
        message = str(caught.value)
        assert url in message or "127.0.0.1" in message
        return message

    return run


def ranges(file_server: Any, path: str = "/file.zip") -> list[str | None]:
    return [headers.get("Range") for headers in file_server.asked(path)]


def test_a_file_comes_whole_and_progress_is_told_in_mib(file_server, answer, get, shown) -> None:
    assert get(file_server.put("/file.zip", answer(content=CONTENT))) == CONTENT
    assert shown[-1] == (3, 3, "downloading file.zip")
    assert file_server.asked("/file.zip")[0]["Accept-Encoding"] == "identity"


def test_what_breaks_off_is_gone_on_with(file_server, answer, get) -> None:
    broken, whole = answer(content=CONTENT, cut=HALF), answer(content=CONTENT)

    assert get(file_server.put("/file.zip", broken, whole)) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-"]
    assert file_server.asked("/file.zip")[1]["If-Range"] == '"first"'


def test_what_an_earlier_call_has_brought_is_gone_on_with(file_server, answer, get, failed, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, cut=HALF), answer(status=503))
    assert f"{HALF} bytes, is kept" in failed(url)
    assert part.stat().st_size == HALF

    file_server.put("/file.zip", answer(content=CONTENT))
    file_server.requests.clear()

    assert get(url) == CONTENT
    assert ranges(file_server) == [f"bytes={HALF}-"]


def test_a_whole_part_is_not_asked_for_again(file_server, answer, get) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT))
    get(url)

    assert get(url) == CONTENT
    assert len(file_server.requests) == 1


@pytest.mark.parametrize(
    "second",
    [
        {"ranges": False},
        {"content": OTHER, "etag": '"second"'},
        {"content": OTHER + b"more", "etag": '"second"'},
        {"content": OTHER[: HALF // 2], "etag": '"second"'},
    ],
    ids=["ranges are not known", "another file", "a longer one", "a shorter one"],
)
def test_where_the_rest_is_not_to_be_had_all_of_it_comes(file_server, answer, get, second: dict[str, Any]) -> None:
    now = replace(answer(content=CONTENT), **second)

    assert get(file_server.put("/file.zip", answer(content=CONTENT, cut=HALF), now)) == now.content


@pytest.mark.parametrize(
    "lie",
    [
        {"headers": {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}},
        {"headers": {"Content-Range": f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}"}},
        {"headers": {"Content-Range": "bytes all"}},
        {"headers": {"Content-Encoding": "gzip"}},
        {"headers": {"ETag": '"second"'}},
        {"status": 416},
        {"status": 206},
    ],
    ids=["from the start", "of another size", "no range", "packed", "of another file", "beyond", "without a range"],
)
def test_a_wrong_rest_is_thrown_away_with_what_was_there(file_server, answer, get, lie: dict[str, Any]) -> None:
    right = answer(content=CONTENT)
    wrong = replace(right, **{"content": OTHER, **lie})

    assert get(file_server.put("/file.zip", replace(right, cut=HALF), wrong, right)) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-", None]


def test_a_server_without_etag_is_gone_on_with_only_where_a_digest_will_tell(file_server, answer, get) -> None:
    whole = answer(content=CONTENT, etag="")
    url = file_server.put("/file.zip", replace(whole, cut=HALF), whole)
    assert get(url, has_digest=True) == CONTENT
    assert ranges(file_server)[-1] == f"bytes={HALF}-"

    url = file_server.put("/other", replace(whole, cut=HALF), whole)
    assert get(url) == CONTENT
    assert ranges(file_server, "/other") == [None, None]


def test_a_date_tells_versions_apart_where_there_is_no_strong_etag(file_server, answer, get) -> None:
    dated = answer(content=CONTENT, etag='W/"first"', headers={"Last-Modified": "Sun, 22 Nov 2020 10:00:00 GMT"})
    get(file_server.put("/file.zip", replace(dated, cut=HALF), dated))

    assert file_server.asked("/file.zip")[1]["If-Range"] == "Sun, 22 Nov 2020 10:00:00 GMT"


def test_a_part_of_another_address_is_not_gone_on_with(file_server, answer, get, failed) -> None:
    failed(file_server.put("/other", answer(content=OTHER, cut=HALF), answer(status=404)))

    assert get(file_server.put("/file.zip", answer(content=CONTENT))) == CONTENT
    assert ranges(file_server) == [None]


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"url": 1}', '{"url": "x", "total": "3", "etag": "", "modified": ""}']
)
def test_a_part_with_a_damaged_note_is_not_gone_on_with(file_server, answer, get, part, note: str) -> None:
    part.write_bytes(OTHER[:HALF])
    part.with_name(f"{part.name}.json").write_text(note)

    assert get(file_server.put("/file.zip", answer(content=CONTENT))) == CONTENT


def test_a_busy_server_is_asked_again(file_server, answer, get) -> None:
    busy = [answer(status=503), answer(status=429)]

    assert get(file_server.put("/file.zip", *busy, answer(content=CONTENT))) == CONTENT


def test_a_pause_that_the_server_asks_for_is_kept(file_server, answer, get) -> None:
    begun = time.monotonic()
    get(file_server.put("/file.zip", answer(status=503, headers={"Retry-After": "1"}), answer(content=CONTENT)))

    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"status": 500}, "answers 500 Internal Server Error, 3 times in a row"),
        ({"content": CONTENT, "cut": 0}, "3 times in a row"),
        ({"content": CONTENT, "cut": 0, "stall_s": 30}, "nothing came for 0.3 s, 3 times"),
        ({"content": CONTENT, "cut": 5, "drip_s": 0.2, "stall_s": 30}, "s, 3 times in a row"),
        ({"content": CONTENT, "drip_s": 0.05}, "bytes came in 0.3 s, 3 times in a row"),
        ({"content": CONTENT[:9], "length": 10}, "3 times in a row"),
    ],
    ids=["fails", "closes", "is silent", "falls silent", "drips", "states too much"],
)
def test_a_server_that_never_comes_to_an_end_is_given_up(
    file_server, answer, failed, bad: dict[str, Any], told: str
) -> None:
    message = failed(file_server.put("/file.zip", answer(**bad)))

    assert told in message
    assert "Try again later." in message
    assert len(file_server.requests) == 3


def test_a_server_that_breaks_off_again_and_again_is_asked_as_long_as_it_gets_further(file_server, answer, get) -> None:
    steps = [answer(content=CONTENT, cut=1 << 19) for _ in range(5)]

    with pytest.raises(FetchError, match="3 times in a row"):
        get(file_server.put("/small", *steps, answer(content=CONTENT)))
    steps = [replace(one, cut=1 << 20) for one in steps[:3]]
    assert get(file_server.put("/file.zip", *steps, answer(content=CONTENT))) == CONTENT


def test_a_server_that_always_breaks_off_and_cannot_resume_is_given_up(file_server, answer, failed) -> None:
    failed(file_server.put("/file.zip", answer(content=CONTENT, cut=HALF, ranges=False)))

    assert len(file_server.requests) <= 5


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"status": 404}, "answers 404 Not Found"),
        ({"status": 403}, "answers 403 Forbidden"),
        ({"status": 204}, "answers 204"),
        ({"status": 302, "headers": {"Location": "/file.zip"}}, "redirects"),
        ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "cannot be downloaded"),
        ({"content": b"<html>log in", "headers": {"Content-Type": "text/html; charset=utf-8"}}, "a web page"),
        ({"content": CONTENT, "headers": {"Content-Encoding": "gzip"}}, "comes as gzip"),
    ],
    ids=["gone", "forbidden", "nothing", "in circles", "a local file", "a login page", "packed"],
)
def test_what_no_further_attempt_will_mend_is_an_error_at_once(
    file_server, answer, failed, part, bad: dict[str, Any], told: str
) -> None:
    assert told in failed(file_server.put("/file.zip", answer(**bad)))
    assert not part.exists()
    assert len(file_server.requests) == 1 or "redirects" in told


def test_a_redirect_is_followed(file_server, answer, get) -> None:
    file_server.put("/moved.zip", answer(content=CONTENT))

    assert get(file_server.put("/file.zip", answer(status=302, headers={"Location": "/moved.zip"}))) == CONTENT


def test_an_encrypted_address_must_not_lead_to_one_that_is_not(
    file_server, answer, failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    plain = requests.Session.get
    url = file_server.put("/file.zip", answer(content=CONTENT))
    # as if the encrypted address had redirected to the plain one
    monkeypatch.setattr(requests.Session, "get", lambda self, _, **more: plain(self, url, **more))
    with pytest.raises(FetchError, match="not encrypted"):
        download(Wanted(url="https://127.0.0.1/file.zip"), Path("nowhere"), lambda *_: None, Patience())


@pytest.mark.parametrize("length", [None, -1], ids=["stated", "not stated"])
def test_a_size_that_is_not_the_published_one_is_refused(file_server, answer, failed, length: int | None) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, length=length))

    assert str(len(CONTENT) - 1) in failed(url, n_bytes=len(CONTENT) - 1)


def test_an_answer_without_an_end_is_cut_off(file_server, answer, failed, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, length=-1))

    assert "does not end" in failed(url, about_bytes=1000)
    assert not part.exists()


def test_an_answer_without_a_size_that_ends_early_is_gone_on_with_where_the_size_is_published(
    file_server, answer, get
) -> None:
    endless = answer(content=CONTENT, length=-1)
    url = file_server.put("/file.zip", replace(endless, cut=HALF), endless)

    assert get(url, n_bytes=len(CONTENT)) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-"]


def test_an_answer_in_chunks_has_no_size_and_comes_whole(file_server, answer, get, shown) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (CONTENT[:HALF], CONTENT[HALF:], b""))
    chunked = answer(content=chunks, length=-1, headers={"Transfer-Encoding": "chunked"})

    assert get(file_server.put("/file.zip", chunked)) == CONTENT
    with pytest.raises(FetchError, match="3 times in a row"):
        get(file_server.put("/cut", replace(chunked, cut=HALF)))


def test_too_little_room_is_told_before_anything_comes(
    file_server, answer, failed, part, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(part.parent)._replace(free=len(CONTENT) + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    url = file_server.put("/file.zip", answer(content=CONTENT))

    assert "0.01 GiB, and 0.00 GiB are free" in failed(url, is_archive=True)
    assert not part.exists()


def test_a_disk_that_takes_no_more_keeps_what_has_come(file_server, answer, get, part, files_of_at_most) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT))
    with files_of_at_most(HALF), pytest.raises(FetchError, match=r"written: File too large\. What has come is kept"):
        get(url)
    assert part.read_bytes() == CONTENT[:HALF]

    assert get(url) == CONTENT
    assert ranges(file_server) == [None, f"bytes={HALF}-"]


def test_a_server_that_cannot_prove_who_it_is_is_not_believed(file_server, answer, failed, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT)).replace("http:", "https:")

    assert "cannot prove who it is" in failed(url)
    assert not part.exists()


def test_no_network_is_told_with_the_proxy_that_was_asked(failed, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert "127.0.0.1 cannot be reached" in (message := failed(f"http://127.0.0.1:{port}/file.zip"))
    assert "no proxy is set (HTTPS_PROXY)" in message
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{port}")
    assert "the proxy 127.0.0.1 is asked" in (message := failed("http://example.invalid/127.0.0.1"))
    assert "secret" not in message


def test_a_proxy_that_is_set_is_asked(file_server, answer, get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", file_server.address)
    file_server.put("http://example.invalid/file.zip", answer(content=CONTENT))

    assert get("http://example.invalid/file.zip") == CONTENT


KILLED = """
import sys
from pathlib import Path
from nucseg_pipeline.fetching.download import Wanted, download
from nucseg_pipeline.fetching.patience import Patience
download(Wanted(url=sys.argv[1]), Path(sys.argv[2]), lambda *_: print("more", flush=True), Patience())
"""


def test_a_killed_download_goes_on_from_what_had_come(file_server, answer, get, part) -> None:
    url = file_server.put("/file.zip", answer(content=CONTENT, cut=HALF, stall_s=60), answer(content=CONTENT))
    child = subprocess.Popen([sys.executable, "-c", KILLED, url, part], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 20
    while part.stat().st_size < HALF // 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    there = part.stat().st_size
    assert HALF // 2 <= there <= HALF

    assert get(url) == CONTENT
    assert ranges(file_server) == [None, f"bytes={there}-"]


def test_a_document_is_read_and_a_large_one_is_not(file_server, answer, hasty: Patience) -> None:
    url = file_server.put("/record", answer(status=503), answer(content=json.dumps({"a": 1}).encode()))

    assert read_document(url, 100, hasty) == b'{"a": 1}'
    with pytest.raises(FetchError, match="more than 5 bytes"):
        read_document(url, 5, hasty)
