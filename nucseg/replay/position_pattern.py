"""The part of an embedding that does not move with its image.

An embedding holds a pattern that belongs to the place in the grid and not to the image: the encoder adds a position to
every patch. Flipping the image leaves that pattern where it is, see `nucseg.replay.embedding`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from nucseg.errors import DataError


def position_pattern(batches: Iterable[Tensor]) -> Tensor:
    """Return P, the mean embedding at each cell over the training rows, float32.

    Batches are read one after the other and summed in float64: only one needs to be in memory, and how the rows are
    cut into batches is far below what float32 can show.

    Shapes: batches of (B, C, G, G) -> (C, G, G)

    Raises:
        DataError: there is no embedding at all, or the pattern would not be finite.
    """
    total, n_rows = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        total = total + batch.sum(dim=0, dtype=torch.float64)
        n_rows += len(batch)
    if not n_rows:
        raise DataError(
            "a position pattern is a mean over training embeddings, and there are none. Run `nucseg embed`."
        )
    pattern = (total / n_rows).to(torch.float32)
    if not pattern.isfinite().all():
        raise DataError("a training embedding holds values that are not finite. Run `nucseg cache verify`.")
    return pattern
