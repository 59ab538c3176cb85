"""Exact views: described and sealed, with images of their own if their colours differ, verified like every row."""

import numpy as np
import pytest

from nucseg_cache import (
    EmbeddingNotFound,
    Embeddings,
    Key,
    RowDamaged,
    Store,
    StoreDamaged,
    UnstorableEmbedding,
    ViewDiffers,
    prune,
    verify,
)
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_key, make_sample, make_store

SEED_0 = {"seed": "0", "transform 1": "HEDJitter"}


def image(number: int) -> np.ndarray:
    """(8, 8, 3), different for each number."""
    return np.random.default_rng(100 + number).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def stained(store: Store, key: Key) -> Embeddings:
    return store.embeddings(key, "stain-1", described=SEED_0, images=True)


@pytest.fixture
def jittered(embedded: Store, key: Key) -> Store:
    """Three samples with their embeddings and a view with other colours."""
    values, images = np.stack([make_embedding(20 + n) for n in range(3)]), np.stack([image(n) for n in range(3)])
    stained(embedded, key).write(range(3), values, images)
    return embedded


def path_of(key: Key, name: str) -> str:
    return f"embeddings/{key.hash}/stain-1/{name}"


@pytest.mark.parametrize("storage", ["f16", "f32", "i8"])
def test_values_and_images_are_read_back_as_written(filled, storage) -> None:
    key = make_key(format=storage)
    stained(Store.open(filled, mode="r+"), key).write([2, 0], make_embeddings(2, 0), np.stack([image(2), image(0)]))

    found = Store.open(filled).embeddings(key, "stain-1")
    values, images = found.read_with_images([0, 2])

    np.testing.assert_array_equal(values, make_embeddings(0, 2))
    np.testing.assert_array_equal(images, [image(0), image(2)])
    np.testing.assert_array_equal(found.read([2])[0], make_embedding(2))
    assert found.missing(sizes=True) == [1]
    assert Store.open(filled).find({"format": storage}, "stain-1") == key


def test_a_view_without_images_returns_none_for_them(embedded, key) -> None:
    values, images = embedded.embeddings(key).read_with_images([1])

    np.testing.assert_array_equal(values[0], make_embedding(1))
    assert images is None


def test_a_view_without_images_has_the_arrays_of_identity(embedded, key, store_path) -> None:
    embedded.embeddings(key, "d4-1").write([0], make_embeddings(0))
    group = store_path / "embeddings" / key.hash

    names = [{path.name for path in (group / view).iterdir()} for view in ("identity", "d4-1")]

    assert names[0] == names[1] == {"zarr.json", "values", "stored", "record"}
    for array in ("values", "stored", "record"):
        assert (group / "identity" / array / "zarr.json").read_text() == (
            group / "d4-1" / array / "zarr.json"
        ).read_text()


@pytest.mark.parametrize("array", ["image", "values"])
@pytest.mark.parametrize("damage", ["swapped", "truncated", "edited", "deleted", "of identity"])
def test_damage_to_image_or_values_is_found(jittered, key, files, array, damage) -> None:
    chunk = {"image": "image/c/{}/0/0/0", "values": "values/c/{}/0/0/0"}[array]
    name, other = (path_of(key, chunk.format(row)) for row in (1, 2))
    if damage == "deleted":
        del files[name]
    elif damage == "of identity":
        files[name] = files[
            {"image": "samples/image/c/1/0/0/0", "values": f"embeddings/{key.hash}/identity/values/c/1/0/0/0"}[array]
        ]
    else:
        content = files[name]
        middle = len(content) // 2
        files[name] = {
            "swapped": files[other],
            "truncated": content[:middle],
            "edited": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        }[damage]

    view = Store.open(jittered.location).embeddings(key, "stain-1")

    with pytest.raises(RowDamaged, match=r"row 1 \(image 1\)"):
        view.read_with_images([0, 1, 2])
    with pytest.raises(RowDamaged, match=r"row 1 \(image 1\)"):
        view.read([1])
    view.read_with_images([0, 2])


