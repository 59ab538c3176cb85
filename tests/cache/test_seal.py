"""Attributes and array metadata are sealed: any edit is an error, and data is never read differently."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg_cache import CacheError, Key, RowDamaged, Store, StoreDamaged, StoreFormatError, StoreNotFound
from nucseg_cache.seal import read_sealed, write_sealed
from tests.cache.drawn_store import make_embeddings, make_key, make_sample

Document = dict[str, Any]
DAMAGED = "changed after they were written|unreadable|cannot be read|its name|it was renamed"


def set_attribute(name: str, value: object) -> Callable[[Document], object]:
    return lambda document: document["attributes"].update({name: value})


def another_codec(document: Document) -> None:
    document["codecs"] = [codec for codec in document["codecs"] if codec["name"] != "crc32c"]


def another_level(document: Document) -> None:
    next(c for c in document["codecs"] if c["name"] == "blosc")["configuration"]["clevel"] = 9


ARRAY_EDITS: dict[str, Callable[[Document], object]] = {
    "data type": lambda d: d.update(data_type={"uint8": "int8", "float16": "int16"}.get(d["data_type"], "float32")),
    "chunk shape": lambda d: d["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 2),
    "fill value": lambda d: d.update(fill_value=1),
    "a codec less": another_codec,
    "a codec's level": another_level,
    "another chunk file name": lambda d: d["chunk_key_encoding"]["configuration"].update(separator="."),
    "side of a row": lambda d: d["shape"].append(2) if len(d["shape"]) == 1 else d["shape"].__setitem__(1, 2),
    "attributes of its own": lambda d: d["attributes"].update(note="x"),
    "no shape": lambda d: d.pop("shape"),
    "not an array": lambda d: d.update(node_type="group"),
}

NOT_JSON = {"nothing": b"", "half": b'{"zarr_format": 3, "node_', "no object": b"[]"}


def everything(store: Store, key: Key) -> object:
    """Everything that reads data of a store."""
    store = Store.open(store.location)
    return store.table, store.read_samples(range(3)), store.find({}), store.embeddings(key).read(range(3))


@pytest.mark.parametrize("array", ["samples/image", "samples/image_digest", "samples/record"])
def test_an_edit_to_an_array_of_the_samples(embedded, key, files, array) -> None:
    name = f"{array}/zarr.json"
    intact = files[name]
    for edit in ARRAY_EDITS.values():
        files.edit(name, edit)
        with pytest.raises(StoreDamaged, match=DAMAGED):
            everything(embedded, key)
        files[name] = intact
    everything(embedded, key)


@pytest.mark.parametrize("array", ["values", "stored", "record"])
def test_an_edit_to_an_array_of_the_embeddings(embedded, key, files, array) -> None:
    name = f"embeddings/{key.hash}/identity/{array}/zarr.json"
    intact = files[name]
    for edit in ARRAY_EDITS.values():
        files.edit(name, edit)
        for operation in (
            lambda: embedded.embeddings(key).read([0]),
            lambda: embedded.embeddings(key).missing(),
            lambda: embedded.embeddings(key).write([0], np.ones((1, 256, 64, 64), np.float32)),
        ):
            with pytest.raises(StoreDamaged, match=DAMAGED):
                operation()
        files[name] = intact
    everything(embedded, key)


@pytest.mark.parametrize(
    ("group", "edit"),
    [
        ("", set_attribute("dataset", "another")),
        ("", set_attribute("preparation", {"side_px": "16"})),
        ("", set_attribute("rows", 2)),
        ("", set_attribute("note", "new")),
        ("", lambda d: d["attributes"].pop("source")),
        ("embeddings/KEY/", set_attribute("fields", {"format": "f16", "architecture": "vit_h"})),
        ("embeddings/KEY/", set_attribute("error", "none")),
        ("embeddings/KEY/", lambda d: d["attributes"].pop("recorded")),
        ("embeddings/KEY/", lambda d: d["attributes"].pop("seal")),
        ("embeddings/KEY/identity/", set_attribute("view", "flip-x")),
        ("embeddings/KEY/identity/", lambda d: d["attributes"].pop("seal")),
        ("embeddings/KEY/identity/", set_attribute("seal", "0" * 32)),
    ],
)
def test_an_edited_attribute(embedded, key, files, group, edit) -> None:
    files.edit(f"{group.replace('KEY', key.hash)}zarr.json", edit)

    with pytest.raises(StoreDamaged, match=DAMAGED):
        everything(embedded, key)


def test_a_root_without_a_seal_is_not_a_finished_store(embedded, files) -> None:
    files.edit("zarr.json", lambda document: document["attributes"].pop("seal"))

    with pytest.raises(StoreFormatError, match="not a finished store of nucseg: it has no seal"):
        Store.open(embedded.location)


@pytest.mark.parametrize(
    "name", ["", "samples/id/", "embeddings/KEY/", "embeddings/KEY/identity/", "embeddings/KEY/identity/record/"]
)
def test_a_document_that_is_not_a_json_object(embedded, key, files, name) -> None:
    for content in NOT_JSON.values():
        files[f"{name.replace('KEY', key.hash)}zarr.json"] = content
        with pytest.raises(StoreDamaged, match=DAMAGED):
            everything(embedded, key)


@pytest.mark.parametrize("name", ["samples/mpp/", "embeddings/KEY/identity/values/", "embeddings/KEY/identity/"])
def test_a_removed_document(embedded, key, files, name) -> None:
    del files[f"{name.replace('KEY', key.hash)}zarr.json"]

    with pytest.raises(CacheError):
        everything(embedded, key)


@pytest.mark.parametrize("part", ["samples", "embeddings"])
def test_a_document_without_information_is_not_needed_and_is_rewritten(embedded, key, files, part) -> None:
    intact = dict(files)
    for content in (None, *NOT_JSON.values(), b'{"zarr_format": 3, "node_type": "array"}'):
        files.pop(f"{part}/zarr.json")
        if content is not None:
            files[f"{part}/zarr.json"] = content

        everything(embedded, key)
        Store.open(embedded.location, mode="r+")

        assert json.loads(files[f"{part}/zarr.json"]) == json.loads(intact[f"{part}/zarr.json"])


@pytest.mark.parametrize("name", ["samples/mpp", "samples/image", "embeddings/KEY/identity/values"])
def test_a_removed_array(embedded, store_path, key, name) -> None:
    shutil.rmtree(store_path / name.replace("KEY", key.hash))

    with pytest.raises(StoreDamaged, match="missing or unreadable"):
        everything(embedded, key)


@pytest.mark.parametrize("part", ["embeddings/KEY", "embeddings/KEY/identity"])
def test_writing_to_a_group_that_lost_its_document_is_an_error(embedded, key, files, part) -> None:
    del files[f"{part.replace('KEY', key.hash)}/zarr.json"]

    with pytest.raises(StoreDamaged, match=r"is not a finished group: delete it with `") as caught:
        embedded.embeddings(key).write([0], np.ones((1, 256, 64, 64), np.float32))
    assert f"`nucseg cache prune {embedded.location} --key {part.replace('KEY', key.hash)[11:]}`" in str(caught.value)


def test_a_key_whose_group_was_renamed(embedded, key, store_path) -> None:
    other = make_key(weights="ffd1a2cd" * 4)
    (store_path / "embeddings" / key.hash).rename(store_path / "embeddings" / other.hash)

    with pytest.raises(StoreDamaged, match=f"holds the key of {key.hash}: it was renamed"):
        embedded.keys()
    with pytest.raises(StoreDamaged, match="holds the embeddings of another key"):
        Store.open(embedded.location).embeddings(other).read([0])


@pytest.mark.parametrize("n_rows", [None, "3", -1, 3.5, [], {}])
@pytest.mark.parametrize("array", ["samples/id", "embeddings/KEY/identity/values"])
def test_an_invalid_number_of_rows(embedded, key, files, array, n_rows) -> None:
    name = f"{array.replace('KEY', key.hash)}/zarr.json"
    files.edit(name, lambda document: document["shape"].__setitem__(0, n_rows))

    with pytest.raises(StoreDamaged, match="unreadable"):
        everything(embedded, key)


def test_two_views_that_were_swapped(embedded, key, store_path) -> None:
    other = embedded.embeddings(key, "soft-1", described={"seed": "0"})
    other.write([0], np.ones((1, 256, 64, 64), np.float32))
    place = store_path / "embeddings" / key.hash
    for old, new in (("identity", "other"), ("soft-1", "identity"), ("other", "soft-1")):
        (place / old).rename(place / new)

    for view in ("identity", "soft-1"):
        with pytest.raises(StoreDamaged, match=r"holds the view .*: it was renamed\. Restore its name, or delete it"):
            Store.open(store_path).embeddings(key, view).embedded_rows()


@pytest.mark.parametrize("array", ["id", "record", "image", "state"])
def test_a_shortened_array_of_the_samples(embedded, files, array) -> None:
    files.edit(f"samples/{array}/zarr.json", lambda document: document["shape"].__setitem__(0, 2))

    with pytest.raises(StoreDamaged, match=f"has 2 rows in samples/{array}, expected 3. Restore"):
        Store.open(embedded.location)


@pytest.mark.parametrize("array", ["values", "stored", "record"])
def test_a_shortened_array_of_the_embeddings_makes_rows_missing_which_can_be_rewritten(
    embedded, key, files, array
) -> None:
    before = dict(files)
    name = f"embeddings/{key.hash}/identity/{array}/zarr.json"
    files.edit(name, lambda document: document["shape"].__setitem__(0, 2))
    embeddings = Store.open(embedded.location, mode="r+").embeddings(key)

    assert embeddings.missing() == embeddings.missing(sizes=True) == [2]
    with pytest.raises(RowDamaged, match=r"row 2 \(image 2\): it is missing"):
        embeddings.read([0, 1, 2])
    embeddings.write([2], make_embeddings(2))

    np.testing.assert_array_equal(embeddings.read(range(3)), make_embeddings(0, 1, 2))
    assert dict(files) == before


def test_appending_changes_only_the_number_of_rows_in_an_arrays_document(store, files) -> None:
    before = {name: json.loads(content) for name, content in files.items() if name.endswith("/zarr.json")}
    store.append([make_sample(3)])

    for name, document in before.items():
        if document["node_type"] == "array":
            document["shape"][0] += 1
        assert json.loads(files[name]) == document


def test_consolidated_metadata_is_ignored(store, key) -> None:
    with pytest.warns(Warning, match="[Cc]onsolidated"):
        zarr.consolidate_metadata(store.location)
    grown = Store.open(store.location, mode="r+")
    grown.append([make_sample(3)])
    grown.embeddings(key).write([3], np.ones((1, 256, 64, 64), np.float32))

    assert Store.open(store.location).read_samples([3])[0].id == "image 3"
    assert Store.open(store.location).embeddings(key).missing() == [0, 1, 2]


def test_a_zarr_array_is_not_a_store(store_path) -> None:
    zarr.create_array(store_path, shape=(3,), dtype="u1")

    with pytest.raises(StoreFormatError, match="is a zarr array, not a store of nucseg"):
        Store.open(store_path)


def test_an_empty_folder_or_a_file_is_not_a_store(tmp_path) -> None:
    (tmp_path / "file.zarr").write_text("x")
    (tmp_path / "folder.zarr").mkdir()

    for name in ("file.zarr", "folder.zarr", "file.zarr/below.zarr"):
        with pytest.raises(StoreNotFound):
            Store.open(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
        {"codecs": [{"name": "evil.codec"}]},
        {"data_type": "object"},
        {"data_type": {"name": "evil", "configuration": {}}},
    ],
)
def test_codecs_and_types_unknown_to_zarr_are_damage_even_if_sealed(tmp_path, change) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("values", shape=(2, 2), dtype="uint8")
    file = tmp_path / "a.zarr" / "values" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    write_sealed(group, {"format": 1}, ("values",))

    with pytest.raises(StoreDamaged, match="missing or unreadable"):
        read_sealed(group, ("values",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text(max_size=3), inside, max_size=2),
    max_leaves=3,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each key or index in it."""
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, place) for place in inner] + [more for place in inner for more in places(value[place])]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_after_any_edit_of_a_document_reads_are_unchanged_or_refused(embedded, key, files, data) -> None:
    name = data.draw(st.sampled_from(sorted(file for file in files if file.endswith("zarr.json"))))
    intact, before = files[name], as_bytes(everything(embedded, key))
    document = json.loads(intact)
    container, place = data.draw(st.sampled_from(places(document)))
    if isinstance(container, list) or data.draw(st.booleans()):
        container[place] = data.draw(JSON)
    else:
        del container[place]
    files[name] = json.dumps(document).encode()
    try:
        found, message = as_bytes(everything(embedded, key)), str(embedded.location)
    except CacheError as error:
        found, message = before, str(error)
    finally:
        files[name] = intact
    assert found == before
    assert str(embedded.location) in message


def as_bytes(found: Any) -> object:
    table, samples, key, values = found
    return table, [s.image.tobytes() + s.instances.tobytes() for s in samples], key, values.tobytes()
