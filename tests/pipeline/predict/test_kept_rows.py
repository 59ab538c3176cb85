"""Rows of tiles are read back exactly, only for the same request, and never when a file is damaged."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nucseg.errors import DataError
from nucseg.tiling import Blend
from nucseg_pipeline.predict.kept_rows import Checkpoint, KeptRows

ASKED = {"image": "digest", "overlap": 0.5}


@pytest.fixture
def maps() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    values = [random.normal(size=(2, height, 50)).astype(np.float32) for height in (8, 8, 5)]
    values[1][0, 0, :3] = [np.nan, -0.0, 1e-42]
    return values


def kept(folder: Path, maps: list[np.ndarray], asked: dict[str, object] = ASKED) -> KeptRows:
    rows = KeptRows(folder, asked)
    for number, values in enumerate(maps):
        rows.add(values, Checkpoint(np.full((3, 16, 50), number / 3, np.float32), {"done": 7 * number}))
    return rows


def test_rows_and_state_are_read_back_bit_for_bit(tmp_path: Path, maps: list[np.ndarray]) -> None:
    kept(tmp_path, maps)

    again = KeptRows(tmp_path, dict(reversed(ASKED.items())))

    assert again.n_rows == 3
    assert [row.tobytes() for row in again.rows()] == [row.tobytes() for row in maps]
    state = again.checkpoint()
    assert state is not None
    np.testing.assert_array_equal(state.blended, np.full((3, 16, 50), np.float32(2 / 3)))
    assert state.counts == {"done": 14}


def test_another_request_finds_nothing(tmp_path: Path, maps: list[np.ndarray]) -> None:
    kept(tmp_path, maps)

    for asked in ({**ASKED, "overlap": 0.25}, {**ASKED, "image": "another"}):
        assert (KeptRows(tmp_path, asked).n_rows, KeptRows(tmp_path, asked).checkpoint()) == (0, None)


@pytest.mark.parametrize("file", ["row-00001", "blend-00003"])
@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_damaged_file_is_an_error(tmp_path: Path, maps: list[np.ndarray], file: str, harm: str) -> None:
    path = kept(tmp_path, maps).folder / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content) if harm == "changed" else path.unlink()
    again = KeptRows(tmp_path, ASKED)

    with pytest.raises(DataError, match=rf"{file}, is missing or damaged.*run the same command again"):
        list(again.rows()), again.checkpoint()


def test_a_row_without_its_state_does_not_count(tmp_path: Path, maps: list[np.ndarray]) -> None:
    """As a kill between the files leaves it."""
    rows = kept(tmp_path, maps[:2])
    (rows.folder / "row-00002").write_bytes(b"half a row")
    (rows.folder / "blend-00003").write_bytes(b"half a blend")

    again = KeptRows(tmp_path, ASKED)

    assert len(list(again.rows())) == 2
    assert again.checkpoint() is not None


def test_a_full_disk_ends_the_keeping_and_not_the_prediction(
    tmp_path: Path, maps: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = kept(tmp_path, maps[:2]).n_bytes
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * n_bytes + 1000))

    rows = kept(tmp_path, maps)

    assert rows.n_rows == 2
    assert len(list(KeptRows(tmp_path, ASKED).rows())) == 2


def test_a_restored_blend_continues_exactly() -> None:
    tiles = np.random.default_rng(1).random((3, 1, 8, 8), np.float32)
    whole, first, second = (Blend(1, 8, 12) for _ in range(3))
    for blend in (whole, first):
        blend.add(0, tiles[0])
        blend.add(4, tiles[1])
    np.testing.assert_array_equal(whole.pop_rows(3), first.pop_rows(3))

    second.restore(first.state)

    for blend in (whole, second):
        blend.add(2, tiles[2])
    assert whole.pop_rows(8).tobytes() == second.pop_rows(8).tobytes()
