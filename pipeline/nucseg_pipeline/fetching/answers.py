"""What a server answers to a request for a file, or for the rest of one: judged before a byte of it is kept."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.workplace import read_json, write_json

if TYPE_CHECKING:
    import requests

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be others in a moment."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Broken(Exception):
    """An attempt came to nothing, where another one may not."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """How long the server asks to wait."""


class NotTheRest(Broken):
    """The answer is not the rest of the file of which a part is here: begin anew."""


@dataclass(frozen=True)
class Kept:
    """Which file on the server a part on the disk belongs to; noted beside the part."""

    url: str
    total: int | None
    """Size of the whole file in bytes, where the server told it."""
    etag: str = ""
    """Its strong ETag, as it came."""
    modified: str = ""
    """Its Last-Modified, as it came."""

    @classmethod
    def of(cls, part: Path) -> Kept | None:
        """What was noted beside a part; None where nothing usable is."""
        content = read_json(_note(part))
        texts = (content.get(name) for name in ("url", "etag", "modified"))
        if not all(isinstance(text, str) for text in texts) or not isinstance(content.get("total"), int | None):
            return None
        return cls(**content)  # type: ignore[arg-type]

    def write(self, part: Path) -> None:
        """Note it beside the part."""
        write_json(_note(part), asdict(self))

    @property
    def validator(self) -> str:
        """What tells this version of the file from others; empty where the server gave nothing."""
        return self.etag or self.modified


def resumable(url: str, part: Path, *, has_digest: bool) -> tuple[int, Kept | None]:
    """How many bytes of a part can be gone on with, and what file they are of; what cannot is deleted.

    Where the server gave neither ETag nor Last-Modified only a digest would notice a rest of another file.
    """
    kept = Kept.of(part)
    n_bytes = part.stat().st_size if part.is_file() else 0
    if n_bytes and kept and kept.url == url and (kept.validator or has_digest) and n_bytes <= (kept.total or n_bytes):
        return n_bytes, kept
    discard(part)
    return 0, None


def discard(part: Path) -> None:
    """Delete a part and what is noted of it, the note first: a part without one is never gone on with."""
    _note(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def request_headers(start: int, kept: Kept | None) -> dict[str, str]:
    """Ask for the file as it is stored, or for the rest of that very file."""
    headers = {"Accept-Encoding": "identity"}
    if start and kept is not None:
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": kept.validator} if kept.validator else {}
    return headers


def judge(response: requests.Response, url: str, start: int, kept: Kept | None) -> tuple[int, Kept]:
    """Where the bytes of the answer begin, at `start` or at 0, and which file they are of.

    Raises:
        Broken: busy, or not the rest of the file that was asked for.
        FetchError: not there, not allowed, no file, or by way of an unencrypted address.
    """
    _refuse_detour(response, url)
    status = response.status_code
    if status in _BUSY:
        raise Broken(f"the server answers {status} {response.reason}", _retry_after(response))
    if status == _PARTIAL and kept is not None and _is_the_rest(response, start, kept):
        return start, kept
    if status in (_PARTIAL, _UNSATISFIABLE):
        raise NotTheRest(f"the server answers {status} with other bytes than those asked for")
    if status != _OK:
        raise FetchError(f"{url} cannot be downloaded: the server answers {status} {response.reason}.")
    _refuse_other_content(response, url)
    etag = response.headers.get("ETag", "")
    modified = response.headers.get("Last-Modified", "")
    return 0, Kept(url, _length(response), "" if etag.startswith("W/") else etag, modified)


def _is_the_rest(response: requests.Response, start: int, kept: Kept) -> bool:
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != start or response.headers.get("Content-Encoding", "identity") != "identity":
        return False
    same_size = found[3] == "*" or kept.total in (None, int(found[3]))
    # a server that knows nothing of If-Range sends the rest of whatever it has now
    etag, modified = response.headers.get("ETag", kept.etag), response.headers.get("Last-Modified", kept.modified)
    return same_size and (etag == kept.etag if kept.etag else modified == kept.modified)


def _refuse_detour(response: requests.Response, url: str) -> None:
    """An encrypted address must not lead to one that anybody on the way can answer for."""
    if urlsplit(url).scheme != "https":
        return
    for one in (*response.history, response):
        if urlsplit(one.url).scheme != "https":
            raise FetchError(f"{url} leads to {one.url}, which is not encrypted, so what comes could be anybody's.")


def _refuse_other_content(response: requests.Response, url: str) -> None:
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
        raise FetchError(
            f"{url} answers with a web page (text/html) in place of the file: a login, or a notice of the network that "
            "this machine is in."
        )
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise FetchError(f"{url} comes as {encoding}, though it was asked for as it is stored; a proxy may do that.")


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _retry_after(response: requests.Response) -> float:
    """Seconds; 0 where the server names none, or a date."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
