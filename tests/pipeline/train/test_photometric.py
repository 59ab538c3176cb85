"""Colours of the training images change from epoch to epoch; everything else of a sample stays as it is cached."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nucseg.photometric import PhotometricRecipe
from nucseg.replay import Geometry, Replay
from nucseg_cache import Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batch import CPU, Row, collate
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.train.augmentation import Augmentation, AugmentedDataset
from nucseg_pipeline.train.stage import train

IDS = tuple(f"image [{number}]" for number in range(12))
RECIPE = PhotometricRecipe.named("laboratories")
COLOURS = Augmentation(Geometry.named("none"), Replay(), photometric=RECIPE)
Configure = Callable[..., TrainConfig]


def open_rows(cache: Path, **options: object) -> EmbeddingDataset:
    store = Store.open(cache / "synthetic.zarr")
    (key,) = store.keys()
    return EmbeddingDataset(store, store.embeddings(key), IDS, **options)


def images(rows: list[Row]) -> list[bytes]:
    return [row.sample.image.tobytes() for row in rows]


@pytest.mark.parametrize("preload", ["on", "off"])
def test_colours_change_and_masks_and_embeddings_stay(pristine_cache: Path, preload: str) -> None:
    rows = open_rows(pristine_cache, preload=preload, distances=True)
    before = rows.read(range(12), ["identity"] * 12)
    originals = images(before)

    after, _ = AugmentedDataset(rows, COLOURS, seed=0).read(range(12), epoch=0)

    changed = [new != old for new, old in zip(images(after), originals, strict=True)]
    assert 3 <= sum(changed) < 12
    assert images(rows.read(range(12), ["identity"] * 12)) == originals  # preloaded rows are not written to
    for new, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(new.sample.instances, old.sample.instances)
        np.testing.assert_array_equal(new.sample.ignore, old.sample.ignore)
        np.testing.assert_array_equal(new.embedding, old.embedding)
        np.testing.assert_array_equal(new.distance, old.distance)


def test_colours_depend_on_seed_epoch_and_id_alone(pristine_cache: Path) -> None:
    augmented = AugmentedDataset(open_rows(pristine_cache), COLOURS, seed=0)
    of_epochs = [images(augmented.read(range(12), epoch=epoch)[0]) for epoch in (0, 1)]

    backwards = AugmentedDataset(open_rows(pristine_cache, preload="on"), COLOURS, seed=0)
    assert [images(backwards.read([index], epoch=1)[0])[0] for index in reversed(range(12))] == of_epochs[1][::-1]
    assert images(AugmentedDataset(open_rows(pristine_cache), COLOURS, seed=1).read(range(12), epoch=0)[0]) not in (
        of_epochs
    )
    assert sum(first != second for first, second in zip(*of_epochs, strict=True)) > 3


def test_rows_on_a_device_take_the_same_colours_there(pristine_cache: Path) -> None:
    rows = open_rows(pristine_cache).read(range(12), ["identity"] * 12)
    on_device = [row.on(CPU) for row in rows]  # as for rows that are preloaded on a GPU

    batches = [collate(COLOURS.recolour(list(share), seed=0, epoch=0)) for share in (rows, on_device)]

    assert torch.equal(batches[0].image, batches[1].image)
    assert torch.equal(batches[1].target, collate(rows).target)
    assert torch.equal(batches[1].embedding, collate(rows).embedding)
    assert not torch.equal(batches[1].image, collate(rows).image)


def test_the_padding_stays_black_and_does_not_count_as_colour(pristine_cache: Path) -> None:
    (row,) = open_rows(pristine_cache).read([0], ["identity"])
    image = row.sample.image.copy()
    side = len(image)
    image[side // 2 :] = 0
    wide = replace(row, sample=replace(row.sample, image=image, size=(50, 100)))

    for epoch in range(8):
        (changed,) = COLOURS.recolour([wide], seed=0, epoch=epoch)
        expected = RECIPE.apply(image[: side // 2], 0, epoch, row.sample.id)
        np.testing.assert_array_equal(changed.sample.image[: side // 2], expected)
        assert (changed.sample.image[side // 2 :] == 0).all()


@pytest.mark.parametrize("fusion", ["xgfb", "none"])
def test_a_run_records_its_colours_and_resumes_to_the_same_weights(
    training: Configure, tmp_path: Path, fusion: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('p = 0.8\n[[transform]]\nname = "WhiteBalance"\nfactor = [0.5, 1.5]\n')
    config = training(photometric=str(file), fusion=fusion, width=2)
    train(config)
    file.unlink()  # what the run has recorded is enough

    resumed = replace(config, run=tmp_path / "resumed", epochs=1)
    train(resumed)
    train(replace(resumed, epochs=2, resume=True, preload="off"))
    train(replace(config, run=tmp_path / "plain", photometric="none"))

    whole, parts, plain = (weights(tmp_path / name) for name in ("run", "resumed", "plain"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    assert not all(torch.equal(tensor, plain[name]) for name, tensor in whole.items())
    assert RunFolder(tmp_path / "run").config().photometric == config.photometric
    assert "WhiteBalance" in (tmp_path / "run/config.toml").read_text()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = RunFolder(folder).load_checkpoint("last.pt")["model"]
    return found
