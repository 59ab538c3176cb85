"""A fault at any write: finished rows are kept, nothing wrong is read, and repeating the operation repairs the rest.

The changes of each operation on disk are counted, then the operation is run repeatedly with a fault at one of them: a
full disk, or a killed process that cleans nothing up.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_cache import EmbeddingNotFound, Key, Store, StoreAccessError
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_sample

KEY = Key({"architecture": "vit_b", "weights": "6923c33d" * 4, "format": "f16"})
I8 = Key({"architecture": "vit_b", "format": "i8"})


@dataclass(frozen=True)
class Operation:
    """An operation on a store of three samples with embeddings of KEY."""

    run: Callable[[Store], object]
    key: Key | None = None
    """The embeddings that it writes, if any."""
    prepare: Callable[[Store], object] = lambda store: None
    """Done before, without a fault."""


OPERATIONS = {
    "append": Operation(lambda store: store.append([make_sample(3), make_sample(4)])),
    "replace": Operation(lambda store: store.replace(1, make_sample(1, image_version=1, mask_version=1))),
    "set present": Operation(lambda store: store.set_present(1, present=False)),
    "remember source": Operation(lambda store: store.remember_source("/elsewhere")),
    "write the first of a key": Operation(lambda store: store.embeddings(I8).write([2], make_embeddings(2)), I8),
    "write again": Operation(lambda store: store.embeddings(KEY).write([0, 2], make_embeddings(10, 12)), KEY),
    "write more": Operation(
        lambda store: store.embeddings(KEY).write([3], make_embeddings(3)),
        KEY,
        prepare=lambda store: store.append([make_sample(3)]),
    ),
    "clear": Operation(lambda store: store.embeddings(KEY).clear([1]), KEY),
}


@pytest.fixture(params=OPERATIONS.values(), ids=OPERATIONS)
def operation(request: pytest.FixtureRequest, embedded: Store) -> Operation:
    """An operation that the store `embedded` has been prepared for."""
    prepared: Operation = request.param
    prepared.prepare(embedded)
    return prepared


@pytest.fixture
def undisturbed(
    operation: Operation, store_path: Path, tmp_path: Path, strike: Callable[..., Any]
) -> tuple[int, dict[str, bytes]]:
    """The number of changes of an operation, and the files after it."""
    path = tmp_path / "undisturbed.zarr"
    shutil.copytree(store_path, path)
    n_changes: int = strike(10**6, "none", lambda: operation.run(Store.open(path, mode="r+"))).n_changes
    return n_changes, dict(Files(path))


def test_a_process_killed_at_any_write(operation, undisturbed, store_path, tmp_path, strike, each_way) -> None:
    n_changes, expected = undisturbed
    assert n_changes >= 1
    for at in moments(n_changes):
        path = tmp_path / f"{at}.zarr"
        shutil.copytree(store_path, path)
        killed = Store.open(path, mode="r+")
        assert strike(at, "killed", lambda store=killed: operation.run(store)).struck

        survivor = Store.open(path, mode="r+")
        every_read_is_right(path, operation, each_way)
        repeat(survivor, operation)

        found = {name: content for name, content in Files(path).items() if not left_behind(name)}
        assert found == expected, f"after a kill at change {at} of {n_changes}"


def test_a_disk_full_at_some_write(operation, undisturbed, store_path, tmp_path, strike, each_way) -> None:
    n_changes, expected = undisturbed
    for at in {n_changes // 2, n_changes} - {0}:
        path = tmp_path / f"{at}.zarr"
        shutil.copytree(store_path, path)
        store = Store.open(path, mode="r+")

        with pytest.raises(
            StoreAccessError, match=r"No space left on device\. Free some space there.*Finished work is kept"
        ):
            strike(at, "full", lambda store=store: operation.run(store))
        every_read_is_right(path, operation, each_way)
        operation.run(store)  # the same object works once there is space

        assert dict(Files(path)) == expected, f"after a full disk at change {at} of {n_changes}"
        assert Store.open(path).table == store.table


def moments(n_changes: int) -> list[int]:
    """All changes; of the first half of a long operation, where arrays are created or extended, every fourth."""
    return [at for at in range(1, n_changes + 1) if n_changes < 15 or at > n_changes // 2 or at % 4 == 1]


def every_read_is_right(path: Path, operation: Operation, each_way: Callable[[], Iterator[str]]) -> None:
    for _ in each_way():
        reads_are_right(Store.open(path), operation)


def reads_are_right(store: Store, operation: Operation) -> None:
    """What a store returns for a row is its content before or after the operation, never anything else."""
    if operation.key is None:
        for row in range(store.n_rows):
            good, bad = store.try_read_samples([row])
            assert len(good) + len(bad) == 1
            assert {b.row for b in bad} <= {b.row for b in store.damaged()}, "not found without reading"
            for found in good:
                version = found.image_digest[1] - 100
                expected = make_sample(row, image_version=version, mask_version=version)
                assert (found.id, found.mask_digest) == (expected.id, expected.mask_digest)
                for name in ("image", "instances", "ignore"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        return
    embeddings = store.embeddings(operation.key)
    missing = set(embeddings.missing(sizes=True))
    try:
        values, bad_rows = embeddings.try_read(range(store.n_rows))
    except EmbeddingNotFound:
        assert missing == {0, 1, 2}
        return
    unread = {bad.row for bad in bad_rows}
    assert missing == unread
    for row in set(range(store.n_rows)) - unread:
        assert any(np.array_equal(values[row], make_embedding(number)) for number in (row, 10 + row))


def repeat(store: Store, operation: Operation) -> None:
    """What the next run does: the operation once more, unless it was completed."""
    damaged = [bad.row for bad in store.damaged()]
    assert damaged in ([], [1]) if operation is OPERATIONS["replace"] else damaged == []
    if not (operation is OPERATIONS["append"] and store.has("image 3")):
        operation.run(store)


def left_behind(name: str) -> bool:
    """Whether a file was left by a killed process, for `prune` to delete."""
    return name.endswith(".partial") or ".tmp/" in name


def test_a_row_finished_before_the_disk_was_full_is_kept(store, strike) -> None:
    embeddings = store.embeddings(KEY)
    embeddings.write([0], make_embeddings(0))

    with pytest.raises(StoreAccessError, match="No space left on device"):
        strike(2, "full", lambda: embeddings.write([1], make_embeddings(1)))

    assert embeddings.missing() == [1, 2]
    np.testing.assert_array_equal(embeddings.read([0])[0], make_embedding(0))


@pytest.mark.usefixtures("way")
def test_a_failure_to_read_is_distinguished_from_damage(embedded, monkeypatch, key) -> None:
    async def refuse(*_: object, **__: object) -> None:
        refuse_at_once()

    def refuse_at_once(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    embeddings = embedded.embeddings(key)
    embeddings.read([0])
    monkeypatch.setattr("zarr.storage.LocalStore.get", refuse)
    monkeypatch.setattr("io.FileIO", refuse_at_once)

    for operation in (
        lambda: embeddings.read([0]),
        embeddings.missing,
        lambda: embedded.read_samples([0]),
        embedded.keys,
        lambda: embedded.find({}),
        lambda: embedded.embeddings(key).embedded_rows(),
        lambda: Store.open(embedded.location),
    ):
        with pytest.raises(StoreAccessError, match=r"Permission denied\. Get the permission, or choose another"):
            operation()


@pytest.mark.usefixtures("way")
def test_a_file_that_cannot_be_opened_is_named(embedded, store_path, key) -> None:
    file = store_path / f"embeddings/{key.hash}/identity/record/c/0/0"
    file.unlink()
    file.symlink_to(file)

    with pytest.raises(
        StoreAccessError, match=rf"Fix that file, or delete {file}\. Then run `nucseg cache verify {store_path}`"
    ):
        Store.open(store_path).embeddings(key).read([0])


def test_a_file_in_place_of_a_folder_or_the_reverse_is_named(embedded, store_path, key) -> None:
    values = store_path / f"embeddings/{key.hash}/identity/values/c"
    shutil.rmtree(values / "0")
    (values / "0").write_text("x")
    (values / "1/0/0/0").unlink()
    (values / "1/0/0/0").mkdir()

    for row, message in ((0, "a folder is needed: delete {}/0,"), (1, r"a file is needed: delete {}/1/0/0/0\.")):
        with pytest.raises(StoreAccessError, match=message.format(values)):
            embedded.embeddings(key).write([row], np.ones((1, 256, 64, 64), np.float32))
