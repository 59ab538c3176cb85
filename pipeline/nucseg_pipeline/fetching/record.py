"""What a Zenodo record states of one of its files: address, size, MD5."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nucseg_pipeline.fetching.download import read_document
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.patience import Patience

_MOST_BYTES = 1 << 22
_MD5 = re.compile(r"md5:[0-9a-f]{32}")


@dataclass(frozen=True)
class RecordedFile:
    """One file of a record."""

    url: str
    n_bytes: int
    digest: str
    """`md5:hexadecimal`."""
    licence: str
    """Of the record, by Zenodo's id, such as cc-by-4.0; empty where it states none."""


def recorded_file(record: str, file_name: str, patience: Patience) -> RecordedFile:
    """Ask the record at an address for its file `file_name`.

    Raises FetchError where the record cannot be read, does not have the file, or does not state what is needed.
    """
    content = _json(read_document(record, _MOST_BYTES, patience), record)
    files = content.get("files")
    named = [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    found = next((file for file in named if file.get("key") == file_name), None)
    if found is None:
        names = ", ".join(ascii(file.get("key")) for file in named[:5]) or "none"
        raise FetchError(f"The record {record} has no file {file_name}; its files: {names}.")
    links, metadata = found.get("links"), content.get("metadata")
    url = links.get("self") if isinstance(links, dict) else None
    size, digest = found.get("size"), found.get("checksum")
    if (
        not isinstance(size, int)
        or size <= 0
        or not isinstance(digest, str)
        or not _MD5.fullmatch(digest)
        or not _beside(url, record)
    ):
        raise FetchError(
            f"The record {record} does not state address, size and MD5 of {file_name} as expected: found {url!a}, "
            f"{size!a}, {digest!a}."
        )
    return RecordedFile(str(url), size, digest, _licence(metadata))


def _json(data: bytes, record: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"The record {record} cannot be read: {error}.") from None
    return content if isinstance(content, dict) else {}


def _beside(url: object, record: str) -> bool:
    """Whether a file's address is on the same server as the record, and as well encrypted."""
    return isinstance(url, str) and urlsplit(url)[:2] == urlsplit(record)[:2]


def _licence(metadata: object) -> str:
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    name = licence.get("id") if isinstance(licence, dict) else None
    return name if isinstance(name, str) and name.isprintable() else ""
