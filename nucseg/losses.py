"""Training losses: generalised Dice plus focal loss (papers A, section 3, and B, section IV), presence and distance."""

import torch
import torch.nn.functional as F
from monai.losses.dice import GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn

from nucseg.errors import ConfigError

DICE_SMOOTH = 1e-9
"""Generalised Dice weights a class by 1 / pixels**2, so its sums are of the order of 1 / pixels, 3e-5 for an image of
256 px without nuclei: the library's default of 1e-5 would be a third of that instead of negligible."""

FOCAL_GAMMA = 2.0
"""Recommended by Lin et al. 2017, section 4.1; the papers give no value."""

DISTANCE_BETA = 0.1
"""Smooth L1 loss is quadratic below this error: an outline drawn one pixel further out changes the true distances in a
nucleus of 20 px by about as much."""


class SegmentationLoss(nn.Module):
    """Generalised Dice over both classes plus focal loss, with equal weights, over the pixels that are not ignored.

    Generalised Dice (Sudre et al. 2017) is computed per image and averaged over the images that have a valid pixel.
    The focal loss is -(1 - p)**2 log p of the true class's probability p, averaged over the valid pixels of the batch.
    Both use the softmax of two channels: with one channel, generalised Dice would be plain Dice, which has no gradient
    for an image without nuclei.

    Shapes:
        logits      (B, 2, H, W)   background, nucleus
        target      (B, H, W)      int64, 0 or 1; any value where ignored
        ignore      (B, H, W)      bool
        returns     ()             0 with a gradient of 0 if every pixel is ignored
    """

    def __init__(self) -> None:
        super().__init__()
        self._dice = GeneralizedDiceLoss(smooth_nr=DICE_SMOOTH, smooth_dr=DICE_SMOOTH, reduction="none")
        self._focal = FocalLoss(gamma=FOCAL_GAMMA, use_softmax=True, reduction="none")

    def forward(self, logits: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
        """Return the loss, in float32 whatever the precision of the logits.

        Raises:
            ConfigError: the shapes do not match.
        """
        _check_shapes(logits, target, ignore)
        valid = ~ignore[:, None]
        logits = logits.float().where(valid, 0)  # not a product, because an ignored pixel may be NaN
        nucleus = (target[:, None] == 1).to(logits.dtype)
        truth = torch.cat([1 - nucleus, nucleus], dim=1) * valid

        dice = self._dice(logits.softmax(dim=1) * valid, truth)
        focal = self._focal(logits, truth).sum(dim=1)
        n_images, n_pixels = valid.flatten(1).any(dim=1).sum(), valid.sum()
        loss: Tensor = dice.sum() / n_images.clamp(min=1) + focal.sum() / n_pixels.clamp(min=1)
        return loss


def presence_loss(logit: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of the classification-guided module (Huang et al. 2020, section 2.3) on whether there is a nucleus.

    Averaged over the images that have a valid pixel; for the others it is unknown.

    Shapes: logit (B,); target and ignore as in `SegmentationLoss`; returns (), 0 if every pixel is ignored
    """
    present, known = ((target == 1) & ~ignore).flatten(1).any(dim=1), (~ignore).flatten(1).any(dim=1)
    losses = F.binary_cross_entropy_with_logits(logit, present.to(logit.dtype), reduction="none")
    return losses.where(known, 0).sum() / known.sum().clamp(min=1)


def distance_loss(predicted: Tensor, distance: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Smooth L1 loss of the distance inside nuclei: its mean over nucleus pixels plus its mean over the others.

    The two means give the few pixels of nuclei the same weight as the many around them.

    Shapes: predicted and distance (B, H, W), the latter in 0 to 1; target and ignore as in `SegmentationLoss`;
    returns (), float32, 0 with a gradient of 0 if every pixel is ignored

    Raises:
        ConfigError: the shapes do not match.
    """
    _check_pixels(tuple(target.shape), "target", predicted=predicted, distance=distance, ignore=ignore)
    # masked before the loss: the gradient of a NaN is NaN even if its loss is masked
    predicted, distance = (values.float().where(~ignore, 0) for values in (predicted, distance))
    errors = F.smooth_l1_loss(predicted, distance, beta=DISTANCE_BETA, reduction="none")
    parts = [(target == 1) & ~ignore, (target != 1) & ~ignore]
    return torch.stack([errors.where(part, 0).sum() / part.sum().clamp(min=1) for part in parts]).sum()


def _check_shapes(logits: Tensor, target: Tensor, ignore: Tensor) -> None:
    n_images, *channels_and_size = logits.shape
    if logits.ndim != 4 or channels_and_size[0] != 2:
        raise ConfigError(f"The loss needs logits (B, 2, H, W) of background and nucleus, got {tuple(logits.shape)}.")
    _check_pixels((n_images, *channels_and_size[1:]), "logits", target=target, ignore=ignore)


def _check_pixels(expected: tuple[int, ...], reference: str, *, ignore: Tensor, **others: Tensor) -> None:
    for name, pixels in {**others, "ignore": ignore}.items():
        if tuple(pixels.shape) != expected:
            raise ConfigError(f"{name} must be {expected}, as {reference}, got {tuple(pixels.shape)}.")
    if ignore.dtype != torch.bool:
        raise ConfigError(f"ignore must be bool, got {ignore.dtype}.")
