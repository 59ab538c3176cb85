"""Rows come out of the store as they went in, in an order that needs no memory."""

import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.nuclei.instances import distance_map
from nucseg_cache import FORMATS, Embeddings, Key, RowDamaged, Store
from nucseg_pipeline.loading.batch import CPU, collate
from nucseg_pipeline.loading.batches import batches, epoch_order
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.loading.prefetch import prefetch_depth, stream

IDS = tuple(f"image [{number}]" for number in (3, 0, 7, 5))


@pytest.fixture
def store(pristine_cache: Path) -> Store:
    return Store.open(pristine_cache / "synthetic.zarr")


@pytest.fixture
def embeddings(store: Store) -> Embeddings:
    return store.embeddings(store.keys()[0])


def test_a_batch_holds_what_the_store_holds_in_the_order_of_the_ids(store: Store, embeddings: Embeddings) -> None:
    batch = collate(EmbeddingDataset(store, embeddings, IDS).__getitems__(range(4)))

    assert batch.ids == IDS
    for i, sample in enumerate(store.read_samples([3, 0, 7, 5])):
        np.testing.assert_allclose(batch.image[i].numpy(), sample.image.transpose(2, 0, 1) / 255, atol=1e-7)
        np.testing.assert_array_equal(batch.target[i].numpy(), sample.instances.astype(bool).astype(int))
        np.testing.assert_array_equal(batch.ignore[i].numpy(), sample.ignore)
    np.testing.assert_array_equal(batch.embedding.numpy(), embeddings.read([3, 0, 7, 5]))
    assert (batch.image.dtype, batch.target.dtype) == (torch.float32, torch.int64)
    assert (batch.ignore.dtype, batch.embedding.dtype) == (torch.bool, torch.float16)


def test_rows_in_memory_are_those_on_the_disk(store: Store, embeddings: Embeddings) -> None:
    kept, read = (
        EmbeddingDataset(store, embeddings, IDS, preload="on"),
        EmbeddingDataset(store, embeddings, IDS, preload="off"),
    )
    assert (kept.in_memory, read.in_memory) == (True, False)
    for row, other in zip(
        chain.from_iterable(stream(kept, [[2, 0], [1]])), chain.from_iterable(stream(read, [[2, 0], [1]])), strict=True
    ):
        assert row.sample.id == other.sample.id
        np.testing.assert_array_equal(row.embedding, other.embedding)


@pytest.fixture(scope="module", params=FORMATS)
def stored_as(
    request: pytest.FixtureRequest, pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Embeddings:
    """The embeddings of the store in each format, with a view in other colours."""
    path = tmp_path_factory.mktemp("formats") / "synthetic.zarr"
    shutil.copytree(pristine_cache / "synthetic.zarr", path)
    store = Store.open(path, mode="r+")
    floats = store.embeddings(store.keys()[0]).read(range(12)).astype(np.float32)
    key = Key({"architecture": "random", "format": request.param})
    store.embeddings(key).write(range(12), floats)
    images = 255 - np.stack([sample.image for sample in store.read_samples(range(12))])
    store.embeddings(key, "stain-1", images=True).write(range(12), 1 - floats, images)
    return Store.open(path).embeddings(key)


KEPT = {"read when asked for": None, "kept on the host": CPU, "kept on the device": torch.device("cpu", 0)}
"""Where rows are; the last stands for a device with memory of its own."""


@pytest.mark.parametrize("place", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0], [3, 2, 1, 0], [1, 1]], ids=str)
def test_a_batch_on_a_device_is_what_the_store_reads(
    stored_as: Embeddings, monkeypatch: pytest.MonkeyPatch, place: torch.device | None, order: list[int]
) -> None:
    monkeypatch.setattr("nucseg_pipeline.loading.dataset.choose_preload_device", lambda *_: place)
    store = Store.open(Path(stored_as._location))
    stained = store.embeddings(stored_as.key, "stain-1")
    rows = EmbeddingDataset(store, stored_as, IDS, views={"stain-1": stained}, distances=True)
    numbers = [store.row_of(IDS[index]) for index in order]
    views = ["stain-1" if index % 2 else "identity" for index in order]

    batch = collate(rows.read(order, views), CPU)

    assert batch.ids == tuple(IDS[index] for index in order)
    assert rows.in_memory is (place is not None)
    for place_in_batch, (number, view) in enumerate(zip(numbers, views, strict=True)):
        embeddings = stained if view == "stain-1" else stored_as
        expected = embeddings.read([number])[0]
        found = batch.embedding[place_in_batch].numpy()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        (sample,) = store.read_samples([number])
        image = 255 - sample.image if view == "stain-1" else sample.image
        assert torch.equal(batch.image[place_in_batch], torch.from_numpy(image).permute(2, 0, 1).float() / 255)
        np.testing.assert_array_equal(batch.target[place_in_batch].numpy(), sample.instances > 0)
        np.testing.assert_array_equal(batch.ignore[place_in_batch].numpy(), sample.ignore)
        np.testing.assert_array_equal(batch.distance[place_in_batch].numpy(), distance_map(sample.instances))


