"""A folder belongs to one process at a time, and one that stays empty is not left behind."""

import fcntl
import threading
from pathlib import Path

import pytest

from nucseg_pipeline.files.locks import locked


class Busy(Exception):
    """What a test asks for where the folder is taken."""


def test_a_second_process_is_refused_and_does_not_remove_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with locked(folder, Busy()):
        with pytest.raises(Busy), locked(folder, Busy()):
            pass
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_only_empty_folders_that_were_created_are_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    with locked(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "file").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", "runs", "a", "file"}


def test_without_an_error_to_raise_a_second_one_waits(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with locked(tmp_path / "a"):
            entered.set()

    thread = threading.Thread(target=second)
    with locked(tmp_path / "a"):
        thread.start()
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flock, removed = tmp_path / "a", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not removed:  # a process that wrote nothing ends here
            removed.append(folder.rmdir())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(folder, Busy()):
        assert folder.is_dir()
        with pytest.raises(Busy), locked(folder, Busy()):
            pass


def test_a_folder_that_cannot_be_created_leaves_no_parents_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"), locked(tmp_path / "file" / "a", Busy()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
