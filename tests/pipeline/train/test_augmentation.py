"""Image, masks and embedding of a sample move together, and views are read as they are drawn."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.replay import Geometry, Replay, d4
from nucseg.views import views_named
from nucseg.views.masks import MaskFollower, Masks
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batch import Batch
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.runs.selection import Selection
from nucseg_pipeline.train.augmentation import Augmentation, AugmentedDataset

IDS = tuple(f"image [{number}]" for number in range(12))
Configure = Callable[..., TrainConfig]


def eight_views(x: np.ndarray) -> list[np.ndarray]:
    """The orbit of the last two axes under flips and quarter turns, by numpy."""
    mirrored = np.flip(x, -1)
    return [np.rot90(image, quarter, (-2, -1)) for image in (x, mirrored) for quarter in range(4)]


def turned(batch: Batch, *, seed: int, epoch: int, replay: Replay | None = None) -> Batch:
    geometry = Geometry.named("d4")
    motions = geometry.motions(seed, epoch, batch.ids, side=batch.image.shape[-1])
    return Augmentation(geometry, replay or Replay()).apply(batch, motions)


def test_all_parts_of_a_sample_turn_by_one_element(batch: Batch) -> None:
    result = turned(batch, seed=0, epoch=0)
    drawn = []
    for i in range(16):
        views = eight_views(batch.image[i].numpy())
        (element,) = [e for e, view in enumerate(views) if np.array_equal(view, result.image[i].numpy())]
        drawn.append(element)
        assert np.array_equal(eight_views(batch.target[i].numpy())[element], result.target[i].numpy())
        assert np.array_equal(eight_views(batch.ignore[i].numpy())[element], result.ignore[i].numpy())
        assert np.array_equal(eight_views(batch.embedding[i].float().numpy())[element], result.embedding[i].numpy())
    assert len(set(drawn)) > 4


def test_a_sample_turns_alike_in_whatever_batch_it_is(batch: Batch) -> None:
    whole = turned(batch, seed=3, epoch=1)
    part = Batch(batch.ids[5:7], batch.image[5:7], batch.target[5:7], batch.ignore[5:7], batch.embedding[5:7])
    assert torch.equal(turned(part, seed=3, epoch=1).image, whole.image[5:7])


def test_epochs_and_seeds_turn_differently(batch: Batch) -> None:
    results = [turned(batch, seed=s, epoch=e).image for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(results[i], results[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_what_is_the_same_everywhere_is_left_in_place_while_the_rest_turns(batch: Batch) -> None:
    pattern = torch.rand((256, 64, 64), generator=torch.Generator().manual_seed(1))
    still = replace(batch, embedding=pattern.expand(16, -1, -1, -1).clone())
    torch.testing.assert_close(turned(still, seed=0, epoch=0, replay=Replay(pattern)).embedding, still.embedding)


def test_a_batch_without_embeddings_turns_too(batch: Batch) -> None:
    result = turned(replace(batch, embedding=None), seed=0, epoch=0)
    assert result.embedding is None
    assert torch.equal(result.image, turned(batch, seed=0, epoch=0).image)


def test_the_distance_turns_with_its_sample(batch: Batch) -> None:
    deep = replace(batch, distance=batch.image[:, 2])
    result = turned(deep, seed=0, epoch=0)
    assert torch.equal(result.distance, result.image[:, 2])
    assert not torch.equal(result.distance, deep.distance)
    assert turned(batch, seed=0, epoch=0).distance is None


def test_left_as_it_is_an_embedding_does_not_follow(batch: Batch) -> None:
    geometry = Geometry.named("d4")
    motions = geometry.motions(0, 0, batch.ids, side=64)
    result = Augmentation(geometry, None).apply(batch, motions)
    assert torch.equal(result.embedding, batch.embedding)
    assert torch.equal(result.image, turned(batch, seed=0, epoch=0).image)


def test_a_bent_sample_is_moved_by_one_map_and_what_came_from_outside_is_ignored(batch: Batch) -> None:
    # everything of the batch is a function of the first three channels, so it must be so after the motion
    augmentation = Augmentation(Geometry.named('[{"name": "Affine", "rotate": 30, "scale": 0.7}]'), Replay())
    motions = augmentation.geometry.motions(0, 0, batch.ids, side=64)
    smooth = replace(batch, target=torch.ones_like(batch.target), ignore=torch.zeros_like(batch.ignore))

    result = augmentation.apply(smooth, motions)

    assert len(motions.mapped) == 16
    torch.testing.assert_close(result.embedding[:, :3], result.image, atol=1e-3, rtol=0)
    outside = result.ignore
    assert 0.2 < outside.float().mean() < 0.6
    assert (result.image.movedim(1, -1)[outside] == 0).all()
    assert torch.equal(result.target == 0, outside)


def test_without_augmentation_nothing_moves(batch: Batch) -> None:
    augmentation = Augmentation(Geometry.named("none"), Replay())
    motions = augmentation.geometry.motions(0, 0, batch.ids, side=64)
    assert augmentation.apply(batch, motions) is batch


@pytest.fixture(scope="module")
def with_views(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store with exact views: the embedding of view d4-e holds e everywhere, that of bright-n holds 100 + n."""
    cache = shutil.copytree(pristine_cache, tmp_path_factory.mktemp("views") / "cache")
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    rows = list(range(store.n_rows))
    for element, name in enumerate(D4_VIEWS, 1):
        store.embeddings(key, name, described={"orientation": str(element)}).write(rows, constant(element))
    for number in (1, 2, 4):
        store.embeddings(key, f"gap-{number}", described={"variant": str(number)}).write([0], constant(0)[:1])
    for number in (1, 2):
        images = np.full((12, 32, 32, 3), number, np.uint8)
        view = store.embeddings(key, f"bright-{number}", described={"variant": str(number)}, images=True)
        view.write(rows, constant(100 + number), images)
    return store