def test_codes_stay_codes_in_memory(stored_as: Embeddings) -> None:
    with_embedding, without = (
        EmbeddingDataset(Store.open(stored_as._location), embeddings, IDS) for embeddings in (stored_as, None)
    )

    n_bytes = with_embedding[0].n_bytes - without[0].n_bytes

    of_a_value = {"f16": 2, "f32": 4, "i8": 1, "i6": 1}[stored_as.key.fields["format"]]
    assert n_bytes == 256 * 64 * 64 * of_a_value + (256 * 4 if of_a_value == 1 else 0)


def test_rows_on_the_device_share_what_their_views_have_in_common(
    store: Store, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg_pipeline.loading.dataset.choose_preload_device", lambda *_: torch.device("cpu", 0))
    rows = EmbeddingDataset(store, embeddings, IDS, views={"d4-1": embeddings}, distances=True)

    row, other = (rows.read([2], [view])[0] for view in ("identity", "d4-1"))

    assert row.embedding is not other.embedding
    assert row.distance is other.distance
    assert all(row.pixels[name] is other.pixels[name] for name in ("image", "target", "ignore"))


def test_rows_read_together_make_a_batch_without_a_copy(store: Store, embeddings: Embeddings) -> None:
    rows = EmbeddingDataset(store, embeddings, IDS).__getitems__([2, 0, 1])

    assert collate(rows).embedding.data_ptr() == rows[0].embedding.ctypes.data
    for others in (rows[:2], rows[::-1]):
        batch = collate(others)
        assert batch.embedding.data_ptr() not in {row.embedding.ctypes.data for row in rows}
        np.testing.assert_array_equal(batch.embedding.numpy(), np.stack([row.embedding for row in others]))


def test_a_batch_of_rows_in_memory_is_a_copy(store: Store, embeddings: Embeddings) -> None:
    rows = EmbeddingDataset(store, embeddings, IDS, preload="on")
    collate(rows.__getitems__(range(4))).embedding.fill_(7)

    np.testing.assert_array_equal(rows[1].embedding, embeddings.read([0])[0])


def test_a_batch_ahead_is_always_read_and_no_more_than_fits() -> None:
    assert [prefetch_depth([[0] * size] * 9) for size in (1, 16, 64, 500)] == [64, 4, 1, 1]


def test_rows_in_memory_are_read_once(cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr")
    rows = EmbeddingDataset(store, None, IDS, preload="on")
    shutil.rmtree(cache)
    assert [row.sample.id for row in next(stream(rows, [[1, 2]]))] == [IDS[1], IDS[2]]


@pytest.mark.parametrize(("free_rows", "kept"), [(7.9, False), (8.1, True)])
def test_rows_are_kept_when_they_fit_in_half_of_the_free_memory(
    store: Store, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch, free_rows: float, kept: bool
) -> None:
    row_bytes = 32 * 32 * (3 + 4 + 1) + 256 * 64 * 64 * 2
    monkeypatch.setattr("nucseg_pipeline.loading.preload.available_memory", lambda: int(free_rows * row_bytes))
    assert EmbeddingDataset(store, embeddings, IDS, preload="auto").in_memory is kept


def test_distances_are_those_of_the_true_nuclei_and_none_where_not_asked_for(store: Store) -> None:
    asked = EmbeddingDataset(store, None, IDS, distances=True)
    batch = collate(asked.__getitems__(range(4)))
    assert batch.distance is not None
    for distance, sample in zip(batch.distance.numpy(), store.read_samples([3, 0, 7, 5]), strict=True):
        np.testing.assert_array_equal(distance, distance_map(sample.instances))
    assert batch.distance.dtype == torch.float32
    assert batch.to(torch.device("cpu")).distance is batch.distance
    without = EmbeddingDataset(store, None, IDS)
    assert collate(without.__getitems__([0, 1])).distance is None
    assert asked[0].n_bytes - without[0].n_bytes == 32 * 32 * 4


def test_kept_distances_are_computed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "nucseg_pipeline.loading.dataset.distance_map",
        lambda masks: calls.append(masks) or distance_map(masks),
    )
    rows = EmbeddingDataset(store, None, IDS, preload="on", distances=True)
    shown = [row for _ in range(2) for row in chain.from_iterable(stream(rows, [[0, 1], [2, 3]]))]
    assert len(calls) == len(IDS)
    assert all(row.distance is not None for row in shown)


def test_a_nucleus_is_as_deep_at_the_padding_as_at_any_other_edge_of_the_image(store: Store, tmp_path: Path) -> None:
    instances = np.zeros((32, 32), np.int32)
    instances[:5, 10:17] = 1
    instances[23:28, 10:17] = 2  # the padding begins at 28
    sample = replace(store.read_samples([0])[0], instances=instances, size=(28, 32))
    cut = Store.create(tmp_path / "cut.zarr", dataset="cut", source="", preparation={"side_px": "32"}, rows=[sample])

    distance = EmbeddingDataset(cut, None, [sample.id], distances=True)[0].distance

    assert distance is not None
    np.testing.assert_array_equal(distance[23:28], distance[4::-1])
    assert distance[27, 13] == distance[0, 13] == 1
    assert not distance[28:].any()


def test_without_guidance_no_embedding_is_needed(cache: Path) -> None:
    shutil.rmtree(cache / "synthetic.zarr" / "embeddings")
    (cache / "synthetic.zarr" / "embeddings").mkdir()
    shutil.copy(cache / "synthetic.zarr" / "samples" / "zarr.json", cache / "synthetic.zarr" / "embeddings")
    batch = collate(EmbeddingDataset(Store.open(cache / "synthetic.zarr"), None, IDS).__getitems__([0, 1]))
    assert batch.embedding is None
    assert batch.image.shape == (2, 3, 32, 32)


def test_an_id_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"1 of 2 images .* 'image \[99\]'"):
        EmbeddingDataset(store, None, ("image [0]", "image [99]"))


