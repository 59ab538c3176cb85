"""verify finds and clears damaged rows; prune deletes what is named and what was left behind, and nothing else."""

import shutil

import numpy as np
import pytest

from nucseg_cache import EmbeddingNotFound, Store, StoreAccessError, StoreDamaged, StoreNotFound, prune, verify
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_key, make_sample

LEFT = "0123456789abcdef" * 2


def test_an_intact_store_has_no_findings_and_is_not_changed(embedded, files) -> None:
    before, seen = dict(files), []

    found = verify(embedded.location, progress=lambda done, total: seen.append((done, total)))

    assert (found.n_samples, found.n_embeddings, found.findings, found.cleared) == (3, 3, (), True)
    assert dict(files) == before
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)


def test_bad_embeddings_are_cleared_and_everything_else_is_kept(embedded, key, files) -> None:
    other = make_key(format="i8")
    embedded.embeddings(other).write([0, 2], make_embeddings(0, 2))
    embedded.set_present(0, present=False)
    before = dict(files)
    for damaged, row in ((key, 0), (key, 2), (other, 2)):
        file = f"embeddings/{damaged.hash}/identity/values/c/{row}/0/0/0"
        files[file] = files[file][:-1]

    found = verify(embedded.location)

    assert {(finding.what, finding.bad.row, finding.bad.id) for finding in found.findings} == {
        (f"{key.hash}/identity", 0, "image 0"),
        (f"{key.hash}/identity", 2, "image 2"),
        (f"{other.hash}/identity", 2, "image 2"),
    }
    assert (embedded.embeddings(key).missing(), embedded.embeddings(other).missing()) == ([2], [1, 2])
    assert [info.row for info in embedded.embeddings(key).embedded_rows()] == [1]
    assert verify(embedded.location).findings == ()

    embedded.embeddings(key).write([0, 2], make_embeddings(0, 2))
    embedded.embeddings(other).write([2], make_embeddings(2))
    assert dict(files) == before


@pytest.mark.parametrize("clear", [True, False])
def test_rows_that_another_process_replaces_meanwhile_are_neither_bad_nor_cleared(embedded, key, clear) -> None:
    other, replaced = Store.open(embedded.location, mode="r+"), []

    def replace(done: int, total: int) -> None:
        if not replaced:  # the samples were read, the embeddings were not
            replaced.append(done)
            other.replace(1, make_sample(1, image_version=1))
            other.embeddings(key).write([1], make_embedding(1, image_version=1)[None])
            other.replace(2, make_sample(2, image_version=1))

    found = verify(embedded.location, clear=clear, progress=replace)

    assert found.findings == ()
    assert Store.open(embedded.location).embeddings(key).missing() == [2]


def test_samples_rewritten_before_they_are_read_are_not_bad(two_blocks) -> None:
    read = []

    def replace(done: int, total: int) -> None:
        if not read:  # the second block was not read yet
            two_blocks.replace(65, make_sample(65, image_version=1))
        read.append(done)

    assert verify(two_blocks.location, progress=replace).findings == ()
    assert read == [64, 67]


def test_embeddings_deleted_meanwhile_are_not_bad(embedded, key) -> None:
    def delete(done: int, total: int) -> None:
        if done == 3:
            prune(embedded.location, keys=[key.hash])

    assert verify(embedded.location, progress=delete).findings == ()


def test_without_clear_nothing_is_changed(embedded, key, files) -> None:
    file = f"embeddings/{key.hash}/identity/values/c/1/0/0/0"
    files[file] = files[file][1:]
    before = dict(files)

    found = verify(embedded.location, clear=False)

    assert [(finding.bad.row, finding.bad.id) for finding in found.findings] == [(1, "image 1")]
    assert not found.cleared
    assert dict(files) == before


def test_damaged_samples_are_found_and_then_known_without_reading_them(embedded, files) -> None:
    name = "samples/image/c/1/0/0/0"
    files[name] = files[name][:40] + bytes([files[name][40] ^ 1]) + files[name][41:]
    assert Store.open(embedded.location).damaged() == []

    findings = verify(embedded.location, clear=False).findings
    assert [(finding.what, finding.bad.row, finding.bad.id) for finding in findings] == [("samples", 1, "image 1")]
    assert Store.open(embedded.location).damaged() == []
    verify(embedded.location)

    found = Store.open(embedded.location, mode="r+")
    assert [(bad.row, bad.reason) for bad in found.damaged()] == [(1, "its image or masks were found damaged")]
    assert len(found.table) == 3
    assert found.matches_record(1, make_sample(1))
    found.replace(1, make_sample(1))
    assert verify(embedded.location).findings == ()


@pytest.mark.parametrize("array", ["stored", "record"])
def test_damaged_records_and_sizes_of_embeddings_are_found(embedded, key, files, array) -> None:
    name = next(file for file in files if file.startswith(f"embeddings/{key.hash}/identity/{array}/c/"))
    files[name] = b"nonsense"

    found = verify(embedded.location)

    assert [finding.bad.row for finding in found.findings] == [0, 1, 2]
    assert embedded.embeddings(key).missing() == [0, 1, 2]
    assert verify(embedded.location).findings == ()


def test_damaged_sizes_of_samples_are_found(embedded, files) -> None:
    files["samples/stored/c/0/0"] = b"nonsense"

    found = verify(embedded.location)

    assert [(finding.what, finding.bad.row) for finding in found.findings] == [("samples", row) for row in range(3)]


