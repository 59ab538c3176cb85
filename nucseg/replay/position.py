"""Moving an embedding as its image moves, with the part that does not move held in place.

An embedding holds a pattern that belongs to the place in the grid and not to the image: the encoder adds a position to
every patch. Flipping the image leaves that pattern where it is. So take it off, move the rest, put it back:
T(e - P) + P instead of T(e). It halves the error against the true embedding of the moved image.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nucseg.errors import ConfigError, DataError
from nucseg.replay import d4


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


def replay(embedding: Tensor, element: int, pattern: Tensor | None) -> Tensor:
    """Return the embedding as if its image had been moved by a symmetry of the square.

    Shapes:
        embedding   (..., C, G, G)   float16 or float32
        element     a member of `d4.ELEMENTS`; the identity changes no bit
        pattern     (C, G, G)        of `position_pattern`, or None to move the whole embedding
        returns     (..., C, G, G)   float32

    Raises:
        ConfigError: pattern and embedding differ in shape, the grid is not square, or there is no such element.
    """
    if pattern is not None and pattern.shape != embedding.shape[-3:]:
        raise ConfigError(
            f"the position pattern is {tuple(pattern.shape)} and the embeddings are {tuple(embedding.shape[-3:])}. "
            "Compute the pattern from the same embeddings."
        )
    exact = embedding.to(torch.float32)
    if pattern is None or element == 0:
        return d4.apply(exact, element)
    return d4.apply(exact - pattern, element) + pattern


def replay_batch(embeddings: Tensor, elements: Sequence[int], pattern: Tensor | None) -> Tensor:
    """Return each embedding moved by its own element. See `replay`.

    Shapes: embeddings (B, C, G, G), one element for each -> (B, C, G, G) float32

    Raises:
        ConfigError: the number of elements is not B, or as `replay`.
    """
    if len(elements) != len(embeddings):
        raise ConfigError(f"{len(embeddings)} embeddings need as many elements, got {len(elements)}.")
    moved = torch.empty_like(embeddings, dtype=torch.float32)
    for row, element in enumerate(elements):
        moved[row] = replay(embeddings[row], element, pattern)
    return moved