def test_a_damaged_row_is_an_error_and_not_a_batch(cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr")
    embeddings = store.embeddings(store.keys()[0])
    rows = EmbeddingDataset(store, embeddings, IDS)
    chunks = cache / "synthetic.zarr" / "embeddings" / embeddings.key.hash / "identity" / "values" / "c"
    (chunks / "7" / "0" / "0" / "0").unlink()
    with pytest.raises(RowDamaged, match=r"image \[7\]"):
        list(stream(rows, [[0], [1], [2], [3]]))


def test_every_epoch_visits_every_id_once_in_an_order_of_its_own() -> None:
    ids = [f"image {number}" for number in range(100)]
    orders = [epoch_order(ids, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == epoch_order(ids, 0, 0)


def test_an_order_is_not_the_order_of_the_store() -> None:
    ids = [f"image {number}" for number in range(200)]
    rank_correlation = np.corrcoef(epoch_order(ids, 0, 0), range(200))[0, 1]
    assert abs(rank_correlation) < 0.25  # over three standard deviations of a random order


def test_a_new_id_leaves_the_others_in_their_order() -> None:
    ids = [f"image {number}" for number in range(30)]
    before = [ids[i] for i in epoch_order(ids, 0, 0)]
    more = [*ids[:10], "new", *ids[10:]]
    assert [more[i] for i in epoch_order(more, 0, 0) if more[i] != "new"] == before


def test_batches_are_consecutive_pieces_of_the_order() -> None:
    assert batches([4, 0, 3, 1, 2], 2) == [[4, 0], [3, 1], [2]]


@pytest.mark.parametrize("n_processes", [2, 3, 4])
def test_processes_share_a_batch_evenly_and_together_show_every_row(n_processes: int) -> None:
    order = list(range(13))
    shares = [batches(order, 12, process=p, n_processes=n_processes) for p in range(n_processes)]
    for whole, parts in zip(batches(order, 12), zip(*shares, strict=True), strict=True):
        assert {len(part) for part in parts} == {-(-len(whole) // n_processes)}
        assert set(chain.from_iterable(parts)) == set(whole)
