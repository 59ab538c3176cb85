"""Where an image shows tissue: everywhere but in and near large areas without texture.

Glass, black and every other uniform area have no texture, whatever their colour and brightness. At the border of such
an area the embedding differs more from that of ordinary tissue than within it, so a margin of cells is left out too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 64
"""Cells along the longer side of an image, as in an embedding: 4 px each at 256 px."""

SMOOTH_STD = (1 / 255, 1.5 / 255)
"""Bounds of the standard deviation of gray over 3 x 3 cells that counts half: above the noise of glass, below the
texture of pale stroma. In between it is RELATIVE_STD of the image's own texture, for the tissue of faint images."""

RELATIVE_STD = 0.15
"""Share of the 90th percentile of the standard deviations in an image."""

HOLE_RADIUS = 3
"""Areas without texture count as tissue unless a square of 2 * HOLE_RADIUS + 1 cells fits in: lumina, fat."""

MARGIN = 2
"""Cells next to an area that are left out: there a painted half-plane of glass changed the embedding of MobileSAM
several times as much as farther away."""

_LEAST = 1e-3
"""Weight of cells without tissue in means, so that an image without any has its ordinary mean."""


@torch.no_grad()
def tissue_weights(image: Tensor) -> Tensor:
    """Return the weight of each cell between 0 (glass, black, one colour, and next to it) and 1 (tissue).

    With v the variance of gray over 3 x 3 cells and s the standard deviation that counts half, the weight is
    v**2 / (v**2 + s**4), before small holes are filled and the margin is cut off. Padding, which is 0, has none.

    Shapes: image (B, 3, H, W), float in [0, 1] -> (B, 1, H / cell, W / cell), float32; a cell is max(H, W) / 64 pixels
    """
    gray = image.float().mean(dim=1, keepdim=True)
    cell_px = max(max(gray.shape[-2:]) // GRID, 1)
    mean, mean_square = (_around(F.avg_pool2d(x, cell_px)) for x in (gray, gray.square()))
    variance = (mean_square - mean.square()).clamp_min(0)
    typical = variance.flatten(1).quantile(0.9, dim=1).sqrt()[:, None, None, None]
    half = (RELATIVE_STD * typical).clamp(*SMOOTH_STD)
    filled = _largest(variance.square() / (variance.square() + half**4), HOLE_RADIUS)
    # one cell more: the mean over 3 x 3 carries texture into the first cell of an area
    weights = -_largest(-filled, HOLE_RADIUS + 1 + MARGIN)
    return weights * (F.max_pool2d(gray, cell_px) > 0)


def tissue_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the tissue of (B, C, G, G) as (B, C, 1, 1), float32; weights (B, 1, G, G)."""
    weights = weights + _LEAST
    total = torch.einsum("bchw,bhw->bc", x.float(), weights[:, 0])
    return (total / weights.sum(dim=(1, 2, 3))[:, None])[:, :, None, None]


def centred_tissue(embedding: Tensor, weights: Tensor) -> Tensor:
    """Return an embedding (B, C, G, G) minus its mean over the tissue, and 0 outside, float32; weights (B, 1, H, W)."""
    height, width = embedding.shape[-2:]
    weights = F.adaptive_avg_pool2d(weights, (height, width))
    embedding = embedding.float()
    return torch.addcmul(-tissue_mean(embedding, weights) * weights, embedding, weights)


def _around(x: Tensor) -> Tensor:
    """The mean over 3 x 3 cells; over fewer at the edge."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _largest(x: Tensor, radius: int) -> Tensor:
    """The largest value in the square of this radius around each cell."""
    rows = F.max_pool2d(x, (1, 2 * radius + 1), stride=1, padding=(0, radius))
    return F.max_pool2d(rows, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
