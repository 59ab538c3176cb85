"""The objective is the loss of the network's outputs, with a term for each of its options."""

import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.losses import SegmentationLoss, distance_loss
from nucseg.models import ModelConfig, build_model
from nucseg_pipeline.loading.batch import Batch
from nucseg_pipeline.train.objective import Objective


def test_the_objective_is_the_loss_of_the_networks_logits(batch: Batch) -> None:
    torch.manual_seed(0)
    model = build_model("eunet3plus", ModelConfig(width=2, dropout=0.0)).train()
    args = batch.image[:2], batch.embedding[:2].float(), batch.target[:2], batch.ignore[:2]
    expected = SegmentationLoss()(model(*args[:2]), *args[2:])
    torch.testing.assert_close(Objective(model)(*args), expected)


def test_with_deep_supervision_the_objective_is_the_mean_over_the_levels(batch: Batch) -> None:
    torch.manual_seed(0)
    model = build_model("eunet3plus", ModelConfig(width=2, dropout=0.0, deep_supervision=True)).train()
    args = batch.image[:2], batch.embedding[:2].float(), batch.target[:2], batch.ignore[:2]
    sides = model.outputs(*args[:2]).sides
    assert len(sides) > 1
    expected = sum(SegmentationLoss()(side, *args[2:]) for side in sides) / len(sides)
    torch.testing.assert_close(Objective(model)(*args), expected)


def test_with_a_distance_head_the_objective_adds_the_distance_loss_with_a_weight_of_one(batch: Batch) -> None:
    torch.manual_seed(0)
    model = build_model("eunet3plus", ModelConfig(width=2, dropout=0.0, instance_head="distance")).train()
    args = batch.image[:2], batch.embedding[:2].float(), batch.target[:2], batch.ignore[:2]
    distance = batch.image[:2, 2] * batch.target[:2]
    outputs = model.outputs(*args[:2])
    expected = SegmentationLoss()(outputs.sides[0], *args[2:]) + distance_loss(outputs.distance, distance, *args[2:])
    torch.testing.assert_close(Objective(model)(*args, distance), expected)


def test_a_network_without_the_head_has_the_same_loss_whether_or_not_there_are_distances(batch: Batch) -> None:
    torch.manual_seed(0)
    model = build_model("eunet3plus", ModelConfig(width=2, dropout=0.0)).train()
    args = batch.image[:2], batch.embedding[:2].float(), batch.target[:2], batch.ignore[:2]
    torch.testing.assert_close(Objective(model)(*args, batch.image[:2, 2]), Objective(model)(*args))


def test_a_distance_head_without_distances_to_learn_is_refused(batch: Batch) -> None:
    model = build_model("eunet3plus", ModelConfig(width=2, instance_head="distance"))
    with pytest.raises(ConfigError, match="distances=True"):
        Objective(model)(batch.image[:1], batch.embedding[:1].float(), batch.target[:1], batch.ignore[:1])
