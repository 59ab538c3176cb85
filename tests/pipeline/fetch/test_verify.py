"""What is already in place is verified, and never changed."""

from pathlib import Path

import pytest

from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.fetch.verify import digest_of


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["nuinsseg", "dsb2018", "vit_b"])
def test_what_was_fetched_is_not_downloaded_again(published, get, name: str) -> None:
    first = get(name)
    before = first.path.stat()
    published.server.requests.clear()

    second = get(name)

    assert (second.path, second.is_new) == (first.path, False)
    after = second.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert published.server.requests == []


def test_a_file_that_is_missing_since_the_fetch_is_reported(published, get, failure) -> None:
    path = get("nuinsseg").path
    next(path.rglob("b_1.tif")).unlink()

    message = failure("nuinsseg")

    assert "has changed since it was fetched: found 5 files of " in message
    assert f"move {path} away" in message


def test_an_incomplete_data_set_is_reported_and_kept(published, failure) -> None:
    write(
        {name: data for name, data in published.files["nuinsseg"].items() if "b_2" not in name},
        published.data / "nuinsseg",
    )

    message = failure("nuinsseg")

    assert "found 2 images, expected 3. You can use it as it is: `nucseg embed --dataset nuinsseg`" in message
    assert published.server.requests == []


def test_another_folder_in_the_place_of_a_data_set_is_reported_and_kept(published, failure, files_in) -> None:
    folder = write({"mine.txt": b"mine"}, published.data / "nuinsseg")

    assert "is not NuInsSeg" in (message := failure("nuinsseg"))
    assert f"move {folder} away" in message
    assert files_in(folder) == {"mine.txt": b"mine"}


def test_a_complete_data_set_that_the_user_put_in_place_is_accepted(published, get) -> None:
    folder = write(published.files["nuinsseg"], published.data / "nuinsseg")

    assert not get("nuinsseg").is_new
    assert published.server.requests == []
    assert get("nuinsseg", folder).checks == ("3 images read, with 6 nuclei",)
    assert "unchanged since the fetch" in get("nuinsseg").checks[0]


def test_other_weights_of_that_name_are_reported_and_kept(published, failure, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "sam_vit_b_01ec64.pth"
    file.write_bytes(b"tuned")

    assert f"move {file} away" in failure("vit_b")
    assert file.read_bytes() == b"tuned"


def test_weights_in_the_users_cache_folder_are_found(published, get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nucseg.encoders.weights.user_cache_path", lambda name: tmp_path / "cache")
    file = tmp_path / "cache" / "weights" / "sam_vit_b_01ec64.pth"
    write({file.name: published.weights}, file.parent)

    assert get("vit_b").path == file
    assert published.server.requests == []


def test_an_unreadable_file_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"missing\.zip cannot be read: No such file"):
        digest_of(tmp_path / "missing.zip", "md5")
