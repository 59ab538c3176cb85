"""Every read verifies the content digest: a swapped, stale, deleted, truncated or edited row is always an error."""

from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from nucseg_cache import BadRow, Embeddings, Key, RowDamaged, Store
from tests.cache.drawn_store import make_embedding, make_embeddings, make_key, make_sample

pytestmark = pytest.mark.usefixtures("way")

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut to three bytes": lambda content: content[:3],
    "cut in half": lambda content: content[: len(content) // 2],
    "short of its last byte": lambda content: content[:-1],
    "longer by a byte": lambda content: content + b"\0",
    "flipped in its first bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "flipped in the middle": lambda content: content[:99] + bytes([content[99] ^ 16]) + content[100:],
    "flipped in its last bit": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    "overwritten with zeros": lambda content: bytes(len(content)),
}


def array_of(store: Store, name: str) -> Any:
    """An array opened by zarr, for edits that copying files cannot make."""
    return zarr.open_group(store.location)[name]


def values_of(key: Key, row: int, view: str = "identity") -> str:
    return f"embeddings/{key.hash}/{view}/values/c/{row}/0/0/0"


def assert_only_row_is_damaged(embeddings: Embeddings, row: int) -> None:
    with pytest.raises(RowDamaged, match=rf"row {row} \(image {row}\): .*\n.*then `nucseg embed ") as caught:
        embeddings.read([0, 1, 2])
    assert [(bad.row, bad.id) for bad in caught.value.bad] == [(row, f"image {row}")]
    values, bad = embeddings.try_read([0, 1, 2])
    assert [b.row for b in bad] == [row]
    for number in range(3):
        np.testing.assert_array_equal(values[number], make_embedding(number) if number != row else 0)