@pytest.mark.parametrize("view", ["", "/identity"])
def test_unreadable_embeddings_can_be_pruned_as_the_message_says(embedded, store_path, key, files, view) -> None:
    name = f"{key.hash}{view}"
    files[f"embeddings/{name}/zarr.json"] = b"{"
    with pytest.raises(StoreDamaged, match=f"`nucseg cache prune {store_path} --key {name}`"):
        embedded.embeddings(key).read([0])

    prune(store_path, keys=[name])

    assert [left for left in files if left.startswith(f"embeddings/{name}/")] == []
    assert Store.open(store_path).embeddings(key).missing() == [0, 1, 2]


@pytest.mark.parametrize("view", ["", "/identity"])
def test_a_file_in_place_of_embeddings_can_be_pruned(embedded, store_path, key, view) -> None:
    place = store_path / "embeddings" / f"{key.hash}{view}"
    shutil.rmtree(place)
    place.write_text("x")

    prune(store_path, keys=[f"{key.hash}{view}"])

    assert not place.exists()


def test_a_row_repaired_meanwhile_is_not_cleared(embedded, key, files) -> None:
    file = f"embeddings/{key.hash}/identity/values/c/1/0/0/0"
    before, read = dict(files), []
    files[file] = files[file][1:]

    def repair(done: int, total: int) -> None:
        read.append(done)
        if done == total:  # the damage was read, and nothing was cleared yet
            files[file] = before[file]

    assert verify(embedded.location, progress=repair).findings == ()
    assert read == [3, 6]
    assert dict(files) == before


def test_prune_deletes_the_named_key_and_what_was_left_behind(embedded, key, files, store_path) -> None:
    before, other = dict(files), make_key(weights="another")
    for view in ("identity", "flip-x"):
        embedded.embeddings(other, view).write([0], make_embeddings(0))
    leftovers = [
        f"samples/image/c/1/0/0/0.{LEFT}.partial",
        f"zarr.{LEFT}.partial",
        f"embeddings/.{key.hash}.{LEFT}.tmp/identity/values/c/0/0/0/0",
        f"embeddings/{key.hash}/.flip-x.{LEFT}.tmp/zarr.{LEFT}.partial",
        f"../.drawn.zarr.{LEFT}.tmp/zarr.json",
    ]
    kept = [f"../.other.zarr.{LEFT}.tmp/zarr.json", "notes.tmp", "embeddings/read me.partial", "../drawn.tmp"]
    for name in (*leftovers, *kept):
        files[name] = b"x"

    done = prune(embedded.location, keys=[other.hash])

    assert (done.keys, done.n_leftovers) == ((other.hash,), len(leftovers))
    assert Store.open(embedded.location).keys() == (key,)
    found = dict(files)
    assert {name: found.pop(name) for name in ("notes.tmp", "embeddings/read me.partial")}
    assert found == before
    assert sorted(path.name for path in store_path.parent.iterdir()) == sorted(
        ["drawn.zarr", ".drawn.zarr.lock", f".other.zarr.{LEFT}.tmp", "drawn.tmp"]
    )


def test_prune_without_keys_deletes_no_embeddings(embedded, files) -> None:
    before = dict(files)

    assert prune(embedded.location).n_leftovers == 0

    assert dict(files) == before


def test_an_unknown_key_stops_prune_before_anything_is_deleted(embedded, key, files) -> None:
    files["zarr." + LEFT + ".partial"] = b"x"
    before = dict(files)

    with pytest.raises(EmbeddingNotFound, match=f"has no embeddings 0123; it has {key.hash}"):
        prune(embedded.location, keys=[key.hash, "0123"])

    assert dict(files) == before


def test_a_pruned_key_can_be_written_again(embedded, key) -> None:
    embeddings = embedded.embeddings(key)
    prune(embedded.location, keys=[key.hash])

    assert embeddings.missing() == [0, 1, 2]
    embeddings.write([1], make_embeddings(1))
    np.testing.assert_array_equal(Store.open(embedded.location).embeddings(key).read([1])[0], make_embedding(1))


def test_a_killed_prune_leaves_no_half_of_a_key(embedded, key, strike) -> None:
    n_changes = 0
    for at in (1, 2):
        n_changes += strike(at, "killed", lambda: prune(embedded.location, keys=[key.hash])).struck
        store = Store.open(embedded.location, mode="r+")
        assert store.keys() == ((key,) if at == 1 else ())
    assert n_changes == 2
    store.embeddings(key).write([0], make_embeddings(0))

    assert prune(embedded.location).n_leftovers == 1
    assert Store.open(embedded.location).embeddings(key).missing() == [1, 2]


def test_prune_is_refused_while_another_writes(embedded, key) -> None:
    with embedded.embeddings(key).claim(range(64)), pytest.raises(StoreAccessError, match="another process is writing"):
        prune(embedded.location)


def test_prune_works_on_an_object_store(filled, key) -> None:
    before = dict(Files(filled))
    Store.open(filled, mode="r+").embeddings(key).write([0], make_embeddings(0))

    assert prune(filled, keys=[key.hash]).keys == (key.hash,)

    assert dict(Files(filled)) == before


def test_a_missing_store_is_an_error(tmp_path) -> None:
    for operation in (verify, prune):
        with pytest.raises(StoreNotFound):
            operation(tmp_path / "none.zarr")
    assert list(tmp_path.iterdir()) == []
