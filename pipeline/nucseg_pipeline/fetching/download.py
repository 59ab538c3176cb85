"""Downloads that go on where they stopped, and end where nothing more can come of them.

pooch computes the digests (`pooch.file_hash`). Its downloader, however, neither resumes nor notices that an answer
stalls, is cut off or is of another file, and `pooch.retrieve` deletes what has come: so this speaks to requests itself,
which honours HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg_pipeline.fetching.answers import Broken, Kept, NotTheRest, discard, judge, request_headers, resumable
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.patience import Patience, persist, pieces
from nucseg_pipeline.fetching.workplace import check_space

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file on a server."""

    url: str
    n_bytes: int | None = None
    """Its size where its publisher states it."""
    about_bytes: int = 0
    """Its size as far as it is known otherwise; more than four times as much is never taken. 0: not known."""
    has_digest: bool = False
    """Whether it is held against a digest afterwards."""
    is_archive: bool = False
    """Whether it is unpacked afterwards, which takes its own size again at the least."""

    @property
    def most_bytes(self) -> int | None:
        """Where an answer is cut off that tells no size; None for nowhere."""
        return self.n_bytes or 4 * self.about_bytes or None


def download(wanted: Wanted, part: Path, progress: Progress, patience: Patience) -> None:
    """Bring a file into `part`, from where an earlier call, killed or not, has stopped.

    `progress` is called with MiB. What has come stays for the next call, unless it is known to be wrong.

    Raises:
        FetchError: not to be had, not what it should be, or no room for it.
    """
    import requests

    def attempt(session: requests.Session) -> None:
        try:
            _attempt(session, wanted, part, progress, patience)
        except NotTheRest:
            discard(part)
            raise

    with requests.Session() as session:
        persist(wanted.url, lambda: attempt(session), lambda: _size(part), patience)


def read_document(url: str, most_bytes: int, patience: Patience) -> bytes:
    """What a small document at an address holds. Raises FetchError where it cannot be had, or holds more."""
    import requests

    def attempt(session: requests.Session) -> bytes:
        with _asked(session, url, request_headers(0, None), patience) as response:
            _, known = judge(response, url, 0, None)
            content = b"".join(pieces(response, most_bytes + 1, patience))
        if len(content) > most_bytes:
            raise FetchError(f"{url} holds more than {most_bytes} bytes, so it is not what it should be.")
        _check_length(url, len(content), known.total)
        return content

    with requests.Session() as session:
        return persist(url, lambda: attempt(session), lambda: 0, patience)


def _attempt(session: requests.Session, wanted: Wanted, part: Path, progress: Progress, patience: Patience) -> None:
    start, kept = resumable(wanted.url, part, has_digest=wanted.has_digest)
    if kept is not None and start == kept.total:
        return
    with _asked(session, wanted.url, request_headers(start, kept), patience) as response:
        start, kept = judge(response, wanted.url, start, kept)
        total = _expected_bytes(wanted, kept)
        check_space(part.parent, total * (2 if wanted.is_archive else 1) - start, wanted.url)
        if start == 0:
            discard(part)
            kept.write(part)
        most = kept.total or wanted.most_bytes
        coming = pieces(response, most - start + 1 if most else None, patience)
        done = _append(coming, part, lambda done: progress(done // MIB, max(total, done, MIB) // MIB, _doing(part)))
    _check_length(wanted.url, done, kept.total or wanted.n_bytes)
    if kept.total is None and done > (most or done):
        discard(part)
        raise FetchError(f"{wanted.url} does not end: {done} bytes came where {most} at most were expected.")


def _append(coming: Iterator[bytes], part: Path, show: Callable[[int], None]) -> int:
    """Add what comes to a part, and bring it to the disk whatever happens; its size then."""
    try:
        with part.open("ab") as file:
            try:
                for piece in coming:
                    file.write(piece)
                    show(file.tell())
            finally:
                file.flush()
                os.fsync(file.fileno())
            return file.tell()
    except OSError as error:
        raise FetchError(
            f"{part} cannot be written: {error.strerror or error}. What has come is kept; mend that and run the same "
            "command again."
        ) from None


def _expected_bytes(wanted: Wanted, kept: Kept) -> int:
    """Size of the whole file as far as anybody tells it. FetchError where server and publisher do not agree."""
    if wanted.n_bytes and kept.total is not None and kept.total != wanted.n_bytes:
        raise FetchError(f"{wanted.url} has {kept.total} bytes, where its publisher states {wanted.n_bytes}.")
    return kept.total or wanted.n_bytes or wanted.about_bytes


def _check_length(url: str, n_bytes: int, expected: int | None) -> None:
    if expected is not None and n_bytes < expected:
        raise Broken(f"{n_bytes} of {expected} bytes came")


@contextmanager
def _asked(
    session: requests.Session, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    timeout = (patience.connect_s, patience.stall_s)
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        yield response


def _doing(part: Path) -> str:
    return f"downloading {part.name.removesuffix('.part')}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
