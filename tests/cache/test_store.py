"""The contract of a store, the same in a folder and on an object store."""

from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

from nucseg_cache import (
    BLOCK_ROWS,
    FORMATS,
    CacheError,
    EmbeddingNotFound,
    RowDamaged,
    SampleRow,
    Store,
    StoreAccessError,
    StoreExists,
    StoreFormatError,
    StoreNotFound,
    UnstorableSample,
    verify,
)
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_key, make_sample, make_store


def assert_same(found: SampleRow, expected: SampleRow) -> None:
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(found, name), value)
        else:
            assert getattr(found, name) == value, name


class TestStoreContract:
    """Every test here runs on every kind of store."""

    def test_samples_are_read_back_as_written(self, location) -> None:
        make_store(location)

        store = Store.open(location)

        assert (store.dataset, store.source, store.preparation) == ("drawn", "/data", {"side_px": "8"})
        assert (store.location, store.n_rows) == (location, 3)
        assert [info.id for info in store.table] == ["image 0", "image 1", "image 2"]
        assert store.table[1] == make_sample(1).info(1)
        for found, number in zip(store.read_samples([2, 0, 1]), [2, 0, 1], strict=True):
            assert_same(found, make_sample(number))

    def test_ids_may_be_any_unicode_text(self, location) -> None:
        ids = ["a/b [1]*?", "Ωμέγα 🔬 é", " ", "", "x" * 3000, 'quote"\\\n', "\0"]
        rows = [make_sample(i, id=name, group="", stratum=name) for i, name in enumerate(ids)]

        Store.create(location, dataset="drawn", source="", preparation={"side_px": "8"}, rows=rows)

        found = Store.open(location)
        assert [info.id for info in found.table] == ids
        assert [(s.id, s.group, s.stratum) for s in found.read_samples(range(len(ids)))] == [(n, "", n) for n in ids]

    def test_numpy_numbers_are_read_back_as_python_numbers(self, location) -> None:
        rows = [make_sample(0, mpp=1), make_sample(1, mpp=np.float32(0.1), size=(np.int64(3), np.int32(4)))]

        Store.create(location, dataset="drawn", source="", preparation={"side_px": "8"}, rows=rows)

        first, second = Store.open(location).table
        assert (first.mpp, second.mpp, second.size) == (1.0, float(np.float32(0.1)), (3, 4))

    def test_opening_a_store_that_does_not_exist_is_an_error_and_creates_nothing(self, location) -> None:
        for mode in ("r", "r+"):
            with pytest.raises(StoreNotFound, match=r"there is no store at .*drawn\.zarr.*nucseg embed"):
                Store.open(location, mode=mode)  # type: ignore[arg-type]

        assert not list(Files(location))

    def test_a_store_is_not_created_twice(self, filled) -> None:
        before = dict(Files(filled))

        with pytest.raises(StoreExists, match=r"drawn\.zarr"):
            make_store(filled)

        assert dict(Files(filled)) == before

    def test_other_files_are_not_overwritten(self, location) -> None:
        Files(location)["thesis/chapter.txt"] = b"irreplaceable"

        with pytest.raises(StoreExists, match="only created in an empty place"):
            make_store(location)

        assert dict(Files(location)) == {"thesis/chapter.txt": b"irreplaceable"}

    def test_another_zarr_group_is_not_taken_for_a_store(self, location) -> None:
        zarr.create_group(location, attributes={"mine": True})
        before = dict(Files(location))

        with pytest.raises(StoreFormatError, match="not a finished store of nucseg: it has no format number"):
            Store.open(location)
        with pytest.raises(StoreExists):
            make_store(location)

        assert dict(Files(location)) == before

    def test_another_format_version_is_refused(self, filled) -> None:
        Files(filled).edit("zarr.json", lambda json: json["attributes"].update(format=2))  # type: ignore[attr-defined]

        with pytest.raises(StoreFormatError, match="has format 2, this nucseg reads format 1"):
            Store.open(filled)

    def test_rows_are_appended_and_keep_their_numbers(self, filled) -> None:
        store = Store.open(filled, mode="r+")
        store.append([make_sample(7), make_sample(5)])
        store.append([])
        store.append([make_sample(6)])

        found = Store.open(filled)

        assert [info.id for info in found.table] == [f"image {n}" for n in (0, 1, 2, 7, 5, 6)]
        assert [info.row for info in found.table] == list(range(6))
        assert [found.row_of(f"image {n}") for n in (7, 6)] == [3, 5]
        for row, number in enumerate((0, 1, 2, 7, 5, 6)):
            assert_same(found.read_samples([row])[0], make_sample(number))

    def test_more_rows_than_a_block_holds(self, location) -> None:
        store = make_store(location, BLOCK_ROWS - 1)
        store.append([make_sample(number) for number in range(BLOCK_ROWS - 1, BLOCK_ROWS + 2)])

        found = Store.open(location)

        assert [info.id for info in found.table] == [f"image {number}" for number in range(BLOCK_ROWS + 2)]
        assert_same(found.read_samples([BLOCK_ROWS])[0], make_sample(BLOCK_ROWS))
        assert not found.damaged()

    def test_a_repeated_id_is_refused(self, filled) -> None:
        store, before = Store.open(filled, mode="r+"), dict(Files(filled))

        for numbers in ([1], [3, 3], [4, 0]):
            with pytest.raises(StoreExists, match=r"already, or occur twice among the new ones"):
                store.append([make_sample(number) for number in numbers])
        with pytest.raises(StoreExists, match="already has image 1 in row 1"):
            store.replace(0, make_sample(1))

        assert dict(Files(filled)) == before

    def test_a_sample_that_cannot_be_stored_exactly_is_refused(self, filled) -> None:
        store, before = Store.open(filled, mode="r+"), dict(Files(filled))
        refused: list[tuple[dict[str, object], str]] = [
            ({"image": np.zeros((9, 8, 3), np.uint8)}, r"image of 'image 3' is uint8 of shape \(9, 8, 3\)"),
            ({"instances": np.zeros((8, 8), np.int64)}, r"instances of 'image 3' is int64"),
            ({"ignore": np.zeros((1, 8), bool)}, r"ignore of 'image 3' is bool of shape \(1, 8\)"),
            ({"image_digest": b"short"}, r"must have 32 bytes"),
            ({"mpp": float("nan")}, r"mpp of 'image 3' is nan"),
            ({"id": "caf\udce9.png"}, r"not valid Unicode; rename the file"),
        ]

        for changed, message in refused:
            with pytest.raises(UnstorableSample, match=message):
                store.append([make_sample(4), make_sample(3, **changed)])
            with pytest.raises(UnstorableSample, match=message):
                store.replace(0, make_sample(3, **changed))

        assert dict(Files(filled)) == before

    @pytest.mark.parametrize("name", FORMATS)
    def test_embeddings_are_read_back_and_missing_rows_are_listed(self, filled, name) -> None:
        store, key = Store.open(filled, mode="r+"), make_key(format=name)
        store.embeddings(key).write([2, 0], make_embeddings(2, 0))

        found = Store.open(filled).embeddings(key)

        assert found.missing() == found.missing(sizes=True) == [1]
        assert found.missing(range(2)) == [1]
        assert found.missing(range(2, 3)) == found.missing(range(70, 80)) == []
        assert [info.row for info in found.embedded_rows()] == [0, 2]
        np.testing.assert_array_equal(found.read([0, 2]), make_embeddings(0, 2))
        with pytest.raises(RowDamaged, match=r"row 1 \(image 1\): it is missing"):
            found.read([0, 1])

    def test_a_reader_sees_rows_rewritten_after_it_read_them(self, filled, key) -> None:
        writer = Store.open(filled, mode="r+").embeddings(key)
        writer.write([0, 1, 2], make_embeddings(0, 1, 2))
        reader = Store.open(filled).embeddings(key)
        reader.read([0, 1, 2])

        writer.write([0, 2], make_embeddings(10, 12))

        np.testing.assert_array_equal(reader.read([2, 1, 0]), make_embeddings(12, 1, 10))

    def test_embeddings_grow_with_the_samples(self, filled, key) -> None:
        store = Store.open(filled, mode="r+")
        embeddings = store.embeddings(key)
        embeddings.write([0], make_embeddings(0))
        store.append([make_sample(number) for number in range(3, BLOCK_ROWS + 1)])

        assert embeddings.missing() == list(range(1, BLOCK_ROWS + 1))
        embeddings.write([BLOCK_ROWS, 3], make_embeddings(64, 3))

        found = Store.open(filled).embeddings(key)
        assert found.blocks() == [range(64), range(64, 65)]
        np.testing.assert_array_equal(found.read([64, 3, 0]), make_embeddings(64, 3, 0))

    def test_nothing_is_created_before_the_first_write(self, filled, key) -> None:
        store = Store.open(filled, mode="r+")
        before = dict(Files(filled))

        embeddings = store.embeddings(key)
        assert embeddings.missing(sizes=True) == [0, 1, 2]
        assert embeddings.embedded_rows() == []
        embeddings.clear([0])
        with pytest.raises(EmbeddingNotFound, match=r"no embeddings of architecture vit_b.*view identity"):
            embeddings.read([0])

        assert dict(Files(filled)) == before
        assert store.keys() == ()
        assert store.views(key) == ()
        assert store.recorded(key) == {}

    def test_a_store_holds_several_keys_and_views(self, filled, key) -> None:
        store, other = Store.open(filled, mode="r+"), make_key(weights="ffd1a2cd" * 4)
        groups = [(key, "identity"), (other, "identity"), (other, "flip-x")]
        for n, (group_key, view) in enumerate(groups):
            store.embeddings(group_key, view).write([0], make_embeddings(n))

        found = Store.open(filled)

        assert set(found.keys()) == {key, other}
        assert (found.views(key), found.views(other)) == (("identity",), ("flip-x", "identity"))
        for n, (group_key, view) in enumerate(groups):
            np.testing.assert_array_equal(found.embeddings(group_key, view).read([0])[0], make_embedding(n))

    def test_an_invalid_name_of_a_view_is_refused(self, filled, key) -> None:
        store = Store.open(filled)

        for view in ("", ".", "..", "a/b", "../samples", "a.b"):
            with pytest.raises(CacheError, match="the name of a view has letters"):
                store.embeddings(key, view)

    def test_a_changed_file_is_found_on_reading_and_cleared_by_verify(self, filled, key) -> None:
        embeddings = Store.open(filled, mode="r+").embeddings(key)
        embeddings.write([0, 1], make_embeddings(0, 1))
        files, values = Files(filled), f"embeddings/{key.hash}/identity/values/c"
        files[f"{values}/0/0/0/0"] = files[f"{values}/1/0/0/0"]

        with pytest.raises(RowDamaged, match=r"row 0 \(image 0\)"):
            Store.open(filled).embeddings(key).read([0])
        found = verify(filled)

        assert [(finding.what, finding.bad.row) for finding in found.findings] == [(f"{key.hash}/identity", 0)]
        assert Store.open(filled).embeddings(key).missing() == [0, 2]

    def test_a_missing_or_shortened_file_is_listed_without_reading(self, filled, key) -> None:
        store = Store.open(filled, mode="r+")
        store.embeddings(key).write([0, 1, 2], make_embeddings(0, 1, 2))
        files = Files(filled)
        for part in (f"embeddings/{key.hash}/identity/values", "samples/image"):
            del files[f"{part}/c/0/0/0/0"]
            files[f"{part}/c/2/0/0/0"] = files[f"{part}/c/2/0/0/0"][:-1]

        found = Store.open(filled)

        assert found.embeddings(key).missing() == []
        assert found.embeddings(key).missing(sizes=True) == [0, 2]
        assert [(bad.row, bad.id) for bad in found.damaged()] == [(0, "image 0"), (2, "image 2")]

    def test_source_and_notes_are_stored(self, filled) -> None:
        assert Store.open(filled).notes == ()
        store = Store.open(filled, mode="r+")
        store.remember_source("/elsewhere", ["one image has no label"])
        store.append([make_sample(77)])

        assert Store.open(filled).source == "/elsewhere"
        assert Store.open(filled).notes == ("one image has no label",)

    def test_chunks_of_zeros_are_written_too(self, location, key) -> None:
        zeros = make_sample(
            0, image=np.zeros((8, 8, 3), np.uint8), instances=np.zeros((8, 8), np.int32), ignore=np.zeros((8, 8), bool)
        )
        store = Store.create(location, dataset="d", source="", preparation={"side_px": "8"}, rows=[zeros])
        store.embeddings(key).write([0], np.zeros((1, 256, 64, 64), np.float32))

        names = set(Files(location))
        assert {f"samples/{name}/c/0/0/0" for name in ("instances", "ignore")} < names
        assert f"embeddings/{key.hash}/identity/values/c/0/0/0/0" in names


