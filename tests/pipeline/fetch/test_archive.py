"""Archives are unpacked completely, or refused with nothing left of them outside their folder."""

import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nucseg_pipeline.fetch.archive import unpack
from nucseg_pipeline.fetch.errors import FetchError, RefusedError

MAX_BYTES = 1 << 20


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content, compress_type=method)
    return file.getvalue()


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    return info


def patched(archive: bytes, field: int, form: str, value: int, *, local: int | None = None) -> bytes:
    """The archive with a field of its first entry changed, in the directory (offset `field`) and in its own header."""
    content = bytearray(archive)
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + field, value)
    if local is not None:
        struct.pack_into(form, content, local, value)
    return bytes(content)


def renamed(archive: bytes, old: bytes, new: bytes) -> bytes:
    """Names that zipfile would not write."""
    assert len(old) == len(new)
    assert old in archive
    return archive.replace(old, new)


GOOD = zipped(("a.txt", b"first"), ("folder/", b""), ("folder/b [1].txt", b"second" * 1000))
STORED = zipped(("a.txt", b"first"), method=zipfile.ZIP_STORED)

REFUSED: dict[str, tuple[bytes, str]] = {
    "absolute path": (zipped(("/etc/passwd", b"x")), "has an absolute path"),
    "drive letter": (zipped(("C:/windows/x", b"x")), "has an absolute path"),
    "leaves": (zipped(("../x", b"x")), "leaves the folder"),
    "leaves in the middle": (zipped(("a/../../x", b"x")), "leaves the folder"),
    "leaves at the end": (zipped(("a/..", b"x")), "leaves the folder"),
    "leaves by backslashes": (zipped(("..\\..\\x", b"x")), "leaves the folder"),
    "backslash": (zipped(("a\\b", b"x")), "invalid name"),
    "symbolic link": (zipped((entry("link", stat.S_IFLNK | 0o777), b"/etc")), "is a link or a device"),
    "device": (zipped((entry("dev", stat.S_IFCHR | 0o666), b"")), "is a link or a device"),
    "pipe": (zipped((entry("pipe", stat.S_IFIFO | 0o666), b"")), "is a link or a device"),
    "case": (zipped(("A.txt", b"1"), ("a.txt", b"2")), "differ only in case"),
    "twice": (renamed(zipped(("a", b"1"), ("b", b"2")), b"b", b"a"), "names are equal"),
    "no name": (patched(patched(zipped(("x", b"")), 28, "<H", 0), 30, "<H", 1), "invalid name"),
    "NUL": (renamed(zipped(("a.png_.exe", b"x")), b"a.png_.exe", b"a.png\0.exe"), "invalid name"),
    "terminal escape": (zipped(("\x1b[2Ja", b"x")), "invalid name"),
    "right to left": (zipped(("a\u202egpj.exe", b"x")), "invalid name"),
    "encrypted": (patched(GOOD, 8, "<H", 1, local=6), "encrypted"),
    "unknown method": (patched(GOOD, 10, "<H", 99, local=8), "compression method"),
    "bomb": (zipped(("a", bytes(MAX_BYTES)), ("b", b"1")), f"would unpack to {MAX_BYTES + 1} bytes"),
    "understated size": (patched(zipped(("a", bytes(9000))), 24, "<I", 10, local=22), "damaged"),
    "no size at all": (patched(zipped(("a", bytes(9000))), 24, "<I", 0, local=22), "damaged"),
    "overlap": (patched(zipped(("a", b"11"), ("b", b"22")), 42, "<I", 33), "damaged"),
    "bad checksum": (patched(GOOD, 16, "<I", 1, local=14), "damaged"),
    "bad content": (renamed(STORED, b"first", b"worst"), "damaged"),
    "truncated": (GOOD[: len(GOOD) // 2], "damaged or truncated"),
    "nothing in it": (zipped(), "contains no files"),
    "folders only": (zipped(("a/", b"")), "contains no files"),
    "empty file": (b"", "not a .zip archive"),
    "another format": (b"\x1f\x8b" + bytes(1000), "not a .zip archive"),
    "a login page": (b"\n<!DOCTYPE html><title>Log in</title>", "a web page, such as a login page"),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def run(content: bytes) -> Path:
        file = tmp_path / "in" / "some [archive].zip"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return file

    return run


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_is_unpacked_with_progress(write, tmp_path: Path, method: int) -> None:
    content = {"a.txt": b"first", "human b\u00e4r/\u00fc (1).txt": b"second" * 10**5, "empty": b"", "x/y/": b""}
    steps: list[tuple[int, int, str]] = []

    unpack(
        write(zipped(*content.items(), method=method)), tmp_path / "out", MAX_BYTES, lambda *step: steps.append(step)
    )

    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files} == {
        name: data for name, data in content.items() if not name.endswith("/")
    }
    assert all(0 <= done <= total for done, total, _ in steps)
    assert steps[-1][2] == "unpacking some [archive].zip"


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_unsafe_or_damaged_archive_is_refused(write, tmp_path: Path, content: bytes, reason: str) -> None:
    file = write(content)
    (tmp_path / "parent").mkdir()

    with pytest.raises(RefusedError, match=reason) as caught:
        unpack(file, tmp_path / "parent" / "out", MAX_BYTES, lambda *_: None)

    message = str(caught.value)
    assert message.startswith(f"{file} is not unpacked: ")
    assert message.isprintable()
    assert message.isascii()
    written = {str(path.relative_to(tmp_path)) for path in (*tmp_path.glob("*"), *tmp_path.glob("*/*"))}
    assert written <= {"in", f"in/{file.name}", "parent", "parent/out"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_and_a_folder_of_the_same_name_are_an_error(write, tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(write(zipped(*((name, b"x") for name in names))), tmp_path / "out", MAX_BYTES, lambda *_: None)


def test_file_modes_are_not_taken_from_the_archive(write, tmp_path: Path) -> None:
    archive = write(zipped((entry("tool", stat.S_IFREG | 0o6777), b"x")))

    unpack(archive, tmp_path / "out", MAX_BYTES, lambda *_: None)

    assert (tmp_path / "out" / "tool").stat().st_mode & 0o6111 == 0


def test_a_full_disk_is_not_blamed_on_the_archive(write, tmp_path: Path, max_file_size, monkeypatch) -> None:
    archive = write(zipped(("small", b"x"), ("large", bytes(100_000))))
    with max_file_size(50_000), pytest.raises(FetchError, match=r"cannot be unpacked to .*: File too large") as caught:
        unpack(archive, tmp_path / "out", MAX_BYTES, lambda *_: None)
    assert not isinstance(caught.value, RefusedError)

    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match="are free") as caught:
        unpack(archive, tmp_path / "other", MAX_BYTES, lambda *_: None)
    assert not isinstance(caught.value, RefusedError)
    assert not (tmp_path / "other").exists()
