"""The losses against closed forms and the published formulas."""

import math

import pytest
import torch
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.losses import DISTANCE_BETA, SegmentationLoss, distance_loss, presence_loss


def logits_of(nucleus_probability: list[list[float]]) -> Tensor:
    p = torch.tensor([nucleus_probability])
    return torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))], dim=1)


def make_batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 16, 16, generator=generator)
    target = (torch.rand(3, 16, 16, generator=generator) < 0.3).long()
    return logits, target, torch.zeros(3, 16, 16, dtype=torch.bool)


def loss_and_gradient(logits: Tensor, target: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = SegmentationLoss()(logits, target, ignore)
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def test_two_pixels_and_no_opinion() -> None:
    loss = SegmentationLoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), torch.zeros(1, 1, 2, dtype=torch.bool))

    assert loss.item() == pytest.approx(0.5 + 0.25 * math.log(2))


def test_four_pixels_by_hand() -> None:
    p = [[0.9, 0.2, 0.2, 0.2]]
    # one nucleus pixel weighs 1, three background pixels 1/9
    dice = 1 - 2 * (0.9 + 2.4 / 9) / ((1.5 + 1) + (2.5 + 3) / 9)
    focal = -(0.1**2 * math.log(0.9) + 3 * 0.2**2 * math.log(0.8)) / 4

    loss = SegmentationLoss()(logits_of(p), torch.tensor([[[1, 0, 0, 0]]]), torch.zeros(1, 1, 4, dtype=torch.bool))

    assert loss.item() == pytest.approx(dice + focal, rel=1e-5)


def test_it_is_the_published_formulas() -> None:
    logits, target, ignore = make_batch()
    p, r = logits.softmax(dim=1).flatten(2), torch.stack([1 - target, target], dim=1).flatten(2)
    weights = 1 / r.sum(-1) ** 2
    dice = 1 - 2 * (weights * (r * p).sum(-1)).sum(1) / (weights * (r + p).sum(-1)).sum(1)  # Sudre et al. 2017, Eq. 1
    surprise = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    focal = (1 - (-surprise).exp()) ** 2 * surprise  # Lin et al. 2017, Eq. 4

    torch.testing.assert_close(SegmentationLoss()(logits, target, ignore), dice.mean() + focal.mean())


def test_ignored_pixels_change_neither_value_nor_gradient() -> None:
    logits, target, ignore = make_batch()
    ignore[:, 10:, :] = True
    ignore[1, :, 3] = True
    value, gradient = loss_and_gradient(logits, target, ignore)

    wild, flipped = logits.clone(), target.clone()
    wild.permute(0, 2, 3, 1)[ignore] = 1e4 * torch.randn(int(ignore.sum()), 2)
    flipped[ignore] = 1 - flipped[ignore]
    other_value, other_gradient = loss_and_gradient(wild, flipped, ignore)

    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    assert not gradient.permute(0, 2, 3, 1)[ignore].any()


def test_ignored_pixels_count_as_cut_away() -> None:
    logits, target, ignore = make_batch()
    ignore[:, 10:, :] = True
    whole, gradient = loss_and_gradient(logits, target, ignore)
    cropped, cropped_gradient = loss_and_gradient(logits[:, :, :10], target[:, :10], ignore[:, :10])

    torch.testing.assert_close(whole, cropped)
    torch.testing.assert_close(gradient[:, :, :10], cropped_gradient)


def test_an_ignored_pixel_may_be_nan_and_have_any_class() -> None:
    logits, target, ignore = make_batch()
    ignore[0, 0, 0] = True
    logits[0, :, 0, 0], target[0, 0, 0] = torch.nan, 255

    loss, gradient = loss_and_gradient(logits, target, ignore)

    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_wholly_ignored_image_counts_as_left_out() -> None:
    logits, target, ignore = make_batch()
    ignore[2] = True

    torch.testing.assert_close(
        SegmentationLoss()(logits, target, ignore), SegmentationLoss()(logits[:2], target[:2], ignore[:2])
    )


def test_a_wholly_ignored_batch_is_zero_with_zero_gradient() -> None:
    logits, target, ignore = make_batch()

    loss, gradient = loss_and_gradient(logits, target, torch.ones_like(ignore))

    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_image_without_nuclei_still_has_a_gradient_from_both_terms() -> None:
    p = 0.25
    logits = logits_of([[p] * 64] * 64)
    target, ignore = torch.zeros(1, 64, 64, dtype=torch.long), torch.zeros(1, 64, 64, dtype=torch.bool)

    loss, gradient = loss_and_gradient(logits, target, ignore)

    # both classes weigh alike, so generalised Dice is the mean nucleus probability
    assert loss.item() == pytest.approx(p - p**2 * math.log(1 - p), rel=1e-3)
    slope = 1 - 2 * p * math.log(1 - p) + p**2 / (1 - p)
    assert gradient[0, 1].sum().item() == pytest.approx(slope * p * (1 - p), rel=1e-3)


def test_half_precision_logits_give_a_full_precision_loss() -> None:
    logits, target, ignore = make_batch()

    assert SegmentationLoss()(logits.bfloat16(), target, ignore).dtype == torch.float32


