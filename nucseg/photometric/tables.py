"""Changes of single grey levels by look-up tables of 256 entries: brightness, white balance and background.

Grey levels are taken as transmitted light, 255 where nothing is absorbed.
"""

from collections.abc import Sequence

import numpy as np

from nucseg.photometric.stain_jitter import Image

BACKGROUND = 0.95
"""Quantile of a channel's grey levels that is taken as its background."""

_LEVELS = np.arange(256)


def scale_density(image: Image, scale: float) -> Image:
    """Multiply the optical density of an image (H, W, 3) uint8 by `scale`.

    A grey level v becomes 255 * 10 ** (-scale * density) with density = -log10(v / 255), which equals a gamma
    correction with the exponent `scale`. A scale below 1 makes the image brighter, as a thinner section would be.
    """
    return _looked_up(image, np.rint(255 * (_LEVELS / 255) ** scale).astype(np.uint8))


def scale_channels(image: Image, factors: Sequence[float]) -> Image:
    """Multiply red, green and blue of an image (H, W, 3) uint8 by one factor each; what exceeds 255 becomes 255."""
    return _looked_up(image, np.rint(_LEVELS[:, None] * np.asarray(factors)).clip(0, 255).astype(np.uint8))


def lighten_background(image: Image, share: float) -> Image:
    """Move the background of an image (H, W, 3) uint8 towards white, and scale everything else with it.

    The background of a channel is the lowest grey level that at least 95 % of its pixels do not exceed. A factor for
    each channel moves it by `share` of its distance from 255, so share 1 makes it white, as luminosity standardisation
    does. In an image without glass this is the brightest tissue.
    """
    background = (_quantile(channel) for channel in np.moveaxis(image, -1, 0))
    return scale_channels(image, [1 + share * (255 / max(level, 1) - 1) for level in background])


def _quantile(channel: Image) -> int:
    n_below = np.bincount(channel.ravel(), minlength=256).cumsum()
    return int(np.searchsorted(n_below, BACKGROUND * channel.size))


def _looked_up(image: Image, table: Image) -> Image:
    """Replace the grey levels by a table (256,), or (256, 3) with one for each channel."""
    import cv2

    return np.asarray(cv2.LUT(image, table.reshape(1, 256, -1)), np.uint8)
