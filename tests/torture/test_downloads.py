"""Random faults of servers and archives: what is fetched is correct, or it is refused and nothing of it is left."""

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.connection import RetryPolicy
from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.fetch.stage import fetch

QUICK = RetryPolicy(connect_s=1, read_s=0.1, attempts=3, backoff_s=0.0005)
CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
N_IMAGES = 3


def dsb2018_files() -> dict[str, bytes]:
    """The H&E part of a small Data Science Bowl, in the order of its archive."""
    files = {}
    for number in range(N_IMAGES):
        for name, values in (
            (f"id{number}/images/id{number}.png", np.random.default_rng(number).integers(0, 255, (24, 24, 3))),
            (f"id{number}/masks/1.png", np.eye(24) * 255),
        ):
            file = io.BytesIO()
            Image.fromarray(values.astype(np.uint8)).save(file, "png")
            files[name] = file.getvalue()
    return files


FILES = dsb2018_files()

SERVERS: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "download: connection closed early": lambda draw: {"cut": int(draw.integers(len(CONTENT)))},
    "download: connection stalls": lambda draw: {"cut": int(draw.integers(len(CONTENT))), "stall_s": 60},
    "download: wrong sizes": lambda draw: {"length": int(draw.integers(2 * len(CONTENT)))},
    "download: wrong ranges": lambda draw: draw.choice(
        [
            {"content": OTHER, "headers": {"Content-Range": f"bytes {draw.integers(10**6)}-{10**6}/{10**6}"}},
            {"content": OTHER, "headers": {"Content-Range": f"bytes */{len(CONTENT)}"}},
            {"content": OTHER, "status": 206},
            {"status": 416},
            {"ranges": False, "cut": 1000},
        ]
    ),
    "download: file changes on the server": lambda draw: {
        "content": OTHER[: draw.integers(1, len(OTHER))],
        "etag": draw.choice(['"second"', "", 'W/"first"', '"first"']),
    },
    "download: HTTP errors": lambda draw: {"status": int(draw.choice([401, 403, 404, 410, 429, 500, 503]))},
    "download: web page or wrong file": lambda draw: draw.choice(
        [
            {"content": b"<html>", "headers": {"Content-Type": "text/html"}},
            {"content": b"<!doctype html>", "etag": ""},
            {"content": b"", "etag": '"none"'},
            {"content": OTHER, "etag": '"other"'},
            {"content": CONTENT[::-1], "headers": {"Content-Encoding": "gzip"}},
        ]
    ),
}