def test_a_truncated_image_is_found_without_reading_it(jittered, key, files) -> None:
    name = path_of(key, "image/c/1/0/0/0")
    files[name] = files[name][:-1]

    assert stained(jittered, key).missing() == []
    assert stained(jittered, key).missing(sizes=True) == [1]


def test_verify_clears_a_damaged_image_which_is_then_missing(jittered, key, files) -> None:
    files[path_of(key, "image/c/0/0/0/0")] = files[path_of(key, "image/c/2/0/0/0")]

    found = verify(jittered.location)

    assert found.n_embeddings == 6
    assert [(f.what, f.bad.row) for f in found.findings] == [(f"{key.hash}/stain-1", 0)]
    assert stained(Store.open(jittered.location), key).missing() == [0]
    assert jittered.embeddings(key).missing() == []


def test_a_view_with_another_recipe_of_the_same_name_is_refused_with_the_differences(jittered, key) -> None:
    edited = jittered.embeddings(key, "stain-1", described={"seed": "1", "transform 2": "CLAHE"}, images=True)

    message = (
        r"(?s)view stain-1 in .*seed: cached 0, asked for 1.*transform 1: cached HEDJitter, asked for nothing"
        rf".*transform 2: cached nothing, asked for CLAHE.*another name.*prune .*drawn\.zarr --key {key.hash}/stain-1"
    )
    for use in (
        edited.missing,
        edited.embedded_rows,
        lambda: edited.read([0]),
        lambda: edited.write([0], make_embeddings(0), image(0)[None]),
    ):
        with pytest.raises(ViewDiffers, match=message):
            use()
    with pytest.raises(ViewDiffers, match="images of its own: cached yes, asked for no"):
        jittered.embeddings(key, "stain-1", described=SEED_0).missing()
    assert stained(jittered, key).missing() == []


def test_a_view_that_another_process_created_is_checked_before_writing(embedded, key) -> None:
    mine, theirs = stained(embedded, key), stained(Store.open(embedded.location, mode="r+"), key)
    edited = Store.open(embedded.location, mode="r+").embeddings(key, "stain-1", described={"seed": "1"}, images=True)
    assert mine.missing() == theirs.missing() == edited.missing() == [0, 1, 2]

    theirs.write([0], make_embeddings(0), image(0)[None])
    mine.write([1], make_embeddings(1), image(1)[None])
    with pytest.raises(ViewDiffers):
        edited.write([2], make_embeddings(2), image(2)[None])

    np.testing.assert_array_equal(mine.read_with_images([0, 1])[1], [image(0), image(1)])
    assert mine.missing() == [2]


@pytest.mark.parametrize(
    "edit", [lambda attributes: attributes["described"].update(seed="1"), lambda attributes: attributes.pop("images")]
)
def test_the_description_of_a_view_and_whether_it_keeps_images_are_sealed(jittered, key, files, edit) -> None:
    files.edit(path_of(key, "zarr.json"), lambda document: edit(document["attributes"]))

    with pytest.raises(StoreDamaged, match=r"stain-1.* were changed after they were written"):
        Store.open(jittered.location).embeddings(key, "stain-1").read_with_images([0])


@pytest.mark.parametrize(
    ("view", "images"),
    [
        ("stain-1", None),
        ("identity", np.zeros((1, 8, 8, 3), np.uint8)),
        ("stain-1", np.zeros((1, 9, 8, 3), np.uint8)),
        ("stain-1", np.zeros((2, 8, 8, 3), np.uint8)),
        ("stain-1", np.zeros((1, 8, 8, 3), np.float32)),
    ],
)
def test_images_that_do_not_fit_the_view_are_refused_before_anything_is_written(
    jittered, key, files, view, images
) -> None:
    before = dict(files)

    with pytest.raises(UnstorableEmbedding, match=f"images for the view {view}"):
        jittered.embeddings(key, view).write([0], make_embeddings(5), images)

    assert dict(files) == before


