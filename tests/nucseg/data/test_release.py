"""The facts about published data sets, and the rules shared by their readers."""

from dataclasses import fields
from pathlib import Path

import pytest

from nucseg.data import Release, dataset_names, open_dataset, release_named, releases
from nucseg.data.file_entries import FileEntry
from nucseg.data.release import count_note, folders_with, labelled_part, release_folder
from nucseg.errors import DataError

TILES = Release(
    name="tiles",
    title="Tiles (Someone et al. 2020)",
    contents="",
    n_images=100,
    licence="",
    home="",
    download_gb=None,
    layout=("tiles/<name>.png, the images", "labels/<name>.png, their labels"),
    instructions=("Fetch it.", "Give the folder of `tiles`."),
)


def holds_tiles(folder: Path) -> bool:
    return (folder / "tiles").is_dir()


def entries(n_images: int) -> list[FileEntry]:
    return [
        FileEntry(id=f"{i:03d}", group="a", stratum="a", image_file=Path(f"{i}.png"), instances_file=Path(f"{i}.tif"))
        for i in range(n_images)
    ]


def test_releases_come_in_the_order_of_the_names() -> None:
    assert [known.name for known in releases()] == list(dataset_names())
    assert dataset_names() == ("nuinsseg", "cryonuseg", "conic", "dsb2018", "folder", "synthetic")
    assert [release_named(name) for name in dataset_names()] == list(releases())


@pytest.mark.parametrize(
    ("name", "n_images", "licence", "home"),
    [
        ("nuinsseg", 665, "check the record", "zenodo.org/records/10518968"),
        ("cryonuseg", 30, "CC BY-NC-SA 4.0", "ipateam/segmentation-of-nuclei-in-cryosectioned-he-images"),
        ("conic", 4981, "CC BY-NC-SA 4.0", "grand-challenge.org"),
        ("dsb2018", 670, "CC0", "BBBC038"),
    ],
)
def test_numbers_licences_and_sources_are_correct(name, n_images, licence, home) -> None:
    known = release_named(name)

    assert known.n_images == n_images
    assert licence in known.licence
    assert home in known.home


@pytest.mark.parametrize("known", releases(), ids=dataset_names())
def test_a_release_has_all_information_needed_to_get_it(known) -> None:
    may_be_empty = {"home"} if known.name in ("folder", "synthetic") else set()
    may_be_none = {"n_images", "download_gb"}
    for field in fields(known):
        value = getattr(known, field.name)
        assert value or field.name in may_be_empty or (value is None and field.name in may_be_none), field.name
    assert "--source" in known.instructions[-1]


def test_the_number_of_synthetic_images_is_correct() -> None:
    assert len(open_dataset("synthetic", None).entries) == release_named("synthetic").n_images


@pytest.mark.parametrize("name", [name for name in dataset_names() if name not in ("folder", "synthetic")])
def test_a_wrong_folder_is_refused_with_layout_content_and_advice(name, tmp_path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "readme.txt").write_text("")
    known = release_named(name)

    with pytest.raises(DataError) as error:
        open_dataset(name, tmp_path)

    message = str(error.value)
    assert message.startswith(f"{tmp_path} is not {known.title.split(' (')[0]}")
    assert all(line in message for line in known.layout)
    assert "It holds readme.txt, slides/." in message
    assert message.endswith(known.instructions[-1])


def test_an_empty_folder_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"is not Tiles\. Expected .* It holds nothing"):
        release_folder(TILES, tmp_path, holds_tiles)


@pytest.mark.parametrize("place", [".", "release", "release/release"])
def test_a_release_is_found_in_the_folder_or_nested_in_it(tmp_path, place) -> None:
    (tmp_path / place / "tiles").mkdir(parents=True)
    (tmp_path / "other").mkdir()

    assert release_folder(TILES, tmp_path, holds_tiles) == tmp_path / place


def test_a_release_two_folders_down_under_another_name_is_not_searched_for(tmp_path) -> None:
    (tmp_path / "downloads" / "release" / "tiles").mkdir(parents=True)

    assert folders_with(tmp_path, holds_tiles) == []


def test_the_folder_itself_is_preferred_to_copies_inside_it(tmp_path) -> None:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "copy" / "tiles").mkdir(parents=True)

    assert release_folder(TILES, tmp_path, holds_tiles) == tmp_path


def test_several_copies_are_refused(tmp_path) -> None:
    for place in ("2021/tiles", "2024/2024/tiles"):
        (tmp_path / place).mkdir(parents=True)

    with pytest.raises(DataError, match=r"holds Tiles 2 times: 2021, 2024/2024\. Choose one"):
        release_folder(TILES, tmp_path, holds_tiles)


@pytest.mark.parametrize(("n_images", "n_missing"), [(100, 0), (100, 1), (199, 1), (200, 2), (665, 6)])
def test_one_image_in_a_hundred_may_lack_a_label(n_images, n_missing) -> None:
    kept, notes = labelled_part(TILES, entries(n_images), lambda entry: int(entry.id) >= n_missing, "labels/")

    assert [entry.id for entry in kept] == [f"{i:03d}" for i in range(n_missing, n_images)]
    assert len(notes) == (1 if n_missing else 0)
    assert not n_missing or "Tiles: left out because they have no label: 000" in notes[0]


@pytest.mark.parametrize(("n_images", "n_missing"), [(1, 1), (99, 1), (100, 2), (665, 7)])
def test_more_images_without_a_label_are_an_error(n_images, n_missing) -> None:
    with pytest.raises(DataError, match=rf"{n_missing} of {n_images} Tiles images have no label in labels/: 000"):
        labelled_part(TILES, entries(n_images), lambda entry: int(entry.id) >= n_missing, "labels/")


@pytest.mark.parametrize(
    ("n_found", "note"),
    [
        (99, ("Tiles: 99 of the 100 released images.",)),
        (100, ()),
        (101, ("Tiles: 101 images, but the release has 100.",)),
    ],
)
def test_a_number_of_images_other_than_the_releases_is_in_a_note(n_found, note) -> None:
    assert count_note(TILES, n_found) == note
