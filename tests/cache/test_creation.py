"""A store is created completely or not at all: under a temporary name that is then renamed."""

import pytest

from nucseg_cache import CacheError, Store, StoreAccessError, StoreExists, StoreNotFound
from tests.cache.drawn_store import Files, make_store


def test_a_killed_creation_leaves_nothing_that_opens_and_the_next_one_cleans_up(strike, tmp_path) -> None:
    make_store(tmp_path / "undisturbed.zarr", 0)
    expected = dict(Files(tmp_path / "undisturbed.zarr"))
    n_changes = strike(10**6, "none", lambda: make_store(tmp_path / "counted.zarr", 0)).n_changes
    assert n_changes > 15

    for at in (1, 2, 9, 18, *range(n_changes - 3, n_changes + 1)):
        folder = tmp_path / str(at)
        folder.mkdir()
        assert strike(at, "killed", lambda path=folder / "d.zarr": make_store(path, 0)).struck
        left = sorted(path.name for path in folder.iterdir())
        assert left[-1] == ".d.zarr.lock"
        with pytest.raises(StoreNotFound):
            Store.open(folder / "d.zarr")

        make_store(folder / "d.zarr", 0)

        assert dict(Files(folder / "d.zarr")) == expected
        assert sorted(path.name for path in folder.iterdir()) == [".d.zarr.lock", "d.zarr"]


def test_a_full_disk_during_creation_is_reported_and_leaves_nothing(strike, tmp_path) -> None:
    for at in (1, 7, 20):
        with pytest.raises(StoreAccessError, match=r"No space left on device\. Free some space there"):
            strike(at, "full", lambda: make_store(tmp_path / "d.zarr", 0))

        assert [path.name for path in tmp_path.iterdir()] == [".d.zarr.lock"]


def test_the_leftovers_of_other_stores_are_not_touched(tmp_path) -> None:
    others = [f".d.zarr.old.{'a' * 32}.tmp", f".other.zarr.{'a' * 32}.tmp", ".d.zarr.notes.tmp", "d.zarr.tmp"]
    for name in (*others, f".d.zarr.{'a' * 32}.tmp"):
        (tmp_path / name).mkdir()

    make_store(tmp_path / "d.zarr", 0)

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "d.zarr", ".d.zarr.lock"])


def test_of_two_processes_that_create_at_once_one_wins_and_the_other_gets_store_exists(process, tmp_path) -> None:
    program = """
        store = Path(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(8):
            try:
                make_store(store / f"{n}.zarr", 1)
                print("made", end=" ")
            except StoreExists:
                print("exists", end=" ")
    """
    children = [process(program, tmp_path), process(program, tmp_path)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    outcomes = [child.communicate(timeout=300)[0].split() for child in children]

    assert [child.returncode for child in children] == [0, 0]
    assert [{*pair} for pair in zip(*outcomes, strict=True)] == [{"made", "exists"}] * 8
    for n in range(8):
        assert Store.open(tmp_path / f"{n}.zarr").n_rows == 1


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "full.zarr").mkdir()
    (tmp_path / "full.zarr" / "x").write_text("x")
    (tmp_path / "file.zarr").write_text("x")

    assert make_store(tmp_path / "empty.zarr").n_rows == 3
    for name in ("full.zarr", "file.zarr"):
        with pytest.raises(StoreExists, match="already exists, and a store is only created in an empty place"):
            make_store(tmp_path / name)


def test_the_folders_above_are_made(tmp_path) -> None:
    assert make_store(tmp_path / "a" / "b" / "d.zarr").n_rows == 3


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(
        StoreAccessError, match=r"creating the folder .*file failed: .*choose another place with --cache"
    ):
        make_store(tmp_path / "file" / "d.zarr")


@pytest.mark.parametrize("side_px", ["eight", ""])
def test_a_preparation_without_a_side_leaves_nothing(tmp_path, side_px) -> None:
    with pytest.raises((CacheError, ValueError)):
        Store.create(tmp_path / "d.zarr", dataset="d", source="", preparation={"side_px": side_px})

    assert not (tmp_path / "d.zarr").exists()