def constant(value: float) -> np.ndarray:
    return np.full((12, 256, 64, 64), value, np.float32)


@pytest.mark.parametrize("preload", ["on", "off"])
def test_the_orientation_that_is_drawn_is_the_one_that_is_read(
    with_views: Store, training: Configure, preload: str
) -> None:
    (key,) = with_views.keys()
    views = Selection(training(views="d4"), with_views, key).views(IDS)
    rows = EmbeddingDataset(with_views, with_views.embeddings(key), IDS, views=views, preload=preload)
    augmented = AugmentedDataset(rows, Augmentation(Geometry.named("d4"), Replay(), tuple(views)), seed=0)

    read, motions = augmented.read(range(12), epoch=0)

    assert motions.elements == tuple(d4.draw(0, 0, sample_id) for sample_id in IDS)
    for row, element in zip(read, motions.elements, strict=True):
        if element:
            assert (row.embedding == element).all()
        else:
            assert row.embedding.std() > 0
    # read in its orientation, an embedding is not turned again
    batch = Batch(IDS, torch.zeros(12, 3, 32, 32), *[torch.zeros(12, 32, 32, dtype=torch.bool)] * 2, gradients())
    assert torch.equal(augmented.augmentation.apply(batch, motions).embedding, gradients())


def gradients() -> torch.Tensor:
    return torch.arange(64.0).expand(12, 256, 64, 64).clone()


