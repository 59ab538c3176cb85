"""How changes of the data set affect rows and their embeddings, and how damage is repaired."""

from pathlib import Path

import numpy as np
import pytest

from nucseg_cache import EmbeddingNotFound, RowDamaged, Store
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_key, make_sample, make_store

pytestmark = pytest.mark.usefixtures("way")


class TestAChangedImage:
    def test_makes_the_embedding_of_that_row_missing_and_no_other(self, embedded, key) -> None:
        embedded.replace(1, make_sample(1, image_version=1))

        for seen in (embedded, Store.open(embedded.location)):
            embeddings = seen.embeddings(key)
            assert embeddings.missing() == [1]
            with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): it was made from another version"):
                embeddings.read([1])
            np.testing.assert_array_equal(embeddings.read([0, 2]), make_embeddings(0, 2))

    def test_whose_old_content_comes_back_is_embedded_again_only_if_it_was_embedded_in_between(
        self, embedded, key
    ) -> None:
        embedded.replace(1, make_sample(1, image_version=1))
        embedded.replace(1, make_sample(1))
        assert embedded.embeddings(key).missing() == []
        np.testing.assert_array_equal(embedded.embeddings(key).read([1])[0], make_embedding(1))

        embedded.replace(1, make_sample(1, image_version=1))
        embedded.embeddings(key).write([1], make_embedding(1, image_version=1)[None])
        embedded.replace(1, make_sample(1))
        assert embedded.embeddings(key).missing() == [1]


def test_a_changed_mask_costs_no_encoding(embedded, key, files) -> None:
    before = {name: content for name, content in files.items() if name.startswith("embeddings")}
    changed = make_sample(1, mask_version=1)
    assert not np.array_equal(changed.instances, make_sample(1).instances)
    embedded.replace(1, changed)

    found = Store.open(embedded.location)

    assert found.embeddings(key).missing(sizes=True) == []
    np.testing.assert_array_equal(found.embeddings(key).read([1])[0], make_embedding(1))
    np.testing.assert_array_equal(found.read_samples([1])[0].instances, changed.instances)
    assert found.info(1).mask_digest == changed.mask_digest
    assert {name: content for name, content in files.items() if name.startswith("embeddings")} == before


class TestAVanishedImage:
    def test_keeps_its_row_and_its_embedding_and_is_not_missing(self, embedded, key) -> None:
        embedded.set_present(1, present=False)

        for seen in (embedded, Store.open(embedded.location)):
            assert [info.present for info in seen.table] == [True, False, True]
            assert seen.has("image 1")
            assert seen.embeddings(key).missing(sizes=True) == []
            assert [info.row for info in seen.embeddings(key).embedded_rows()] == [0, 1, 2]
            np.testing.assert_array_equal(seen.embeddings(key).read([1])[0], make_embedding(1))
            np.testing.assert_array_equal(seen.read_samples([1])[0].image, make_sample(1).image)

    def test_without_an_embedding_is_not_missing_until_it_comes_back(self, store, key) -> None:
        store.embeddings(key).write([0], make_embeddings(0))
        store.set_present(1, present=False)
        assert store.embeddings(key).missing() == [2]

        store.set_present(1, present=True)
        assert Store.open(store.location).embeddings(key).missing() == [1, 2]

    def test_comes_back_with_its_embedding_as_if_it_had_never_been_away(self, embedded, key, files) -> None:
        before = dict(files)
        embedded.set_present(1, present=False)
        embedded.set_present(1, present=True)

        assert dict(files) == before
        np.testing.assert_array_equal(embedded.embeddings(key).read([1])[0], make_embedding(1))

    def test_stays_absent_when_its_row_is_written_again_as_absent(self, embedded) -> None:
        embedded.replace(1, make_sample(1), present=False)

        assert not Store.open(embedded.location).info(1).present

    def test_leaves_its_id_taken(self, store) -> None:
        store.set_present(1, present=False)
        store.append([make_sample(3)])

        assert [info.id for info in Store.open(store.location).table] == [f"image {n}" for n in range(4)]


