"""Probabilities come in the order of the ids, and validation counts what it should."""

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

IDS = tuple(f"image [{number}]" for number in (3, 0, 7, 5, 1))
CPU = torch.device("cpu")


class BrightIsNucleus(nn.Module):
    """Probability 0.9 of nucleus where the red channel is bright, 0.2 elsewhere; with `deep`, a distance head."""

    def __init__(self, *, deep: bool = False) -> None:
        super().__init__()
        self.deep = deep
        self.factor = nn.Parameter(torch.ones(()))  # a network's output has a gradient, unless it is switched off

    def outputs(self, image: Tensor, embedding: Tensor | None) -> Outputs:
        probability = torch.where(image[:, 0] > 0.4, 0.9, 0.2)
        logits = torch.stack([(1 - probability).log(), probability.log()], 1)
        return Outputs([logits], distance=(self.factor * image[:, 0]).bfloat16() if self.deep else None)


@pytest.fixture
def store(pristine_cache: Path) -> Store:
    return Store.open(pristine_cache / "synthetic.zarr")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_predictions_are_of_their_samples_in_the_order_of_the_ids(store: Store, batch_size: int) -> None:
    predictions = list(
        predict(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU, batch_size=batch_size)
    )
    assert [one.sample.id for one in predictions] == list(IDS)
    for one in predictions:
        expected = np.where(one.sample.image[..., 0] / 255 > 0.4, 0.9, 0.2)
        np.testing.assert_allclose(one.probability, expected, atol=1e-6)
        assert one.probability.dtype == np.float32


class FitsTwo(BrightIsNucleus):
    """As above, on a device that has no memory for three images."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def outputs(self, image: Tensor, embedding: Tensor | None) -> Outputs:
        self.sizes.append(len(image))
        if len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().outputs(image, embedding)


def test_where_memory_runs_out_fewer_images_are_predicted_at_once_with_the_same_result(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)
    small = FitsTwo()

    found = list(predict(small, rows, device=CPU, batch_size=4))

    assert small.sizes == [4, 2, 2, 1]
    for one, other in zip(found, predict(BrightIsNucleus(), rows, device=CPU), strict=True):
        assert one.sample.id == other.sample.id
        np.testing.assert_array_equal(one.probability, other.probability)


def test_where_memory_runs_out_validation_scores_are_the_same(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)

    found = validate(FitsTwo(), rows, device=CPU, batch_size=5)

    assert found == validate(BrightIsNucleus(), rows, device=CPU, batch_size=5)


def test_predicting_puts_the_network_in_evaluation_and_needs_no_gradient(store: Store) -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    model.outputs = lambda image, embedding: BrightIsNucleus().outputs(model[0](image), embedding)
    one, other = (next(predict(model.train(), EmbeddingDataset(store, None, IDS), device=CPU)) for _ in range(2))
    np.testing.assert_array_equal(one.probability, other.probability)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_prediction_holds_the_distance_of_its_sample_in_full_precision(store: Store, batch_size: int) -> None:
    model = BrightIsNucleus(deep=True)
    predictions = list(predict(model, EmbeddingDataset(store, None, IDS), device=CPU, batch_size=batch_size))
    assert [one.sample.id for one in predictions] == list(IDS)
    for one in predictions:
        assert one.distance is not None
        np.testing.assert_allclose(one.distance, one.sample.image[..., 0] / 255, atol=2e-3)
        assert one.distance.dtype == np.float32


def test_without_a_distance_head_a_prediction_has_none(store: Store) -> None:
    assert next(predict(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU)).distance is None


def test_validation_dice_is_the_mean_of_scikit_learns_over_images_without_ignored_pixels(store: Store) -> None:
    scores = validate(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU, batch_size=2)
    expected = []
    for one in predict(BrightIsNucleus(), EmbeddingDataset(store, None, IDS), device=CPU):
        counted = ~one.sample.ignore
        expected.append(f1_score(one.sample.instances[counted] > 0, one.probability[counted] >= 0.5))
    assert scores.n_images == 5
    assert scores.dice / scores.n_images == pytest.approx(np.mean(expected))


def test_what_two_processes_validate_adds_up_to_the_whole(store: Store) -> None:
    rows = EmbeddingDataset(store, None, IDS)
    whole = validate(BrightIsNucleus(), rows, device=CPU, batch_size=8)
    parts = [validate(BrightIsNucleus(), rows, device=CPU, batch_size=8, process=p, n_processes=2) for p in (0, 1)]
    assert sum(part.n_images for part in parts) == whole.n_images
    assert sum(part.dice for part in parts) == pytest.approx(whole.dice)
    assert whole.loss > 0
