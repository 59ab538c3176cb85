"""Download files with pooch, through a downloader that continues partial files.

pooch verifies the digest, and only then gives the file its name. Its own HTTPDownloader starts from zero after every
interruption and keeps a login page as if it were the file, so `_continue` replaces it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from nucseg_pipeline.fetch.connection import RetryPolicy, check_response, readable_errors, root_cause
from nucseg_pipeline.fetch.errors import FetchError, RefusedError
from nucseg_pipeline.fetch.staging import check_space

if TYPE_CHECKING:
    from nucseg_pipeline.progress import Progress

_MIB = 1 << 20
_CHUNK_BYTES = 1 << 16
_MAX_PAUSE_S = 60.0

_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server."""

    name: str
    url: str
    digest: str = ""
    """`algorithm:hexadecimal`; empty if none is published."""
    licence: str = ""
    """As the Zenodo record states it."""


def zenodo_file(record: str, name: str, policy: RetryPolicy) -> RemoteFile:
    """The file called `name` in the Zenodo record at an API address. FetchError if the record does not describe it.

    pooch's DOIDownloader reads records as well, but does not repeat requests, and Zenodo is often busy.
    """
    with policy.session() as session, readable_errors(record):
        response = session.get(record, timeout=(policy.connect_s, policy.read_s))
        check_response(response, record)
    try:
        content = response.json()
        file = {file["key"]: file for file in content["files"]}[name]
        licence = content["metadata"].get("license", {}).get("id", "")
        if not file["checksum"].startswith("md5:"):
            raise ValueError(f"checksum {file['checksum']}")
        return RemoteFile(name, file["links"]["self"], file["checksum"], licence)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FetchError(f"The record {record} does not describe {name} as expected: {error!a}.") from None


def retrieve(file: RemoteFile, folder: Path, progress: Progress, policy: RetryPolicy) -> Path:
    """Download a file into `folder`, continuing what an earlier call left there; `progress` counts MiB.

    Raises:
        RefusedError: the file does not have the published digest.
        FetchError: it could not be downloaded; what has arrived is kept.
    """
    part = folder / f"{file.name}.part"

    def download(url: str, output: str, _: object) -> None:
        with policy.session() as session, readable_errors(url):
            _retry(session, file, part, progress, policy)
        Path(output).unlink()
        try:
            os.link(part, output)  # if this is killed before pooch has verified the digest, the part is still there
        except OSError:  # a file system without hard links
            part.rename(output)

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(file.url, file.digest or None, fname=file.name, path=folder, downloader=download))
    except ValueError as error:  # pooch's message states both digests
        raise RefusedError(str(error)) from None


def _retry(session: requests.Session, file: RemoteFile, part: Path, progress: Progress, policy: RetryPolicy) -> None:
    """Ask for the rest of a file until it is complete, or several attempts in a row made no progress."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            _continue(session, file, part, progress, policy)
            return
        except HTTPError as error:  # urllib3's: the connection broke in the middle of a response
            n_bytes = _size(part)
            failures = 1 if n_bytes >= farthest + _MIB else failures + 1
            farthest = max(farthest, n_bytes)
            if failures >= policy.attempts:
                reason = (
                    f"no data for {policy.read_s:g} s" if isinstance(error, ReadTimeoutError) else root_cause(error)
                )
                kept = f" {n_bytes} bytes have arrived and are kept: the next attempt continues there." * (n_bytes > 0)
                raise FetchError(
                    f"{file.url} cannot be downloaded: {reason}, {failures} times in a row.{kept}"
                ) from None
            time.sleep(min(policy.backoff_s * 2 ** (failures - 1), _MAX_PAUSE_S))


def _continue(session: requests.Session, file: RemoteFile, part: Path, progress: Progress, policy: RetryPolicy) -> None:
    """Request the rest of a file, or all of it if it has changed on the server since the part was downloaded.

    If the server does not tell versions apart, only a part whose digest will be verified is continued.
    """
    version = _noted_version(part)
    start = _size(part) if version or (version is not None and file.digest) else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    with session.get(file.url, headers=headers, stream=True, timeout=(policy.connect_s, policy.read_s)) as response:
        status, content_range = response.status_code, response.headers.get("Content-Range", "")
        if start and status == _RANGE_NOT_SATISFIABLE and content_range == f"bytes */{start}":
            return  # nothing is missing
        if status in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
            # a server that ignores If-Range sends the rest of whatever it has now
            if not content_range.startswith(f"bytes {start}-") or _version(response) not in ("", version):
                _version_file(part).unlink(missing_ok=True)
                raise HTTPError("the server sent other bytes than those requested")
        else:
            start = 0
        check_response(response, file.url)
        check_space(part.parent, response.raw.length_remaining or 0, file.url)
        _write(response, part, start, progress)


def _write(response: requests.Response, part: Path, start: int, progress: Progress) -> None:
    """Append the content of a response to a part; `start` of 0 begins a new one."""
    total = start + (response.raw.length_remaining or 0)
    try:
        if not start:  # in this order: the version noted is never that of other bytes
            _version_file(part).unlink(missing_ok=True)
            part.write_bytes(b"")
            _version_file(part).write_text(_version(response))
        with part.open("ab") as file:
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                done = file.tell()
                progress(done // _MIB, max(total, done, _MIB) // _MIB, f"downloading {part.stem}")
    except OSError as error:
        raise FetchError(
            f"{part} cannot be written: {error.strerror}. What has arrived is kept; correct that and try again."
        ) from None


def _version(response: requests.Response) -> str:
    """The strong ETag of a remote file, otherwise its date; empty if the server sent neither."""
    etag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag


def _noted_version(part: Path) -> str | None:
    """The version of the remote file to which a part belongs; None if nothing valid is noted."""
    file = _version_file(part)
    version = file.read_text(errors="replace") if file.is_file() else None
    return version if version is not None and version.isprintable() else None


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
