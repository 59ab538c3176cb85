"""Where data sets are, whether they are complete, and what the cache holds of them."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data import Entry, dataset_names, open_dataset, release_named
from nucseg.data.cryonuseg import RELEASE as CRYONUSEG
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.status import (
    DatasetStatus,
    check,
    dataset_status,
    dataset_statuses,
    find_dataset,
    protocol_with_folds,
    size_summary,
)
from tests.pipeline.embed.small_dataset import write_dataset

ORGANS = ("AdrenalGland", "Larynx", "LymphNodes", "Mediastinum", "Pancreas", "Pleura", "Skin", "Testis", "Thymus", "Ut")
LABELS = Path("Annotator 1 (biologist)", "label masks modify")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of data sets, the only one that is looked into."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def empty_cryonuseg(folder: Path, n_images: int = 30) -> Path:
    """The files of the release, with nothing in them."""
    names = [f"Human_{organ}_{number:02}.tif" for organ in ORGANS for number in (1, 2, 3)]
    for kind in (Path("tissue images"), LABELS):
        (folder / kind).mkdir(parents=True)
        for name in names[:n_images]:
            (folder / kind / name).touch()
    return folder


def written_cryonuseg(folder: Path, n_images: int = 4) -> Path:
    """Images and instance maps; the number-th image has `number` nuclei, whose ids have gaps."""
    empty_cryonuseg(folder, n_images)
    for number, image in enumerate(sorted((folder / "tissue images").iterdir())):
        instances = np.zeros((16, 16), np.uint16)
        instances[0, :number] = 300 + 5 * np.arange(number)
        tifffile.imwrite(image, np.full((16, 16, 3), number, np.uint8))
        tifffile.imwrite(folder / LABELS / image.name, instances)
    return folder


def statuses(cache: Path | str) -> dict[str, DatasetStatus]:
    return {status.name: status for status in dataset_statuses(str(cache))}


def quiet(done: int, total: int, what: str) -> None:
    pass


def test_every_known_data_set_is_listed_even_if_none_is_there(tmp_path: Path) -> None:
    found = statuses(tmp_path / "no cache")

    assert set(found) == set(dataset_names()) - {"folder"}
    assert found["synthetic"].state == "complete"
    assert {status.state for status in found.values() if status.name != "synthetic"} == {"not found"}
    assert {status.cached for status in found.values()} == {None}


@pytest.mark.parametrize(
    ("n_left_out", "state"), [(668, "complete, 2 of them used"), (5, "7 of 670 images, 2 of them used")]
)
def test_images_that_are_left_out_of_a_complete_copy_are_not_missing(n_left_out: int, state: str) -> None:
    listed = replace(open_dataset("synthetic", None), n_left_out=n_left_out)
    listed = replace(listed, entries=listed.entries[:2])

    status = DatasetStatus("dsb2018", release_named("dsb2018"), "/here", listed, "", None)

    assert status.state == state
    assert status.is_complete == state.startswith("complete")


@pytest.mark.parametrize(("n_images", "state"), [(30, "complete"), (4, "4 of 30 images")])
def test_a_data_set_is_listed_and_not_decoded(data: Path, tmp_path: Path, n_images: int, state: str) -> None:
    folder = empty_cryonuseg(data / "cryonuseg", n_images)

    found = statuses(tmp_path)["cryonuseg"]

    assert (found.state, found.folder, found.problem) == (state, str(folder), "")


def test_a_damaged_data_set_is_reported_in_its_status_and_affects_no_other(data: Path, tmp_path: Path) -> None:
    empty_cryonuseg(data / "cryonuseg")
    (data / "nuinsseg" / "holiday").mkdir(parents=True)
    (data / "conic").mkdir()
    for name in ("images.npy", "labels.npy", "patch_info.csv"):
        (data / "conic" / name).write_bytes(b"\x93NUMPY nonsense")

    found = statuses(tmp_path)

    assert found["nuinsseg"].state.startswith(f"wrong: {data / 'nuinsseg'} is not NuInsSeg")
    assert ". " not in found["nuinsseg"].state
    assert found["conic"].state.startswith("wrong: ")
    assert "images.npy" in found["conic"].state
    assert found["cryonuseg"].state == "complete"


def test_a_folder_that_cannot_be_accessed_is_reported_in_its_status(data: Path, tmp_path: Path, monkeypatch) -> None:
    folder = empty_cryonuseg(data / "cryonuseg")
    is_dir = Path.is_dir

    def refused(path: Path) -> bool:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(folder))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refused)

    assert statuses(tmp_path)["cryonuseg"].state == f"wrong: Permission denied: {folder}"


def store_of_nothing(cache: Path, name: str, source: Path) -> Store:
    preparation = {"side_px": "32"}
    return Store.create(cache / f"{name}.zarr", dataset=name, source=str(source), preparation=preparation)


def test_the_images_and_embeddings_in_the_cache_are_counted(cache: Path) -> None:
    Store.open(cache / "synthetic.zarr", mode="r+").set_present(3, present=False)
    shutil.copytree(cache / "synthetic.zarr", cache / "my [slides].zarr")
    (cache / ".half.zarr").mkdir()
    (cache / "file.zarr").touch()

    found = statuses(cache)

    assert set(found) == {*dataset_names(), "my [slides]"} - {"folder"}
    for name in ("synthetic", "my [slides]"):
        cached = found[name].cached
        assert (cached.n_images, cached.n_embeddings, cached.problem) == (11, 12, "")
        assert cached.location == str(cache / f"{name}.zarr")
    assert (found["my [slides]"].state, found["my [slides]"].release.name) == ("not found", "folder")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("zarr.json", None, "no store: it has no zarr.json"),
        ("zarr.json", b"{", "zarr.json of .* is unreadable"),
        ("zarr.json", b"\xff\x00", "zarr.json of .* is unreadable"),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}', "not a finished store"),
        ("samples/image/zarr.json", b"[]", "array metadata"),
        ("samples/image_digest/c/0/0", None, "row.s. of the samples in .* are damaged or missing"),
        ("embeddings/*/identity/record/zarr.json", b"{}", "array metadata"),
    ],
)
def test_a_damaged_store_is_reported_in_its_status_and_affects_no_other(
    cache: Path, file: str, content: bytes | None, problem: str
) -> None:
    shutil.copytree(cache / "synthetic.zarr", cache / "mine.zarr")
    (damaged,) = (cache / "mine.zarr").glob(file)
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)

    found = statuses(cache)

    assert re.search(problem, found["mine"].cached.problem)
    assert (found["synthetic"].cached.problem, found["synthetic"].cached.n_embeddings) == ("", 12)


def test_a_cache_that_cannot_be_opened_hides_no_data_set(data: Path) -> None:
    empty_cryonuseg(data / "cryonuseg")

    found = statuses("nosuch://bucket")

    assert found["cryonuseg"].state == "complete"
    assert all("nosuch://bucket" in status.cached.problem for status in found.values())


def test_a_store_remembers_where_its_data_set_lies(data: Path, tmp_path: Path) -> None:
    near = empty_cryonuseg(data / "cryonuseg", 4)
    far = empty_cryonuseg(tmp_path / "far", 7)
    cache = tmp_path / "cache"
    for name in ("cryonuseg", "cryonuseg@macenko"):
        store_of_nothing(cache, name, far)

    for name in ("cryonuseg", "cryonuseg@macenko"):
        assert statuses(cache)[name].state == "7 of 30 images"
    shutil.rmtree(far)
    for name in ("cryonuseg", "cryonuseg@macenko"):
        status = statuses(cache)[name]
        assert (status.folder, status.state) == (str(near), "4 of 30 images")
        assert status.dataset is not None
        assert status.dataset.name == name


def test_a_data_set_of_the_users_is_found_by_its_store_or_its_folder(tmp_path: Path) -> None:
    store_of_nothing(tmp_path, "mine", tmp_path / "gone")
    (tmp_path / "slides" / "images").mkdir(parents=True)
    (tmp_path / "slides" / "masks").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / "slides" / kind / "1.png").touch()

    assert find_dataset("mine", str(tmp_path)).state == "not found"
    assert find_dataset("other", str(tmp_path), tmp_path / "slides").state == "1 images"
    with pytest.raises(ConfigError, match=r"'other': known are nuinsseg, .*--source DIR"):
        find_dataset("other", str(tmp_path))


def test_a_given_folder_beats_all_others(data: Path, tmp_path: Path) -> None:
    empty_cryonuseg(data / "cryonuseg")
    given = empty_cryonuseg(tmp_path / "given", 5)
    here = empty_cryonuseg(tmp_path / "elsewhere" / "data" / "nuinsseg")

    assert dataset_status("nuinsseg", str(tmp_path)).folder == str(here)
    assert find_dataset("cryonuseg", str(tmp_path), given).state == "5 of 30 images"
    assert "does not exist" in find_dataset("cryonuseg", str(tmp_path), tmp_path / "none").problem


def test_a_drawn_data_set_takes_no_folder(tmp_path: Path) -> None:
    assert "generated, not read" in find_dataset("synthetic", str(tmp_path), tmp_path).problem
    with pytest.raises(ConfigError, match="generated, not read"):
        open_source("synthetic", tmp_path)


def test_the_check_reads_every_image_and_counts_the_nuclei(tmp_path: Path) -> None:
    dataset = find_dataset("cryonuseg", str(tmp_path), written_cryonuseg(tmp_path / "cryonuseg")).dataset
    reported: list[tuple[int, int]] = []

    found = check(dataset, lambda done, total, what: reported.append((done, total)))

    assert (found.n_images, found.n_nuclei, found.bad) == (4, 0 + 1 + 2 + 3, ())
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_check_names_what_cannot_be_read_and_reads_the_rest(tmp_path: Path) -> None:
    folder = written_cryonuseg(tmp_path / "cryonuseg")
    images = sorted((folder / "tissue images").iterdir())
    images[2].write_bytes(images[2].read_bytes()[:60])
    tifffile.imwrite(folder / LABELS / images[1].name, np.zeros((8, 16), np.uint16))

    found = check(find_dataset("cryonuseg", str(tmp_path), folder).dataset, quiet)

    assert [id_ for id_, _ in found.bad] == [images[1].stem, images[2].stem]
    assert "16 x 8" in found.bad[0][1]
    assert str(images[2]) in found.bad[1][1]
    assert found.n_nuclei == 3


def test_the_check_names_images_that_do_not_look_like_h_and_e_or_are_ignored(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "slides", 3, size=(40, 40), darkest=100)
    (folder / "ignore").mkdir()
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "ignore" / "001.png")
    for name, colours in (("000", (200, 120, 190)), ("002", (150, 150, 150))):
        noise = np.random.default_rng(0).normal(0, 9, (40, 40, 1)) + colours
        Image.fromarray(noise.round().astype(np.uint8)).save(folder / "images" / f"{name}.png")

    notes = check(find_dataset("slides", str(tmp_path), folder).dataset, quiet).notes

    assert "1 of 3 images does not look like H&E: 002 (it is gray). Check them." in notes
    assert any(note.startswith("Every pixel of 1 of 3 images is ignored: 001.") for note in notes)


def test_an_error_that_is_not_about_the_data_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = find_dataset("cryonuseg", str(tmp_path), written_cryonuseg(tmp_path / "cryonuseg")).dataset

    def broken(entry: Entry) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(dataset.entries[0]), "read", broken)
    with pytest.raises(ZeroDivisionError):
        check(dataset, quiet)


def test_the_folds_are_those_of_the_images_that_were_found(tmp_path: Path) -> None:
    assert protocol_with_folds(dataset_status("cryonuseg", str(tmp_path))) == "leave one organ out, 10 folds"
    for n_images, ending in [(7, "With these images: 3 folds"), (3, "use the protocol grouped.")]:
        folder = empty_cryonuseg(tmp_path / str(n_images), n_images)
        assert protocol_with_folds(dataset_status("cryonuseg", str(tmp_path), folder)).endswith(ending)


def test_the_size_is_that_of_the_images_found_or_else_of_the_release(tmp_path: Path) -> None:
    here = dataset_status("cryonuseg", str(tmp_path), empty_cryonuseg(tmp_path / "cryonuseg", 10))

    assert size_summary(here).endswith("0.017 GiB for 10")
    assert size_summary(dataset_status("cryonuseg", str(tmp_path))).endswith(f"0.050 GiB for {CRYONUSEG.n_images}")
    assert size_summary(dataset_status("nuinsseg", str(tmp_path))).startswith("download of 1.6 GB;")
    own = size_summary(dataset_status("folder", str(tmp_path)))
    assert own == "nothing to download; embeddings 1.7 MiB an image in the format f16"


@pytest.mark.shared
def test_the_real_data_sets_are_found_in_part(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(shared / "data"))

    states = {name: status.state for name, status in statuses(tmp_path).items()}

    assert states["nuinsseg"] == "124 of 665 images"
    assert states["cryonuseg"] == "5 of 30 images"
    assert states["conic"] == "1 of 4981 images"
