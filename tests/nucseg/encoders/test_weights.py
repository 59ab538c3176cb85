"""Weights are found by their official name, and identified by their digest."""

from pathlib import Path

import platformdirs
import pooch
import pytest

from nucseg.encoders import ARCHITECTURES, PublishedVit, VitShape, asked_identity, weights
from nucseg.encoders.weights import WeightsFile, find_weights, weights_folders
from nucseg.errors import EncoderError

EMPTY_FILE_XXH128 = "99aa06d3014798d86001c324468d497f"  # of the reference implementation, seed 0


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's own weights folder and the cache folder, and an architecture whose official file is empty."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(own))
    monkeypatch.setattr(weights, "user_cache_path", lambda name: cache / name)
    shape = VitShape(embed_dim=16, depth=1, num_heads=1, global_blocks=())
    vit = PublishedVit(shape=shape, file_name="sam_empty.pth", file_digest=EMPTY_FILE_XXH128)
    monkeypatch.setitem(ARCHITECTURES, "empty", vit)
    (cache / "nucseg" / "weights").mkdir(parents=True)
    own.mkdir()
    return own, cache / "nucseg" / "weights"


def test_the_digest_is_xxh128_as_pooch_computes_it(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 100_000)  # more than is read at a time

    assert WeightsFile.of(path).digest == pooch.file_hash(str(path), alg="xxh128")


def test_the_users_own_folder_comes_before_the_cache_folder(folders: tuple[Path, Path]) -> None:
    own, cache = folders
    (cache / "sam_empty.pth").touch()
    assert find_weights("empty", None).path == cache / "sam_empty.pth"

    (own / "sam_empty.pth").touch()
    assert find_weights("empty", None).path == own / "sam_empty.pth"


def test_without_a_folder_of_the_users_own_the_cache_folder_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUCSEG_WEIGHTS", raising=False)

    assert weights_folders() == (Path(platformdirs.user_cache_dir("nucseg")) / "weights",)


def test_weights_not_found_name_the_file_the_folders_the_download_and_the_option(folders: tuple[Path, Path]) -> None:
    with pytest.raises(EncoderError) as caught:
        find_weights("vit_b", None)

    for part in (
        "sam_vit_b_01ec64.pth",
        str(folders[0]),
        str(folders[1]),
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        "--weights",
        "`nucseg fetch vit_b`",
    ):
        assert part in str(caught.value)


def test_a_file_found_by_name_must_be_the_official_one(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "sam_empty.pth"
    path.write_bytes(b"not empty")

    with pytest.raises(EncoderError, match=r"Move it away and run `nucseg fetch empty`.*--weights") as caught:
        find_weights("empty", None)

    assert EMPTY_FILE_XXH128 in str(caught.value)
    assert pooch.file_hash(str(path), alg="xxh128") in str(caught.value)


def test_a_file_given_may_be_any_and_beats_the_one_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "sam_empty.pth").touch()
    given = tmp_path / "tuned.pth"
    given.write_bytes(b"tuned")

    assert find_weights("empty", given).path == given
    assert asked_identity("empty", weights=given)["weights"] == pooch.file_hash(str(given), alg="xxh128")


def test_a_given_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(EncoderError, match="Cannot read weights") as caught:
            find_weights("vit_b", path)
        assert str(path) in str(caught.value)


def test_a_file_that_changed_after_it_was_digested_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    file = WeightsFile.of(path)
    file.check_unchanged()

    path.write_bytes(b"second")

    with pytest.raises(EncoderError, match="changed while it was read"):
        file.check_unchanged()

    path.unlink()
    with pytest.raises(EncoderError, match="changed while it was read"):
        file.check_unchanged()
