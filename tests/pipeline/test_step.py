"""Image, masks and embedding of a sample turn together, each sample by its own element."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.losses import SegmentationLoss, distance_loss
from nucseg.models import ModelConfig, build_model
from nucseg_pipeline.rows import Batch
from nucseg_pipeline.step import Objective, turned


def eight_views(x: np.ndarray) -> list[np.ndarray]:
    """The orbit of the last two axes under flips and quarter turns, by numpy."""
    mirrored = np.flip(x, -1)
    return [np.rot90(one, quarter, (-2, -1)) for one in (x, mirrored) for quarter in range(4)]


@pytest.fixture
def batch() -> Batch:
    """The ids 0 to 15; every pixel of image, target and ignore comes from one map, the embedding from its cells."""
    random = torch.Generator().manual_seed(0)
    embedding = torch.rand((16, 256, 64, 64), generator=random).half()
    image = embedding[:, :3].float()
    return Batch(tuple(map(str, range(16))), image, (image[:, 0] > 0.5).long(), image[:, 1] > 0.5, embedding)


def test_all_parts_of_a_sample_turn_by_one_element(batch: Batch) -> None:
    result = turned(batch, seed=0, epoch=0, pattern=None)
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
    whole = turned(batch, seed=3, epoch=1, pattern=None)
    part = Batch(batch.ids[5:7], batch.image[5:7], batch.target[5:7], batch.ignore[5:7], batch.embedding[5:7])
    assert torch.equal(turned(part, seed=3, epoch=1, pattern=None).image, whole.image[5:7])


def test_epochs_and_seeds_turn_differently(batch: Batch) -> None:
    results = [turned(batch, seed=s, epoch=e, pattern=None).image for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(results[i], results[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_what_is_the_same_everywhere_is_left_in_place_while_the_rest_turns(batch: Batch) -> None:
    pattern = torch.rand((256, 64, 64), generator=torch.Generator().manual_seed(1))
    still = replace(batch, embedding=pattern.expand(16, -1, -1, -1).clone())
    torch.testing.assert_close(turned(still, seed=0, epoch=0, pattern=pattern).embedding, still.embedding)


def test_a_batch_without_embeddings_turns_too(batch: Batch) -> None:
    result = turned(replace(batch, embedding=None), seed=0, epoch=0, pattern=None)
    assert result.embedding is None
    assert torch.equal(result.image, turned(batch, seed=0, epoch=0, pattern=None).image)


def test_the_distance_turns_with_its_sample(batch: Batch) -> None:
    deep = replace(batch, distance=batch.image[:, 2])
    result = turned(deep, seed=0, epoch=0, pattern=None)
    assert torch.equal(result.distance, result.image[:, 2])
    assert not torch.equal(result.distance, deep.distance)
    assert turned(batch, seed=0, epoch=0, pattern=None).distance is None


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
