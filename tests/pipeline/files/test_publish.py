import errno
import os
import threading
from pathlib import Path

import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.files import publish as files
from nucseg_pipeline.files.publish import check_writable, write_files


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_files_are_written_into_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "run"
    write_files(folder, {"a.csv": "1\n", "b.html": "é"})

    assert contents(folder) == {"a.csv": "1\n", "b.html": "é"}


def test_an_older_report_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    write_files(tmp_path, {"a.csv": "new"})

    assert contents(tmp_path) == {"a.csv": "new", "notes.txt": "mine"}


def test_a_full_disk_leaves_the_older_report_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a.csv": "old", "b.html": "old"})
    synced = []

    def fills_up(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(ConfigError, match=r"No space left.*--out, or free some space\."):
        write_files(tmp_path, {"a.csv": "new", "b.html": "new"})

    assert contents(tmp_path) == {"a.csv": "old", "b.html": "old"}


def test_a_place_that_cannot_be_written_to_is_found_out_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigError, match="cannot be written"):
        check_writable(tmp_path / "file" / "report")
    with pytest.raises(ConfigError, match=r"cannot be written .*: .*exists\. Choose another folder with --out\.$"):
        check_writable(tmp_path / "file")


def test_finding_out_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = tmp_path / "report"
    kept.mkdir()
    check_writable(tmp_path / "new")
    check_writable(kept)

    assert list(tmp_path.iterdir()) == [kept]
    assert list(kept.iterdir()) == []


def test_what_a_killed_report_left_goes_and_what_another_one_writes_stays(tmp_path: Path) -> None:
    (tmp_path / ".report-killed").mkdir()
    (tmp_path / ".report-killed" / "a.csv").write_text("half")
    written = threading.Event()

    def another() -> None:
        write_files(tmp_path, {"a.csv": "second"})
        written.set()

    with files._draft(tmp_path) as draft:
        thread = threading.Thread(target=another)
        thread.start()
        assert not written.wait(0.2)
        (draft / "a.csv").write_text("first")
        (draft / "a.csv").replace(tmp_path / "a.csv")
    thread.join()

    assert contents(tmp_path) == {"a.csv": "second"}
