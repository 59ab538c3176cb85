"""Archives that are what they should be, and archives made to do harm: nothing of these is left."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nucseg_pipeline.fetching.archive import unpack
from nucseg_pipeline.fetching.errors import FetchError, RefusedError

ROOM = 1 << 20


def made(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these entries, as it is written to a file."""
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
    directory = content.index(b"PK\x01\x02")
    struct.pack_into(form, content, directory + field, value)
    if local is not None:
        struct.pack_into(form, content, local, value)
    return bytes(content)


def renamed(archive: bytes, old: bytes, new: bytes) -> bytes:
    """What zipfile would not write."""
    assert len(old) == len(new)
    assert old in archive
    return archive.replace(old, new)


GOOD = made(("a.txt", b"first"), ("folder/", b""), ("folder/b [1].txt", b"second" * 1000))
STORED = made(("a.txt", b"first"), method=zipfile.ZIP_STORED)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute name": (made(("/etc/passwd", b"x")), "absolute name"),
    "drive letter": (made(("C:/windows/x", b"x")), "absolute name"),
    "leads out": (made(("../x", b"x")), r"leads out of the folder"),
    "leads out in the middle": (made(("a/../../x", b"x")), r"leads out of the folder"),
    "leads out at the end": (made(("a/..", b"x")), r"leads out of the folder"),
    "backslashes": (made(("..\\..\\x", b"x")), "backslash"),
    "link": (made((entry("link", stat.S_IFLNK | 0o777), b"/etc")), "a link, no file"),
    "character device": (made((entry("dev", stat.S_IFCHR | 0o666), b"")), "a device, no file"),
    "block device": (made((entry("dev", stat.S_IFBLK | 0o666), b"")), "a device, no file"),
    "pipe": (made((entry("pipe", stat.S_IFIFO | 0o666), b"")), "a pipe, no file"),
    "socket": (made((entry("socket", stat.S_IFSOCK | 0o666), b"")), "a socket, no file"),
    "unknown kind": (made((entry("odd", 0o150000), b"")), "no file"),
    "folder with content": (made(("folder/", b"content")), "a folder by its name"),
    "folder without a slash": (made((entry("folder", stat.S_IFDIR | 0o755), b"")), "a folder by its kind"),
    "case": (made(("A.txt", b"1"), ("a.txt", b"2")), "case or Unicode form alone"),
    "case of a folder": (made(("Human/a", b"1"), ("human/b", b"2")), "case or Unicode form alone"),
    "sharp s": (made(("stra\u00dfe", b"1"), ("STRASSE", b"2")), "case or Unicode form alone"),
    "Unicode form": (made(("caf\u00e9", b"1"), ("cafe\u0301", b"2")), "case or Unicode form alone"),
    "twice": (renamed(made(("a", b"1"), ("b", b"2")), b"b", b"a"), "is there twice"),
    "file and folder": (made(("a", b"1"), ("a/b", b"2")), "as a folder and as a file"),
    "folder and file": (made(("a/b", b"1"), ("a", b"2")), "as a folder and as a file"),
    "empty step": (made(("a//b", b"x")), "an empty step"),
    "dot": (made(("./a", b"x")), "an empty step"),
    "no name": (patched(patched(made(("x", b"")), 28, "<H", 0), 30, "<H", 1), "an empty step"),
    "NUL first": (renamed(made(("a.png", b"x")), b"a.png", b"\0.png"), "cannot be seen"),
    "NUL": (renamed(made(("a.png_.exe", b"x")), b"a.png_.exe", b"a.png\0.exe"), "cannot be seen"),
    "line break": (made(("a\nb", b"x")), "cannot be seen"),
    "terminal escape": (made(("\x1b[2Ja", b"x")), "cannot be seen"),
    "written right to left": (made(("a\u202egpj.exe", b"x")), "cannot be seen"),
    "long name": (made(("a" * 256, b"x")), "too long a name"),
    "long path": (made(("/".join(["a" * 200] * 6), b"x")), "too long a name"),
    "deep": (made(("/".join("a" * 40), b"x")), "too long a name"),
    "encrypted": (patched(GOOD, 8, "<H", 1, local=6), "is encrypted"),
    "strongly encrypted": (patched(GOOD, 8, "<H", 0x40, local=6), "is encrypted"),
    "unknown method": (patched(GOOD, 10, "<H", 99, local=8), "method 99"),
    "bomb": (made(("a", bytes(ROOM)), ("b", b"1")), f"would unpack to {ROOM + 1} bytes"),
    "states less than it holds": (patched(made(("a", bytes(9000))), 24, "<I", 10, local=22), "damaged"),
    "states more than it holds": (patched(made(("a", bytes(9000))), 24, "<I", 9001, local=22), "damaged"),
    "states no size at all": (patched(made(("a", bytes(9000))), 24, "<I", 0, local=22), "damaged"),
    "overlap": (patched(GOOD, 20, "<I", 10**6), "overlap"),
    "one entry on another": (patched(made(("a", b"11"), ("b", b"22")), 42, "<I", 33), "damaged"),
    "bad checksum": (patched(GOOD, 16, "<I", 1, local=14), "damaged"),
    "bad content": (renamed(STORED, b"first", b"worst"), "damaged"),
    "two names": (STORED.replace(b"a.txt", b"b.txt", 1), "damaged"),
    "header elsewhere": (patched(STORED, 42, "<I", 7), "damaged"),
    "header beyond the end": (patched(STORED, 42, "<I", 10**6), "damaged"),
    "no UTF-8": (renamed(made(("\u00e9\u00e9", b"x")), b"\xc3\xa9\xc3\xa9", b"\xff\xfe\xfd\xfc"), "cut off|damaged"),
    "cut off": (GOOD[:-30], "damaged or cut off"),
    "half": (GOOD[: len(GOOD) // 2], "damaged or cut off"),
    "nothing in it": (made(), "holds no files"),
    "folders alone": (made(("a/", b"")), "holds no files"),
    "empty file": (b"", "no .zip archive"),
    "something else": (b"\x1f\x8b" + bytes(1000), "no .zip archive"),
    "a login page": (b"\n<!DOCTYPE html><title>Log in</title>", "a web page, such as a login"),
}


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        file = tmp_path / "in" / "some [archive].zip"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return file

    return write


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_is_unpacked_as_unzip_does_it(archive, tmp_path: Path, method: int, shown) -> None:
    content = {
        "a.txt": b"first",
        "human b\u00e4r/\u00fc (1).txt": b"second" * 10**5,
        "__MACOSX/._a.txt": b"",
        "x/y/": b"",
    }
    file = archive(made(*content.items(), method=method))

    unpack(file, tmp_path / "out", ROOM, lambda *told: shown.append(told))

    files = {
        str(one.relative_to(tmp_path / "out")): one.read_bytes()
        for one in (tmp_path / "out").rglob("*")
        if one.is_file()
    }
    assert files == {name: data for name, data in content.items() if not name.endswith("/")}
    assert shown[-1][2] == "unpacking some [archive].zip"


@pytest.mark.parametrize(("content", "told"), HOSTILE.values(), ids=HOSTILE)
def test_what_may_do_harm_is_refused_by_name(archive, tmp_path: Path, content: bytes, told: str) -> None:
    file = archive(content)
    (tmp_path / "parent").mkdir()

    with pytest.raises(RefusedError, match=told) as caught:
        unpack(file, tmp_path / "parent" / "out", ROOM, lambda *_: None)

    message = str(caught.value)
    assert message.startswith(f"{file} is not unpacked: ")
    assert message.isprintable()
    assert message.isascii()
    assert {str(one.relative_to(tmp_path)) for one in (*tmp_path.glob("*"), *tmp_path.glob("*/*"))} <= {
        *("in", f"in/{file.name}", "parent", "parent/out")
    }


def test_modes_and_owners_of_an_archive_are_not_taken_over(archive, tmp_path: Path) -> None:
    unpack(archive(made((entry("tool", stat.S_IFREG | 0o6777), b"x"))), tmp_path / "out", ROOM, lambda *_: None)

    assert (tmp_path / "out" / "tool").stat().st_mode & 0o6111 == 0


def test_too_many_entries_are_refused(archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucseg_pipeline.fetching.entries.MOST_ENTRIES", 2)

    with pytest.raises(RefusedError, match="holds 3 entries, where 2 at most"):
        unpack(archive(GOOD), tmp_path / "out", ROOM, lambda *_: None)


def test_a_disk_that_takes_no_more_is_told_with_the_entry(archive, tmp_path: Path, files_of_at_most) -> None:
    large = archive(made(("small", b"x"), ("large", bytes(100_000))))

    with files_of_at_most(50_000), pytest.raises(FetchError, match=r"'large' of .* cannot be written: File too large"):
        unpack(large, tmp_path / "out", ROOM, lambda *_: None)


def test_too_little_room_is_told_and_is_no_fault_of_the_archive(archive, tmp_path: Path, monkeypatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(FetchError, match="are free") as caught:
        unpack(archive(GOOD), tmp_path / "out", ROOM, lambda *_: None)

    assert not isinstance(caught.value, RefusedError)
    assert not (tmp_path / "out").exists()
