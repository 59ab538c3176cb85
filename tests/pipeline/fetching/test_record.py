"""What a Zenodo record says of a file, and records that say something else."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.patience import Patience
from nucseg_pipeline.fetching.record import RecordedFile, recorded_file

MD5 = "md5:" + "0123456789abcdef" * 2


@pytest.fixture
def ask(file_server, answer, hasty: Patience) -> Callable[..., RecordedFile]:
    """What a record is understood to say of NuInsSeg.zip."""

    def run(content: Any, *, raw: bytes | None = None) -> RecordedFile:
        data = json.dumps(content).encode() if raw is None else raw
        return recorded_file(file_server.put("/api/records/1", answer(content=data)), "NuInsSeg.zip", hasty)

    return run


@pytest.fixture
def record(file_server) -> dict[str, Any]:
    """A record as the API gives it, as far as it matters."""
    link = f"{file_server.address}/api/records/1/files/NuInsSeg.zip/content"
    file = {"id": "x", "key": "NuInsSeg.zip", "size": 1627, "checksum": MD5, "links": {"self": link}}
    return {"id": 1, "metadata": {"license": {"id": "cc-by-4.0"}}, "files": [{"key": "README"}, file]}


def test_a_record_tells_address_size_digest_and_licence(ask, record: dict[str, Any]) -> None:
    found = ask(record)

    assert found == RecordedFile(record["files"][1]["links"]["self"], 1627, MD5, "cc-by-4.0")
    assert ask({**record, "metadata": {}}).licence == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": "1627"},
        {"size": None},
        {"checksum": "md5:123"},
        {"checksum": MD5.upper()},
        {"checksum": MD5.replace("md5", "crc32")},
        {"checksum": None},
        {"links": {}},
        {"links": None},
        {"links": {"self": "https://example.invalid/NuInsSeg.zip"}},
        {"links": {"self": "/NuInsSeg.zip"}},
    ],
    ids=str,
)
def test_a_file_of_which_something_is_missing_or_elsewhere_is_refused(ask, record, wrong: dict[str, Any]) -> None:
    record["files"][1] |= wrong

    with pytest.raises(FetchError, match="does not state address, size and MD5 of NuInsSeg"):
        ask(record)


@pytest.mark.parametrize("files", [[], None, "x", [1], [{"key": "other.zip"}]], ids=str)
def test_a_record_without_the_file_names_those_it_has(ask, record, files: Any) -> None:
    with pytest.raises(FetchError, match=r"has no file NuInsSeg\.zip; its files: (none|None|'other\.zip')\."):
        ask({**record, "files": files})


@pytest.mark.parametrize(
    "raw", [b"", b"no json", b"\xff\xfe", b"[" * 100_000], ids=["nothing", "text", "bytes", "deep"]
)
def test_an_answer_that_is_no_record_is_refused(ask, raw: bytes) -> None:
    with pytest.raises(FetchError, match="cannot be read"):
        ask(None, raw=raw)
