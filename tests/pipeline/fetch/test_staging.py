"""One process at a time prepares a target, and nothing that exists is replaced."""

from pathlib import Path

import pytest

from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.fetch.staging import clean_up, move_into_place, staging_folder


def test_a_target_is_staged_by_one_process_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "data" / "target"

    with staging_folder(target) as folder:
        (folder / "part").write_text("")
        with pytest.raises(FetchError, match="Another process is fetching"), staging_folder(target):
            pass
        clean_up(target)
        assert (folder / "part").exists(), "the staging folder of a running process was deleted"
    clean_up(target)

    assert not folder.exists()


def test_an_unused_staging_folder_leaves_nothing(tmp_path: Path) -> None:
    with staging_folder(tmp_path / "new" / "data" / "target"):
        pass

    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "target").write_text("mine")

    with pytest.raises(FetchError, match="target was created by something else"):
        move_into_place(tmp_path / "staged", tmp_path / "target", {})

    assert (tmp_path / "target").read_text() == "mine"


def test_a_target_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()

    with pytest.raises(FetchError, match=r"missing/target cannot be created: No such file"):
        move_into_place(tmp_path / "staged", tmp_path / "missing" / "target", {})
