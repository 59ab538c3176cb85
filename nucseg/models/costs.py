"""What a network costs: its parameters, and the arithmetic of one forward pass."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nucseg.errors import ConfigError
from nucseg.models.base import STRIDE_PX, SegmentationModel
from nucseg.models.fusion import EMBEDDING_CHANNELS, EMBEDDING_GRID

MOST_PX = 1 << 16


@dataclass(frozen=True)
class Costs:
    """What `count_costs` counts."""

    parameters: int
    """Numbers that training changes."""

    flops: int
    """Multiplications and additions, 2 for each pair, of convolutions, matrix products and attention."""


def count_costs(model: SegmentationModel, input_px: int = 256) -> Costs:
    """Count the parameters, and the arithmetic of a prediction for one image of `input_px` a side.

    What is counted is what runs: `UpsampledConv2d` takes far fewer operations than a convolution of the enlarged
    map, and counts as that. Normalisation, activations, pooling and interpolation are not counted. A prediction makes
    all side outputs of a network with deep supervision. Nothing is computed: a twin of the network without weights
    is run over shapes alone, where attention is the plain matrix products that it stands for (of a forward pass on a
    CPU the counter misses them: they are fused there).

    Raises:
        ConfigError: input_px is not a multiple of 16.
    """
    if input_px > MOST_PX:
        raise ConfigError(f"input_px must be at most {MOST_PX:,}, got {input_px}.")
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