@pytest.fixture
def target_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Create the folder for what a trial fetches."""

    def run(trial: int) -> Path:
        folder = tmp_path / f"trial {trial}"
        folder.mkdir()
        monkeypatch.setenv("NUCSEG_DATA", str(folder))
        monkeypatch.setenv("NUCSEG_WEIGHTS", str(folder))
        return folder

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    release = replace(CATALOGUE["dsb2018"].release, n_images=N_IMAGES)
    monkeypatch.setitem(CATALOGUE, "dsb2018", replace(CATALOGUE["dsb2018"], release=release))
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    monkeypatch.setitem(CATALOGUE, "vit_b", replace(CATALOGUE["vit_b"], digest=digest))
    return run


def failure(name: str, local: Path | None = None) -> str:
    """Why fetching fails; empty if it succeeds."""
    try:
        fetch(name, local, progress=lambda *_: None, retry=QUICK)
    except FetchError as error:
        return str(error)
    return ""


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", SERVERS)
def test_no_server_brings_a_wrong_file_into_place(fault, file_server, answer, target_folder, profile, ledger) -> None:
    for trial in range(profile.trials(short=6, long=150)):
        draw = profile.random(1, list(SERVERS).index(fault), trial)
        folder, path = target_folder(trial), f"/{trial}/sam_vit_b_01ec64.pth"
        right = answer(content=CONTENT, etag=str(draw.choice(['"first"', "", 'W/"first"'])))
        bad = [replace(right, **SERVERS[fault](draw)) for _ in range(draw.integers(1, 5))]
        first = [replace(right, cut=int(draw.integers(len(CONTENT))))] if draw.random() < 0.7 else []
        url = file_server.put(path, *first, *bad, right)
        CATALOGUE["vit_b"] = replace(CATALOGUE["vit_b"], url=url)
        target = folder / "sam_vit_b_01ec64.pth"
        message = failure("vit_b")
        early = message if target.exists() else ""
        file_server.put(path, right)
        again = failure("vit_b") if message else ""
        again = failure("vit_b") if again else ""  # a complete part of another file is refused once more
        wrong = early or again or ("" if target.read_bytes() == CONTENT else "other content")
        ledger.judge(fault, wrong=wrong and f"trial {trial}: {wrong}", refused=bool(message))


def zipped(files: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return file.getvalue()


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = (kind | 0o777) << 16, 3
    return info


def leaving(draw: np.random.Generator) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """An entry that would be written outside the folder."""
    up, inside = "../" * int(draw.integers(1, 6)), "id0/" * int(draw.integers(0, 3))
    name = draw.choice(
        [f"{up}x", f"{inside}{up}x", f"{inside}{up}", "/x", "//x", "C:/x", f"..\\x{up}", "id0\\..\\..\\x"]
    )
    return [(str(name), b"harm")]


def linking(draw: np.random.Generator) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """A link or device, possibly with a file in it."""
    kind = int(draw.choice([stat.S_IFLNK, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]))
    return [(special("door", kind), b".."), *([("door/x", b"harm")] if draw.random() < 0.5 else [])]


def colliding(draw: np.random.Generator) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """A name that collides with another on some file systems, or has invisible characters."""
    other = str(draw.choice(list(FILES)))
    name = draw.choice([other.upper(), other + "/x", other.partition("/")[0], f"{other}\u200b", f"\x1b[2J{other}"])
    return [(str(name), b"harm")]


ENTRIES = {
    "archive: entries outside the folder": leaving,
    "archive: entries that are links or devices": linking,
    "archive: entries with colliding or invisible names": colliding,
}


@pytest.mark.parametrize("fault", ENTRIES)
def test_nothing_of_a_hostile_archive_is_unpacked(fault, tmp_path, target_folder, profile, ledger) -> None:
    for trial in range(profile.trials(short=10, long=300)):
        draw = profile.random(2, list(ENTRIES).index(fault), trial)
        entries: list[tuple[str | zipfile.ZipInfo, bytes]] = list(FILES.items())
        at = int(draw.integers(len(entries) + 1))
        local = tmp_path / "local.zip"
        local.write_bytes(zipped([*entries[:at], *ENTRIES[fault](draw), *entries[at:]]))
        target_folder(trial)
        before = files_in(tmp_path)
        message = failure("dsb2018", local)
        written = files_in(tmp_path).keys() - before.keys()
        wrong = "" if message and not written else f"trial {trial}: wrote {written} with the message {message!r}"
        ledger.judge(fault, wrong=wrong, refused=True)


def changed_bytes(whole: bytes, draw: np.random.Generator) -> bytes:
    damaged = bytearray(whole)
    for where in draw.integers(len(whole), size=int(draw.integers(1, 4))):
        damaged[where] ^= int(draw.integers(1, 256))
    return bytes(damaged)


def misplaced_piece(whole: bytes, draw: np.random.Generator) -> bytes:
    at, length, source = int(draw.integers(len(whole))), int(draw.integers(1, 200)), int(draw.integers(len(whole)))
    return whole[:at] + whole[source : source + length] + whole[at + length :]


DAMAGE: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "archive: truncated": lambda whole, draw: whole[: draw.integers(len(whole))],
    "archive: bytes changed": changed_bytes,
    "archive: bytes misplaced": misplaced_piece,
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_archive_is_never_unpacked_wrongly(fault, tmp_path, target_folder, profile, ledger) -> None:
    whole = zipped(list(FILES.items()))
    for trial in range(profile.trials(short=12, long=1000)):
        draw = profile.random(3, list(DAMAGE).index(fault), trial)
        local = tmp_path / "local.zip"
        local.write_bytes(DAMAGE[fault](whole, draw))
        target = target_folder(trial) / "dsb2018"
        message = failure("dsb2018", local)
        right = not target.exists() if message else files_in(target) == FILES
        ledger.judge(fault, wrong="" if right else f"trial {trial}: {message or 'other files'}", refused=bool(message))


KILLED = """
import sys
from dataclasses import replace
from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.stage import fetch
dsb2018 = CATALOGUE["dsb2018"]
CATALOGUE["dsb2018"] = replace(dsb2018, url=sys.argv[1], release=replace(dsb2018.release, n_images=3))
fetch("dsb2018", progress=lambda *step: print(step, flush=True))
"""


def kill_fetch(url: str, draw: np.random.Generator) -> None:
    """Fetch in another process, and kill it at a random moment."""
    command = [sys.executable, "-c", KILLED, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ) as child:
        assert child.stdout is not None
        for _ in range(draw.integers(1, 12)):
            child.stdout.readline()
        time.sleep(draw.exponential(0.003))
        child.send_signal(signal.SIGKILL)


def test_a_fetch_killed_anywhere_ends_in_the_right_files(file_server, answer, target_folder, profile, ledger) -> None:
    content = zipped(list(FILES.items()))
    for trial in range(profile.trials(short=3, long=60)):
        draw = profile.random(4, trial)
        folder = target_folder(trial)
        url = file_server.put(f"/{trial}.zip", answer(content=content, cut=len(content) // 2), answer(content=content))
        CATALOGUE["dsb2018"] = replace(CATALOGUE["dsb2018"], url=url)
        kill_fetch(url, draw)
        early = files_in(folder / "dsb2018") if (folder / "dsb2018").exists() else FILES
        message = failure("dsb2018")
        left = [path.name for path in folder.iterdir() if path.name.endswith(".part")]
        wrong = message or left or early != FILES or files_in(folder / "dsb2018") != FILES
        ledger.judge(
            "fetch killed while it downloads, unpacks or verifies",
            wrong=f"trial {trial}: {message or left or 'other files'}" if wrong else "",
            refused=False,
        )
