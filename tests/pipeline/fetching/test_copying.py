"""What the user has downloaded is copied whole, or it is said why not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg_pipeline.fetching.catalogue import CATALOGUE
from nucseg_pipeline.fetching.checking import digest_of
from nucseg_pipeline.fetching.copying import copy_file, copy_folder
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.workplace import place

N_BYTES = 100_000


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder that holds one image of the Data Science Bowl, in a file too large for a small disk."""
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)).save(png, "png")
    mask = io.BytesIO()
    Image.fromarray(np.eye(200, dtype=np.uint8) * 255).save(mask, "png")
    for kind, name, content in (("images", "a", png), ("masks", "1", mask)):
        file = tmp_path / "given" / "a" / kind / f"{name}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(content.getvalue())
    return tmp_path / "given"


def test_a_file_for_which_the_disk_has_no_room_is_told(tmp_path: Path, files_of_at_most) -> None:
    (tmp_path / "weights.pth").write_bytes(bytes(N_BYTES))

    with files_of_at_most(N_BYTES // 2), pytest.raises(FetchError, match=r"weights\.pth cannot be copied .*too large"):
        copy_file(tmp_path / "weights.pth", tmp_path / "weights.pth.part")


def test_a_folder_for_which_the_disk_has_no_room_is_told_with_the_file(given: Path, tmp_path, files_of_at_most) -> None:
    with (
        files_of_at_most(N_BYTES // 2),
        pytest.raises(FetchError, match=r"a/images/a\.png cannot be copied .*too large"),
    ):
        copy_folder(CATALOGUE["dsb2018"], given, tmp_path / "copy", lambda *_: None)


def test_a_folder_is_not_copied_over_another(given: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()

    with pytest.raises(FetchError, match=r"given cannot be copied to .*: File exists"):
        copy_folder(CATALOGUE["dsb2018"], given, tmp_path / "copy", lambda *_: None)


def test_a_file_that_went_away_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"gone\.zip cannot be read: No such file"):
        digest_of(tmp_path / "gone.zip", like="md5:")


def test_what_cannot_be_given_its_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()

    with pytest.raises(FetchError, match=r"away/target cannot be made: No such file.*Move away what is there"):
        place(tmp_path / "made", tmp_path / "away" / "target", {})


def test_what_has_come_into_being_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "target").write_text("of somebody else")

    with pytest.raises(FetchError, match="target has come into being meanwhile"):
        place(tmp_path / "made", tmp_path / "target", {})

    assert (tmp_path / "target").read_text() == "of somebody else"