@pytest.mark.parametrize(
    ("logits", "target", "ignore", "message"),
    [
        ((1, 1, 4, 4), (1, 4, 4), (1, 4, 4), r"\(B, 2, H, W\).*\(1, 1, 4, 4\)"),
        ((1, 2, 4, 4), (1, 1, 4, 4), (1, 4, 4), r"target.*\(1, 4, 4\).*\(1, 1, 4, 4\)"),
        ((1, 2, 4, 4), (1, 4, 4), (4, 4), r"ignore.*\(1, 4, 4\).*\(4, 4\)"),
    ],
)
def test_shapes_that_do_not_match_are_refused(
    logits: tuple[int, ...], target: tuple[int, ...], ignore: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationLoss()(torch.zeros(logits), torch.zeros(target).long(), torch.zeros(ignore).bool())


def test_an_ignore_map_of_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bool, got torch\.uint8"):
        SegmentationLoss()(*make_batch()[:2], torch.zeros(3, 16, 16, dtype=torch.uint8))


# ---- the distance inside nuclei


def distances(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prediction, truth, nucleus mask and ignore mask; no pixel is ignored."""
    _, target, ignore = make_batch(seed)
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(target.shape, generator=generator)
    distance = torch.rand(target.shape, generator=generator) * target
    return predicted, distance, target, ignore


def distance_gradient(predicted: Tensor, distance: Tensor, target: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
    predicted = predicted.clone().requires_grad_()
    loss = distance_loss(predicted, distance, target, ignore)
    loss.backward()
    assert predicted.grad is not None
    return loss.detach(), predicted.grad


def test_the_distance_loss_of_four_pixels_by_hand() -> None:
    predicted, distance = torch.tensor([[[0.5, 0.2, 0.0, -0.05]]]), torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    target, ignore = torch.tensor([[[1, 0, 0, 0]]]), torch.zeros(1, 1, 4, dtype=torch.bool)

    loss, gradient = distance_gradient(predicted, distance, target, ignore)

    assert DISTANCE_BETA == 0.1
    nucleus, others = 0.5 - 0.05, (0.2 - 0.05 + 0 + 0.05**2 / (2 * 0.1)) / 3
    assert loss.item() == pytest.approx(nucleus + others)
    # the one pixel of a nucleus pulls three times as hard as one of the three others
    torch.testing.assert_close(gradient, torch.tensor([[[-1, 1 / 3, 0, -0.5 / 3]]]))


def test_a_perfect_distance_has_no_loss() -> None:
    _, distance, target, ignore = distances()

    assert distance_loss(distance, distance, target, ignore) == 0


def test_ignored_pixels_count_in_nothing_of_the_distance_loss_even_if_they_are_nan() -> None:
    predicted, distance, target, ignore = distances()
    ignore[:, 10:] = True
    cropped, cropped_gradient = distance_gradient(*(x[:, :10] for x in (predicted, distance, target, ignore)))

    predicted[:, 10:], distance[:, 12:], target[:, 10:] = torch.nan, torch.nan, 255
    whole, gradient = distance_gradient(predicted, distance, target, ignore)

    torch.testing.assert_close(whole, cropped)
    torch.testing.assert_close(gradient[:, :10], cropped_gradient)
    assert torch.equal(gradient[:, 10:], torch.zeros_like(gradient[:, 10:]))


def test_a_batch_of_ignored_pixels_has_no_distance_loss_and_no_gradient() -> None:
    predicted, distance, target, ignore = distances()

    loss, gradient = distance_gradient(predicted, distance, target, torch.ones_like(ignore))

    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("label", [0, 1])
def test_without_nuclei_or_without_background_only_the_other_part_counts(label: int) -> None:
    predicted, distance, _, ignore = distances()
    errors = (predicted - distance).abs()
    smooth = torch.where(errors < 0.1, errors**2 / 0.2, errors - 0.05)

    loss = distance_loss(predicted, distance, torch.full(ignore.shape, label), ignore)

    torch.testing.assert_close(loss, smooth.mean())


def test_half_precision_distances_give_a_full_precision_loss() -> None:
    predicted, distance, target, ignore = distances()

    assert distance_loss(predicted.half(), distance, target, ignore).dtype == torch.float32


@pytest.mark.parametrize(("which", "name"), [(0, "predicted"), (1, "distance"), (3, "ignore")])
def test_distances_of_another_shape_are_refused(which: int, name: str) -> None:
    batch = list(distances())
    batch[which] = batch[which][:, None]

    with pytest.raises(ConfigError, match=rf"{name} must be \(3, 16, 16\).*got \(3, 1, 16, 16\)"):
        distance_loss(*batch)


def presences() -> tuple[Tensor, Tensor, Tensor]:
    """An image with nuclei, one without, one whose only nucleus is ignored."""
    target, ignore = torch.zeros(3, 8, 8, dtype=torch.long), torch.zeros(3, 8, 8, dtype=torch.bool)
    target[0, 2:4, 2:4] = target[2, 5:, 5:] = 1
    ignore[2, 4:, 4:] = True
    return torch.tensor([2.0, -1.0, 0.5], requires_grad=True), target, ignore


def test_presence_is_the_cross_entropy_of_whether_a_valid_pixel_is_nucleus() -> None:
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))

    assert presence_loss(*presences()).item() == pytest.approx(expected / 3)


def test_a_wholly_ignored_image_has_no_presence_loss() -> None:
    logit, target, ignore = presences()
    ignore[0] = True

    loss = presence_loss(logit, target, ignore)
    loss.backward()

    torch.testing.assert_close(loss, presence_loss(logit[1:], target[1:], ignore[1:]))
    assert logit.grad is not None
    assert logit.grad[0] == 0


def test_the_presence_of_a_wholly_ignored_batch_is_zero_with_zero_gradient() -> None:
    logit, target, ignore = presences()

    loss = presence_loss(logit, target, torch.ones_like(ignore))
    loss.backward()

    assert loss == 0
    assert torch.equal(logit.grad, torch.zeros(3))
