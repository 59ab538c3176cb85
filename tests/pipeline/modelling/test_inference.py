"""Predictions come in the order of the ids, and validation scores agree with scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from nucseg.models import Outputs
from nucseg_cache import Store
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.inference import predict, validate
from tests.pipeline.conftest import ignore_everything

IDS = tuple(f"image [{number}]" for number in (3, 0, 7, 5, 1))
CPU = torch.device("cpu")


class BrightIsNucleus(nn.Module):
    """Probability 0.9 of nucleus where the red channel is bright, 0.2 elsewhere; with `deep`, a distance head."""

    def __init__(self, *, deep: bool = False) -> None:
        super().__init__()
        self.deep = deep
        self.factor = nn.Parameter(torch.ones(()))  # gives outputs a gradient, unless gradients are switched off

    def outputs(self, image: Tensor, embedding: Tensor | None) -> Outputs:
        probability = torch.where(image[:, 0] > 0.4, 0.9, 0.2)
        logits = torch.stack([(1 - probability).log(), probability.log()], 1)
        return Outputs([logits], distance=(self.factor * image[:, 0]).bfloat16() if self.deep else None)


@pytest.fixture
def store(pristine_cache: Path) -> Store:
    return Store.open(pristine_cache / "synthetic.zarr")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_predictions_are_of_their_samples_in_the_order_of_the_ids(store: Store, batch_size: int) -> None:
    model = BrightIsNucleus(deep=True)
    predictions = list(predict(model, EmbeddingDataset(store, None, IDS), device=CPU, batch_size=batch_size))
    assert [prediction.sample.id for prediction in predictions] == list(IDS)
    for prediction in predictions:
        red = prediction.sample.image[..., 0] / 255
        assert prediction.distance is not None
        np.testing.assert_allclose(prediction.probability, np.where(red > 0.4, 0.9, 0.2), atol=1e-6)
        np.testing.assert_allclose(prediction.distance, red, atol=2e-3)  # the model returns bfloat16
        assert prediction.probability.dtype == prediction.distance.dtype == np.float32


class FitsTwo(BrightIsNucleus):
    """The same network on a device without memory for three images."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def outputs(self, image: Tensor, embedding: Tensor | None) -> Outputs:
        self.sizes.append(len(image))
        if len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().outputs(image, embedding)


def test_if_memory_runs_out_smaller_batches_are_predicted_with_the_same_result(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)
    small = FitsTwo()

    found = list(predict(small, rows, device=CPU, batch_size=4))

    assert small.sizes == [4, 2, 2, 1]
    for prediction, expected in zip(found, predict(BrightIsNucleus(), rows, device=CPU), strict=True):
        assert prediction.sample.id == expected.sample.id
        np.testing.assert_array_equal(prediction.probability, expected.probability)


def test_if_memory_runs_out_validation_scores_are_the_same(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)

    found = validate(FitsTwo(), rows, device=CPU, batch_size=5)

    assert found == validate(BrightIsNucleus(), rows, device=CPU, batch_size=5)


def test_predicting_puts_the_network_in_evaluation_and_needs_no_gradient(store: Store) -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    model.outputs = lambda image, embedding: BrightIsNucleus().outputs(model[0](image), embedding)
    first, second = (next(predict(model.train(), EmbeddingDataset(store, None, IDS), device=CPU)) for _ in range(2))
    np.testing.assert_array_equal(first.probability, second.probability)


def test_without_a_distance_head_a_prediction_has_none(store: Store) -> None:
    assert next(predict(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU)).distance is None


def test_validation_dice_is_the_mean_of_scikit_learns_over_images_without_ignored_pixels(store: Store) -> None:
    scores = validate(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU, batch_size=2)
    expected = []
    for prediction in predict(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU):
        counted = ~prediction.sample.ignore
        expected.append(f1_score(prediction.sample.instances[counted] > 0, prediction.probability[counted] >= 0.5))
    assert scores.n_images == 5
    assert scores.dice / scores.n_images == pytest.approx(np.mean(expected))


def test_images_in_which_every_pixel_is_ignored_are_not_validated_on(cache: Path) -> None:
    """micro-sam #1012: such an image had a Dice of 1 and a loss of 0."""
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    counted = validate(BrightIsNucleus(), EmbeddingDataset(store, None, IDS[2:]), device=CPU, batch_size=1)
    for image_id in IDS[:2]:
        ignore_everything(store, image_id)

    scores = validate(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU, batch_size=1)

    assert scores.n_images == counted.n_images == 3
    assert (scores.dice, scores.loss) == (pytest.approx(counted.dice), pytest.approx(counted.loss))


def test_validation_scores_of_two_processes_add_up_to_those_of_one(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)
    whole = validate(BrightIsNucleus(), rows, device=CPU, batch_size=8)
    parts = [validate(BrightIsNucleus(), rows, device=CPU, batch_size=8, process=p, n_processes=2) for p in (0, 1)]
    assert sum(part.n_images for part in parts) == whole.n_images
    assert sum(part.dice for part in parts) == pytest.approx(whole.dice)
    assert whole.loss > 0
