"""Where an image shows tissue: everywhere but in and near large areas without texture.

Glass, black and every other uniform area have no texture, whatever their colour and brightness. At the border of such
an area the embedding differs more from that of ordinary tissue than within it, so a margin of cells is left out too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CELL_PX = 4
"""Side of a cell in image pixels: the embedding's cells in an image of 256 px."""

TEXTURE = 1.5 / 255
"""Standard deviation of gray over 12 px that counts half: between the noise of glass and the texture of pale stroma."""

HOLE_CELLS = 3
"""Areas without texture count as tissue if no square of twice this radius and the cell in it fits in: lumina, fat."""

MARGIN_CELLS = 2
"""Width of the margin, 16 px of a 512 px image: there a painted half-plane of glass changed the embedding of MobileSAM
several times as much as farther away."""

_LEAST = 1e-3
"""Weight of cells without tissue in means, so that an image without any has its ordinary mean."""


@torch.no_grad()
def tissue_weights(image: Tensor) -> Tensor:
    """Return the weight of each cell between 0 (glass, black, one colour, and next to it) and 1 (tissue).

    The texture v is the variance of gray over 3 x 3 cells, and v**2 / (v**2 + TEXTURE**4) the weight before small holes
    are filled and the margin is cut off.

    Shapes: image (B, 3, H, W), float in [0, 1] -> (B, 1, H / 4, W / 4), float32
    """
    gray = image.float().mean(dim=1, keepdim=True)
    mean, mean_square = (_around(F.avg_pool2d(x, CELL_PX)) for x in (gray, gray.square()))
    variance = (mean_square - mean.square()).clamp_min(0).square()
    filled = _largest(variance / (variance + TEXTURE**4), HOLE_CELLS)
    # the variance of the cells next to an area has texture in it: one more
    return -_largest(-filled, HOLE_CELLS + 1 + MARGIN_CELLS)


def tissue_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the tissue of (B, C, G, G) as (B, C, 1, 1), float32; weights (B, 1, G, G)."""
    weights = weights + _LEAST
    mean: Tensor = (x.float() * weights).sum(dim=(2, 3), keepdim=True) / weights.sum(dim=(2, 3), keepdim=True)
    return mean


def centred_tissue(embedding: Tensor, weights: Tensor) -> Tensor:
    """Return an embedding (B, C, G, G) minus its mean over the tissue, and 0 outside, float32; weights (B, 1, H, W)."""
    height, width = embedding.shape[-2:]
    weights = F.adaptive_avg_pool2d(weights, (height, width))
    return (embedding.float() - tissue_mean(embedding, weights)) * weights


def _around(x: Tensor) -> Tensor:
    """The mean over 3 x 3 cells; over fewer at the edge."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _largest(x: Tensor, radius: int) -> Tensor:
    """The largest value in the square of this radius around each cell."""
    return F.max_pool2d(x, 2 * radius + 1, stride=1, padding=radius)