class TestEmbeddings:
    """Rows 0 to 2 have embeddings; something happens to the files of row 1."""

    def test_a_damaged_swapped_or_deleted_file(self, embedded, key, files) -> None:
        intact = files[values_of(key, 1)]
        for damaged in (*(damage(intact) for damage in DAMAGE.values()), files[values_of(key, 2)], None):
            if damaged is None:
                del files[values_of(key, 1)]
            else:
                files[values_of(key, 1)] = damaged
            assert_only_row_is_damaged(embedded.embeddings(key), 1)

    def test_all_files_of_another_row_including_its_record(self, embedded, key, files) -> None:
        record = array_of(embedded, f"embeddings/{key.hash}/identity/record")
        files[values_of(key, 1)] = files[values_of(key, 2)]
        image_of_row_1 = np.asarray(record[1])[:32]
        record[1] = np.concatenate([image_of_row_1, np.asarray(record[2])[32:]])

        assert_only_row_is_damaged(embedded.embeddings(key), 1)

    @pytest.mark.parametrize("source", ["another key", "another view"])
    def test_all_files_of_another_key_or_view_including_the_record(self, embedded, key, files, source) -> None:
        other, view = (make_key(weights="ff" * 16), "identity") if source == "another key" else (key, "flip-x")
        embedded.embeddings(other, view).write([0, 1, 2], make_embeddings(5, 6, 7))
        source, target = f"embeddings/{other.hash}/{view}/", f"embeddings/{key.hash}/identity/"
        for name in [n for n in files if n.startswith(source) and "/c/" in n]:
            files[name.replace(source, target)] = files[name]

        _, bad = embedded.embeddings(key).try_read([0, 1, 2])

        assert [b.row for b in bad] == [0, 1, 2]

    def test_values_of_the_image_as_it_was_before_it_changed(self, embedded, key, files) -> None:
        old = {name: content for name, content in files.items() if name.startswith("embeddings")}
        embedded.replace(1, make_sample(1, image_version=1))
        embedded.embeddings(key).write([1], make_embedding(1, image_version=1)[None])

        files[values_of(key, 1)] = old[values_of(key, 1)]
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): its values do not match its record"):
            Store.open(embedded.location).embeddings(key).read([1])

        files.update(old)  # the record too: a backup of the embeddings alone
        stale = Store.open(embedded.location).embeddings(key)
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): it was made from another version"):
            stale.read([1])
        assert stale.missing() == [1]

    def test_a_damaged_record_makes_its_rows_missing(self, embedded, key, files) -> None:
        name = f"embeddings/{key.hash}/identity/record/c/0/0"
        for damage in DAMAGE.values():
            intact = files[name]
            files[name] = damage(intact)
            embeddings = Store.open(embedded.location).embeddings(key)
            assert embeddings.missing() == [0, 1, 2]
            with pytest.raises(RowDamaged, match="it is missing"):
                embeddings.read([0])
            files[name] = intact
        np.testing.assert_array_equal(embedded.embeddings(key).read([1])[0], make_embedding(1))

    def test_after_damage_to_the_record_rows_are_written_one_by_one(self, embedded, key, files) -> None:
        before, name = dict(files), f"embeddings/{key.hash}/identity/record/c/0/0"
        files[name] = files[name][:-9]
        embeddings = Store.open(embedded.location, mode="r+").embeddings(key)

        for row in (2, 0, 1):
            embeddings.write([row], make_embeddings(row))
            np.testing.assert_array_equal(embeddings.read([row])[0], make_embedding(row))

        assert dict(files) == before

    def test_a_damaged_scale_damages_the_rows_of_its_block(self, store, files) -> None:
        key = make_key(format="i8")
        embeddings = store.embeddings(key)
        embeddings.write([0, 1, 2], make_embeddings(0, 1, 2))
        before, name = dict(files), f"embeddings/{key.hash}/identity/scale/c/0/0"
        files[name] = files[name][:-1]

        assert [bad.row for bad in embeddings.try_read([0, 1, 2])[1]] == [0, 1, 2]
        embeddings.write([1], make_embeddings(1))  # deletes the damaged block
        assert [bad.row for bad in embeddings.try_read([0, 1, 2])[1]] == [0, 2]
        for row in (0, 2):
            embeddings.write([row], make_embeddings(row))
        assert dict(files) == before

    @pytest.mark.parametrize("name", ["f16", "i8"])
    def test_a_row_of_zeros_is_distinguished_from_a_missing_row(self, store, name) -> None:
        embeddings = store.embeddings(make_key(format=name))
        embeddings.write([1], np.zeros((1, 256, 64, 64), np.float32))

        assert embeddings.missing() == [0, 2]
        assert not embeddings.read([1]).any()

    @pytest.mark.parametrize("name", ["id", "stratum"])
    def test_a_block_of_strings_that_claims_more_than_fits_into_memory_is_damage(self, store, files, name) -> None:
        frame = numcodecs.Blosc().encode((2**32 - 1).to_bytes(4, "little") + bytes(400))
        files[f"samples/{name}/c/0"] = frame + google_crc32c.value(frame).to_bytes(4, "little")

        found = Store.open(store.location, mode="r+")
        assert [bad.row for bad in found.damaged()] == [0, 1, 2]
        with pytest.raises(RowDamaged, match=r"row 1 \(.*\): its description .* \(it holds 4294967295 strings"):
            found.read_samples([1])

        for row in range(3):
            found.replace(row, make_sample(row))
        assert Store.open(store.location).table == tuple(make_sample(row).info(row) for row in range(3))

    def test_a_row_that_does_not_exist_is_named(self, embedded, key) -> None:
        with pytest.raises(RowDamaged, match=r"row 7 .*no intact sample in this row"):
            embedded.embeddings(key).read([7])