def test_a_variant_brings_its_own_image_and_each_is_drawn(with_views: Store, training: Configure) -> None:
    (key,) = with_views.keys()
    views = Selection(training(views="bright"), with_views, key).views(IDS)
    rows = EmbeddingDataset(with_views, with_views.embeddings(key), IDS, views=views)
    augmented = AugmentedDataset(rows, Augmentation(Geometry.named("d4"), Replay(), tuple(views)), seed=0)
    seen = set()
    for epoch in range(6):
        read, _ = augmented.read(range(12), epoch=epoch)
        for row, original in zip(read, with_views.read_samples(range(12)), strict=True):
            number = int(row.embedding[5, 0, 0]) - 100 if (row.embedding == row.embedding[0, 0, 0]).all() else 0
            expected = np.full((32, 32, 3), number) if number else original.image
            np.testing.assert_array_equal(row.sample.image, expected)
            np.testing.assert_array_equal(row.sample.instances, original.instances)
            seen.add(number)
    assert list(views) == ["bright-1", "bright-2"]
    assert seen == {0, 1, 2}


def test_missing_views_are_named_with_the_way_out(with_views: Store, training: Configure) -> None:
    (key,) = with_views.keys()
    with pytest.raises(ConfigError, match=r"in the views .*bright-1.*asks for stain. Run .*embed.* --views stain"):
        Selection(training(views="stain"), with_views, key).views(IDS)
    with pytest.raises(ConfigError, match=r"asks for Stain. Did you mean 'stain'\? Run"):
        Selection(training(views="Stain"), with_views, key).views(IDS)
    assert Selection(training(), with_views, key).views(IDS) == {}


def test_a_variant_that_is_missing_between_others_is_named(with_views: Store, training: Configure) -> None:
    (key,) = with_views.keys()
    with pytest.raises(ConfigError, match=r"without gap-3, .*--views path/to/gap.toml"):
        Selection(training(views="folder/gap.toml"), with_views, key).views(IDS[:1])


@pytest.mark.parametrize("preload", ["on", "off"])
@pytest.mark.parametrize("recipe", ["crops", "glass"])
def test_masks_and_distances_follow_a_view_that_crops_or_covers(
    cache: Path, training: Configure, recipe: str, preload: str
) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    rows = list(range(12))
    for view in views_named(recipe):
        images = np.full((12, 32, 32, 3), 7, np.uint8)
        embeddings = store.embeddings(key, view.name, described=view.described, images=True)
        embeddings.write(rows, constant(1), images)
    views = Selection(training(views=recipe), store, key).views(IDS)
    name = f"{recipe}-1"

    dataset = EmbeddingDataset(store, store.embeddings(key), IDS, views=views, preload=preload, distances=True)

    read = dataset.read(rows, [name] * 12)
    n_changed = 0
    for row, original in zip(read, dataset.read(rows, [IDENTITY] * 12), strict=True):
        before = original.sample
        expected = MaskFollower.of(store.embeddings(key, name).described).apply(
            Masks(before.instances, before.ignore, before.size), before.id
        )
        np.testing.assert_array_equal(row.sample.instances, expected.instances)
        np.testing.assert_array_equal(row.sample.ignore, expected.ignore)
        assert row.sample.size == expected.size
        n_changed += not np.array_equal(row.sample.instances, before.instances)
        np.testing.assert_array_equal(np.asarray(row.distance) > 0, row.sample.instances > 0)
        assert (row.sample.image == 7).all()
    assert n_changed > 8


def test_crops_of_a_later_version_are_refused(cache: Path, training: Configure) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    for recipe, what in (("crops", "crop"), ("glass", "glass")):
        part = views_named(recipe)[0]
        described = {**part.described, what: "round"}
        store.embeddings(key, part.name, described=described).write(range(12), constant(1))
        views = Selection(training(views=recipe), store, key).views(IDS)
        with pytest.raises(ConfigError, match="Use the version that embedded these views"):
            EmbeddingDataset(store, store.embeddings(key), IDS, views=views)


def test_views_of_some_images_alone_are_not_enough_to_train_on(cache: Path, training: Configure) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    for name in D4_VIEWS:
        store.embeddings(key, name, described={}).write([3, 4], constant(1)[:2])
    with pytest.raises(ConfigError, match=r"10 of 12 images .* no embedding of the view d4-1.*--views d4"):
        Selection(training(views="d4"), store, key).views(IDS)