class TestDamageToABlockOfDescriptions:
    """The file of a block of one array is damaged; 3 of its 64 rows are in use."""

    @pytest.mark.parametrize("name", ["id", "group", "mpp", "state", "image_digest", "record", "stored"])
    def test_is_repaired_row_by_row_and_the_embeddings_remain_valid(self, embedded, key, files, name) -> None:
        before = dict(files)
        file = next(file for file in files if file.startswith(f"samples/{name}/c/0"))
        files[file] = files[file][:-2]
        store = Store.open(embedded.location, mode="r+")
        assert [bad.row for bad in store.damaged()] == [0, 1, 2]

        left = {0, 1, 2}
        for row in (1, 2, 0):
            store.replace(row, make_sample(row))
            again = Store.open(embedded.location)
            left.remove(row)
            assert {bad.row for bad in again.damaged()} == left
            assert {bad.row for bad in store.damaged()} == left
            np.testing.assert_array_equal(again.embeddings(key).read([row])[0], make_embedding(row))

        assert dict(files) == before
        assert [info.id for info in store.table] == ["image 0", "image 1", "image 2"]

    def test_leaves_the_record_which_identifies_the_sample_of_each_row(self, embedded, files) -> None:
        embedded.set_present(2, present=False)
        files["samples/id/c/0"] = files["samples/id/c/0"][::-1]
        store = Store.open(embedded.location, mode="r+")
        assert [bad.id for bad in store.damaged()] == ["", "", ""]

        for row in (1, 0):  # repairing one row deletes the damaged block, but not the other rows' records
            known = [[store.matches_record(at, make_sample(number)) for number in range(3)] for at in range(3)]
            assert np.array_equal(known, np.eye(3))
            store.replace(row, make_sample(row))
        assert not store.matches_record(1, make_sample(1, image_version=1))
        assert not store.matches_record(1, make_sample(1, mask_version=1))

    def test_of_the_record_itself_leaves_the_ids_readable(self, embedded, files) -> None:
        files["samples/record/c/0/0"] = files["samples/record/c/0/0"][:-1]
        store = Store.open(embedded.location, mode="r+")

        assert [(bad.row, bad.id) for bad in store.damaged()] == [(row, f"image {row}") for row in range(3)]
        assert not store.matches_record(1, make_sample(1))
        with pytest.raises(RowDamaged, match=r"row 0 \(image 0\): its description cannot be decoded"):
            store.table  # noqa: B018 - the property raises

    def test_does_not_prevent_appending_rows(self, embedded, files) -> None:
        files["samples/id/c/0"] = b""
        store = Store.open(embedded.location, mode="r+")
        store.append([make_sample(3)])

        found = Store.open(embedded.location)

        assert [info.id for info in found.trusted_rows()] == ["image 3"]
        assert [bad.row for bad in found.damaged()] == [0, 1, 2]

    def test_a_lost_row_may_get_another_id(self, embedded, files) -> None:
        files["samples/id/c/0"] = b""
        store = Store.open(embedded.location, mode="r+")
        for row in (0, 2):
            store.replace(row, make_sample(row))
        store.replace(1, make_sample(1, id="(lost row 1)"), present=False)
        store.append([make_sample(1)])

        found = Store.open(embedded.location)
        assert [info.id for info in found.table] == ["image 0", "(lost row 1)", "image 2", "image 1"]
        assert not store.has("image 1") or store.row_of("image 1") == 3


class TestFind:
    def test_nothing_cached_yet(self, store) -> None:
        with pytest.raises(
            EmbeddingNotFound, match=r"has no embeddings yet, asked for precision float32\. Run `nucseg"
        ):
            store.find({"precision": "float32"})

    def test_returns_the_key_with_all_requested_fields(self, embedded, key) -> None:
        other = make_key(architecture="vit_h")
        embedded.embeddings(other).write([0], np.ones((1, 256, 64, 64), np.float32))

        assert embedded.find({"architecture": "vit_h"}) == other
        assert embedded.find({"architecture": "vit_b", "format": "f16"}) == key

    def test_no_match_lists_the_cached_keys_and_how_they_differ(self, embedded, key) -> None:
        with pytest.raises(EmbeddingNotFound) as caught:
            embedded.find({"weights": "ffd1a2cd" * 4, "precision": "float32", "format": "f16"})

        lines, cache = str(caught.value).splitlines(), embedded.location.rpartition("/")[0]
        assert lines[0].startswith(f"no embeddings in {embedded.location} match the request (")
        assert lines[1:] == [
            f"  {key.hash}: architecture vit_b, format f16, weights 6923c33d",
            "    precision: cached nothing, asked for float32",
            "    weights: cached 6923c33d, asked for ffd1a2cd",
            f"Ask for cached ones, or add the new ones with `nucseg embed --dataset drawn --cache {cache} --precision "
            "float32 --format f16`.",
        ]

    def test_a_missing_view_lists_the_cached_views(self, embedded) -> None:
        with pytest.raises(EmbeddingNotFound, match="view: cached identity, asked for flip-x"):
            embedded.find({}, view="flip-x")

    def test_several_matches_list_the_fields_in_which_they_differ(self, embedded, key) -> None:
        other = make_key(format="f32", precision="bfloat16")
        embedded.embeddings(other).write([0], np.ones((1, 256, 64, 64), np.float32))

        with pytest.raises(EmbeddingNotFound) as caught:
            embedded.find({"architecture": "vit_b"})

        first, *candidates, last = str(caught.value).splitlines()
        assert first == f"2 embeddings in {embedded.location} match the request (architecture vit_b); they differ in:"
        assert sorted(candidates) == sorted(
            [f"  {key.hash}: format f16, precision nothing", f"  {other.hash}: format f32, precision bfloat16"]
        )
        assert last == "Select one by these fields."

    def test_other_files_among_the_keys_are_ignored(self, embedded, key, files) -> None:
        for name in (f"zarr.{'0' * 32}.partial", f".{key.hash}.{'0' * 32}.tmp/identity/zarr.json", "notes/read me.txt"):
            files[f"embeddings/{name}"] = b"half"

        assert embedded.keys() == (key,)
        assert embedded.views(key) == ("identity",)


def test_ensure_arrays_creates_the_arrays_that_a_write_creates(key, tmp_path) -> None:
    prepared, written = (make_store(tmp_path / name / "drawn.zarr", 3) for name in ("prepared", "written"))
    prepared.embeddings(key).ensure_arrays()

    assert prepared.embeddings(key).missing(sizes=True) == [0, 1, 2]
    for store in (prepared, written):
        store.embeddings(key).write([1], make_embeddings(1))
    assert dict(Files(Path(prepared.location))) == dict(Files(Path(written.location)))