class TestSamples:
    """Something happens to the files of a sample's arrays."""

    @pytest.mark.parametrize("name", ["image", "instances", "ignore"])
    def test_a_damaged_swapped_or_deleted_file(self, store, files, name) -> None:
        tail = "/0/0/0" if name == "image" else "/0/0"
        file, intact = f"samples/{name}/c/1{tail}", files[f"samples/{name}/c/1{tail}"]
        for name_of_damage, damage in DAMAGE.items():
            if name_of_damage != "flipped in the middle" or len(intact) > 100:
                files[file] = damage(intact)
                self.assert_only_row_1_is_damaged(store)
        files[file] = files[f"samples/{name}/c/2{tail}"]
        self.assert_only_row_1_is_damaged(store)

        del files[file]
        self.assert_only_row_1_is_damaged(store)
        assert [(bad.row, bad.id) for bad in store.damaged()] == [(1, "image 1")]

    def test_all_pixels_and_the_whole_record_of_another_row(self, store, files) -> None:
        for name, tail in (("image", "/0/0/0"), ("instances", "/0/0"), ("ignore", "/0/0")):
            files[f"samples/{name}/c/1{tail}"] = files[f"samples/{name}/c/2{tail}"]
        record = array_of(store, "samples/record")
        record[1] = np.asarray(record[2])

        self.assert_only_row_1_is_damaged(store)
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): its description does not match its record"):
            Store.open(store.location).table  # noqa: B018 - the property raises

    def test_pixels_of_the_image_as_it_was_before_it_changed(self, store, files) -> None:
        old = dict(files)
        store.replace(1, make_sample(1, image_version=1))
        files["samples/image/c/1/0/0/0"] = old["samples/image/c/1/0/0/0"]
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\)"):
            Store.open(store.location).read_samples([1])

        for name in ("samples/instances/c/1/0/0", "samples/ignore/c/1/0/0", "samples/record/c/0/0"):
            files[name] = old[name]
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\)"):
            Store.open(store.location).read_samples([1])

    def test_a_row_that_was_rewritten_after_the_store_was_opened(self, store) -> None:
        reader = Store.open(store.location)
        store.replace(1, make_sample(1, mask_version=1))

        with pytest.raises(RowDamaged, match="rewritten after the store was opened"):
            reader.read_samples([1])

    def test_a_row_that_became_absent_after_the_store_was_opened_can_still_be_read(self, store) -> None:
        reader = Store.open(store.location)
        store.set_present(1, present=False)

        np.testing.assert_array_equal(reader.read_samples([1])[0].image, make_sample(1).image)

    def test_an_edited_description(self, store, files) -> None:
        intact = dict(files)
        for name in ("group", "stratum", "mpp", "size", "image_digest", "mask_digest", "id"):
            array = array_of(store, f"samples/{name}")
            array[1] = np.array("x", object) if name in ("group", "stratum", "id") else np.full(array.shape[1:], 77)

            found = Store.open(store.location)

            expected = "x" if name == "id" else "image 1"
            assert [(bad.row, bad.id) for bad in found.damaged()] == [(1, expected)]
            with pytest.raises(RowDamaged, match=rf"row 1 \({expected}\): its description does not match its record"):
                found.table  # noqa: B018 - as above
            assert [info.row for info in found.trusted_rows()] == [0, 2]
            assert [s.id for s in found.try_read_samples([0, 1, 2])[0]] == ["image 0", "image 2"]
            files.update({file: content for file, content in intact.items() if file.startswith(f"samples/{name}/")})

    @pytest.mark.parametrize("state", [0, 2, 77])
    def test_an_edited_state_is_found_unless_it_means_changing(self, store, state) -> None:
        array_of(store, "samples/state")[1] = state
        assert [bad.row for bad in Store.open(store.location).damaged()] == [1]

        array_of(store, "samples/state")[1] = 3
        assert Store.open(store.location).table[1].present

    def test_swapped_ids_are_found(self, store) -> None:
        ids = array_of(store, "samples/id")
        ids[:2] = np.array(["image 1", "image 0"], object)

        assert [bad.row for bad in Store.open(store.location).damaged()] == [0, 1]

    @pytest.mark.parametrize(
        ("name", "damage"), [("id", "emptied"), ("size", "cut in half"), ("record", "cut in half")]
    )
    def test_a_damaged_block_names_its_rows_and_no_others(self, two_blocks, files, name, damage) -> None:
        file = f"samples/{name}/c/1" + ("/0" if name in ("size", "record") else "")
        files[file] = DAMAGE[damage](files[file])

        found = Store.open(two_blocks.location)

        assert [info.row for info in found.trusted_rows()] == list(range(64))
        named = "" if name == "id" else "image {}"
        assert [(bad.row, bad.id) for bad in found.damaged()] == [(row, named.format(row)) for row in (64, 65, 66)]

    def test_a_row_that_does_not_exist_is_named(self, store) -> None:
        with pytest.raises(RowDamaged, match=r"row 3 .*no such row"):
            store.read_samples([0, 3])

    @staticmethod
    def assert_only_row_1_is_damaged(store: Store) -> None:
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): .*\n.*then `nucseg embed "):
            store.read_samples([1, 2])
        good, bad = store.try_read_samples([0, 1, 2])
        assert [(b.row, b.id) for b in bad] == [(1, "image 1")]
        for found, number in zip(good, (0, 2), strict=True):
            np.testing.assert_array_equal(found.image, make_sample(number).image)
            np.testing.assert_array_equal(found.instances, make_sample(number).instances)


def test_a_message_names_the_first_rows_and_counts_the_others() -> None:
    error = RowDamaged("x.zarr", "the samples", [BadRow(row, f"image {row}", "it is missing") for row in range(20)])

    assert "20 row(s) of the samples in x.zarr are damaged or missing" in str(error)
    assert "row 7 (image 7): it is missing" in str(error)
    assert "row 8 " not in str(error)
    assert "and 12 more" in str(error)
    assert len(error.bad) == 20
