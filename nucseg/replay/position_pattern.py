"""The part of an embedding that does not move with its image.

The encoder adds a position to every patch, so an embedding contains a pattern that depends on the place in the grid
and not on the image. Flipping the image leaves that pattern where it is, see `nucseg.replay.embedding`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from nucseg.errors import DataError


def position_pattern(batches: Iterable[Tensor]) -> Tensor:
    """Return P, the mean embedding at each cell over the training rows, float32.

    Batches are summed in float64, one at a time: only one needs to be in memory, and how rows are split into batches
    changes less than float32 can represent.

    Shapes: batches of (B, C, G, G) -> (C, G, G)

    Raises:
        DataError: there is no embedding, or the pattern would not be finite.
    """
    total, n_rows = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        total = total + batch.sum(dim=0, dtype=torch.float64)
        n_rows += len(batch)
    if not n_rows:
        raise DataError("A position pattern is the mean of training embeddings, and there are none. Give at least one.")
    pattern = (total / n_rows).to(torch.float32)
    if not pattern.isfinite().all():
        raise DataError("A training embedding contains NaN or infinite values; `nucseg cache verify DATASET` finds it.")
    return pattern