def test_an_interrupted_creation_on_an_object_store_is_not_a_store_and_can_be_repeated(monkeypatch) -> None:
    location, write, writes = "memory://interrupted/drawn.zarr", FsspecStore.set, []

    async def fail_at_the_seal(self: FsspecStore, key: str, *arguments: Any, **options: Any) -> None:
        writes.append(key)
        if writes.count("zarr.json") == 2:  # the root is written first and, with the seal, last
            raise OSError("the connection was lost")
        await write(self, key, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(FsspecStore, "set", fail_at_the_seal)
        with pytest.raises(StoreAccessError, match="the connection was lost"):
            make_store(location)
    assert len(list(Files(location))) > 10

    with pytest.raises(StoreFormatError, match="not a finished store"):
        Store.open(location)
    make_store(location)

    assert Store.open(location).n_rows == 3


def test_a_path_may_hold_spaces_brackets_and_unicode(tmp_path) -> None:
    path = tmp_path / "Ä [x] *?" / "b {c}.zarr"
    make_store(path)

    assert Store.open(path).n_rows == 3
    assert Store.open(path.as_uri()).n_rows == 3
    assert verify(str(path)).findings == ()


def test_an_unknown_protocol_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(StoreAccessError, match=r"nosuch://x cannot be opened: .*name a folder with --cache"):
        Store.open("nosuch://x")
