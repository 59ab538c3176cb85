"""A file is complete or absent, and an error names it."""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nucseg_pipeline.files.atomic import is_temporary, write_whole


def test_a_full_disk_leaves_the_old_file_and_names_it(
    tmp_path: Path, full_disk: Callable[[str], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "last.pt"
    write_whole(path, b"old")

    with full_disk("last.pt"), pytest.raises(OSError, match="No space left") as failed:
        write_whole(path, b"new and longer")

    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir() if not is_temporary(file)] == ["last.pt"]
    write_whole(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"new"]


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        write_whole(tmp_path / "gone" / "last.pt", b"")
    assert failed.value.filename == str(tmp_path / "gone" / "last.pt")
