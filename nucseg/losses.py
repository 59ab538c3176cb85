"""The training loss: generalised Dice and focal loss with equal weights (papers A, section 3, and B, section IV)."""

import torch
from monai.losses.dice import GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn

from nucseg.errors import ConfigError

DICE_SMOOTH = 1e-9
"""Generalised Dice weighs a class by 1 / pixels**2, so its sums are of the order of 1 / pixels, 3e-5 for an image of
256 px without nuclei: the library's default of 1e-5 would be a third of what it is meant to keep from zero."""

FOCAL_GAMMA = 2.0
"""The focal loss's own recommendation (Lin et al. 2017, section 4.1); the papers give no number."""


class SegmentationLoss(nn.Module):
    """Generalised Dice over both classes plus focal loss, over the pixels that are not to be ignored.

    Generalised Dice (Sudre et al. 2017) is taken per image and averaged over the images that have a valid pixel.
    The focal loss is -(1 - p)**2 log p of the true class's probability p, averaged over the valid pixels of the batch.
    Both see the softmax of two channels: with one channel, generalised Dice would be plain Dice, and an image without
    nuclei would have no gradient from it.

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
            ConfigError: the shapes do not go together.
        """
        _check_shapes(logits, target, ignore)
        valid = ~ignore[:, None]
        logits = logits.float().where(valid, 0)  # not a product: an ignored pixel may well be NaN
        nucleus = (target[:, None] == 1).to(logits.dtype)
        truth = torch.cat([1 - nucleus, nucleus], dim=1) * valid

        dice = self._dice(logits.softmax(dim=1) * valid, truth)
        focal = self._focal(logits, truth).sum(dim=1)
        n_images, n_pixels = valid.flatten(1).any(dim=1).sum(), valid.sum()
        loss: Tensor = dice.sum() / n_images.clamp(min=1) + focal.sum() / n_pixels.clamp(min=1)
        return loss


def _check_shapes(logits: Tensor, target: Tensor, ignore: Tensor) -> None:
    n_images, *channels_and_size = logits.shape
    if logits.ndim != 4 or channels_and_size[0] != 2:
        raise ConfigError(f"the loss takes logits (B, 2, H, W) of background and nucleus, got {tuple(logits.shape)}.")
    expected = (n_images, *channels_and_size[1:])
    for name, pixels in (("target", target), ("ignore", ignore)):
        if tuple(pixels.shape) != expected:
            raise ConfigError(f"{name} should be {expected}, like the logits, got {tuple(pixels.shape)}.")
    if ignore.dtype != torch.bool:
        raise ConfigError(f"ignore should be bool, got {ignore.dtype}.")