def test_a_changed_image_costs_one_embedding_in_each_key_and_view_and_a_vanished_one_none(jittered, key) -> None:
    other = make_key(format="f32")
    jittered.embeddings(other).write(range(3), make_embeddings(0, 1, 2))
    jittered.replace(1, make_sample(1, image_version=1))
    jittered.replace(2, make_sample(2, mask_version=1))
    jittered.set_present(0, present=False)
    groups = [jittered.embeddings(k, view) for k in (key, other) for view in jittered.views(k)]

    assert [group.missing() for group in groups] == [[1], [1], [1]]
    jittered.set_present(0, present=True)
    assert [group.missing() for group in groups] == [[1], [1], [1]]
    assert [group.file_bytes()[0] for group in groups] == [2, 2, 2]


def test_the_recorded_bytes_are_those_of_the_files(jittered, key, files) -> None:
    chunks = [
        content
        for name, content in files.items()
        if name.startswith((path_of(key, "values/c"), path_of(key, "image/c")))
    ]

    assert stained(jittered, key).file_bytes() == (3, sum(map(len, chunks)))
    assert jittered.embeddings(key, "d4-1").file_bytes() == (0, 0)


def test_one_view_can_be_pruned_alone(jittered, key, files) -> None:
    before = {name: content for name, content in files.items() if "/stain-1/" not in name}

    with pytest.raises(EmbeddingNotFound, match="stain-2"):
        prune(jittered.location, keys=[f"{key.hash}/stain-2"])
    done = prune(jittered.location, keys=[f"{key.hash}/stain-1"])

    assert done.keys == (f"{key.hash}/stain-1",)
    assert dict(files) == before
    prune(jittered.location, keys=[key.hash, f"{key.hash}/identity"])
    assert Store.open(jittered.location).keys() == ()


def test_a_killed_writer_never_leaves_an_image_with_the_values_of_another(jittered, key, strike, store_path) -> None:
    def write_again() -> None:
        stained(Store.open(store_path, mode="r+"), key).write([1], make_embeddings(11), image(11)[None])

    n_changes = strike(10**6, "none", write_again).n_changes
    after = dict(Files(store_path))
    assert n_changes == 5  # record, values, image, stored, record
    for at in range(1, n_changes + 1):
        stained(jittered, key).write([1], make_embeddings(1), image(1)[None])
        assert strike(at, "killed", write_again).struck

        survivor = stained(Store.open(store_path, mode="r+"), key)
        if at == 1:
            np.testing.assert_array_equal(survivor.read_with_images([1])[1], [image(1)])
        else:
            assert survivor.missing() == [1]
            with pytest.raises(RowDamaged):
                survivor.read_with_images([1])
        write_again()
        left = {name: content for name, content in Files(store_path).items() if not name.endswith(".partial")}
        assert left == after


def test_two_processes_can_write_two_views_of_one_key(
    embedded, key, process, files, tmp_path
) -> None:  # fmt: skip
    program = """
        store = Store.open(sys.argv[1], mode="r+")
        view = store.embeddings(make_key(), sys.argv[2], described={"seed": sys.argv[2]}, images=True)
        print("ready", flush=True)
        sys.stdin.readline()
        for row in range(3):
            with view.claim(view.blocks()[0], wait=True):
                view.write([row], make_embedding(row)[None], np.full((1, 8, 8, 3), row, np.uint8))
    """
    names = ("soft-1", "soft-2")
    writers = [process(program, embedded.location, name) for name in names]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0]

    alone = make_store(tmp_path / "alone.zarr")
    alone.embeddings(key).write([0, 1, 2], make_embeddings(0, 1, 2))
    for name in names:
        view = alone.embeddings(key, name, described={"seed": name}, images=True)
        for row in range(3):
            view.write([row], make_embeddings(row), np.full((1, 8, 8, 3), row, np.uint8))
    assert dict(files) == dict(Files(tmp_path / "alone.zarr"))
    assert verify(embedded.location).findings == ()
