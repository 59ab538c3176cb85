"""Parameters and arithmetic operations of a network."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nucseg.errors import ConfigError
from nucseg.models.base import STRIDE_PX, SegmentationModel
from nucseg.models.fusion import EMBEDDING_CHANNELS, EMBEDDING_GRID

MAX_PX = 1 << 16


@dataclass(frozen=True)
class Costs:
    """The result of `count_costs`."""

    parameters: int
    """Number of trainable values."""

    flops: int
    """Multiplications and additions of convolutions, matrix products and attention."""


def count_costs(model: SegmentationModel, input_px: int = 256) -> Costs:
    """Count the parameters, and the floating-point operations of a prediction for one image of side `input_px`.

    Counts the operations that actually run: `UpsampledConv2d` needs far fewer than a convolution of the enlarged map.
    Normalisation, activations, pooling and interpolation are not counted. With deep supervision all side outputs are
    counted. Nothing is computed: a copy of the network runs on the meta device, where attention consists of plain
    matrix products (on a CPU it is fused, and the counter would miss it).

    Raises:
        ConfigError: input_px is not a multiple of 16, or too large.
    """
    if input_px > MAX_PX:
        raise ConfigError(f"input_px must be at most {MAX_PX:,}, got {input_px}.")
    if input_px < 1 or input_px % STRIDE_PX:
        below = max(input_px // STRIDE_PX, 1) * STRIDE_PX
        raise ConfigError(
            f"input_px must be a positive multiple of {STRIDE_PX} (a network halves the image four times), "
            f"got {input_px}. Nearest valid sizes: {below} and {below + STRIDE_PX}."
        )
    with torch.device("meta"):
        twin = type(model)(model.config).eval()
        image = torch.empty(1, 3, input_px, input_px)
        embedding = torch.empty(1, EMBEDDING_CHANNELS, EMBEDDING_GRID, EMBEDDING_GRID)
    with FlopCounterMode(display=False) as counter:
        twin(image, embedding)
    return Costs(parameters=sum(p.numel() for p in twin.parameters()), flops=counter.get_total_flops())
