"""The images to predict, their names, and what a folder holds besides."""

from pathlib import Path

import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.predict.image_list import named_images, skipped_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.tif", "b.ome.tif", "b.jpg", "c.ome.tif", "d.webp", "e.svs"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_files_that_differ_only_in_their_suffix_keep_it_in_their_names(folder: Path) -> None:
    named = named_images([folder])

    assert {name: file.name for name, file in named.items()} == {
        "a": "a.png",
        "b.jpg": "b.jpg",
        "b.ome.tif": "b.ome.tif",
        "b.tif": "b.tif",
        "c": "c.ome.tif",
        "d": "d.webp",
        "e": "e.svs",
    }


def test_a_file_that_is_given_twice_is_one_image(folder: Path) -> None:
    assert list(named_images([folder / "a.png", folder / ".." / folder.name / "a.png"])) == ["a"]


def test_images_of_one_name_in_two_folders_are_refused(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "a.png").write_bytes(b"")

    with pytest.raises(ConfigError, match=r"would both be written to a folder a\.png"):
        named_images([folder, folder / "other"])


def test_files_of_a_folder_that_are_no_images_are_counted(folder: Path) -> None:
    assert skipped_in([folder, folder / "a.png"]) == ()
    for name in ("notes.txt", "x.gif", "y.gif", ".DS_Store"):
        (folder / name).write_bytes(b"")

    (note,) = skipped_in([folder])

    assert f"3 in {folder} (.gif: 2, .txt: 1)" in note
    assert " svs, " in note


def test_subfolders_are_named_because_they_are_not_searched(folder: Path) -> None:
    (folder / "patient-1").mkdir()

    assert skipped_in([folder]) == (
        f"Subfolders are not searched: {folder / 'patient-1'}. Name them too if they hold images.",
    )
