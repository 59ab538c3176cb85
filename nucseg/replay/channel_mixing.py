"""What a symmetry of the square does to the channels of an embedding, fitted to exact views.

An encoder represents the direction of a structure by which channels respond. When the image is rotated, other channels
respond, but a moved embedding still has the old ones. The change is the same at every cell and in every image, so for
each element of D4 a linear map of the channels, (C, C), can be fitted to a few images encoded in all orientations.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nucseg.errors import DataError
from nucseg.replay import d4

RIDGE = 1e-3
"""Weight of the ridge penalty, as a share of the mean variance of the channels."""


def fit_mixing(orbits: Iterable[Tensor], pattern: Tensor) -> Tensor:
    """Fit M so that M[e] T_e(x - P) + P, the corrected moved embedding, is nearest to the true one (ridge regression).

    The eight orientations of an image give eight pairs for each element, and all are used: the pair of the first and
    second orientation is as good as that of the second and third. Only one image is in memory at a time.

    Shapes:
        orbits    (8, C, G, G), the embeddings of the orientations of one image in the order of `d4.ELEMENTS`
        pattern   (C, G, G), from `position_pattern`
        returns   (8, C, C) float32; the identity matrix for the identity element

    Raises:
        DataError: there is no image, or the result would not be finite.
    """
    n = len(pattern)
    # moving the cells changes no sum over them, so all elements share one matrix of inputs
    inputs = torch.zeros(n, n, dtype=torch.float64, device=pattern.device)
    products, n_images = inputs.repeat(len(d4.ELEMENTS), 1, 1), 0
    for orbit in orbits:
        n_images += 1
        views = [view.to(torch.float32) - pattern for view in orbit]
        for first, view in enumerate(views):
            inputs += view.flatten(1) @ view.flatten(1).mT
            for element in d4.ELEMENTS[1:]:
                moved, true = d4.apply(view, element), views[d4.compose(first, element)]
                products[element] += true.flatten(1) @ moved.flatten(1).mT
    if not n_images:
        raise DataError(
            "The channel mixing is fitted to exact views of training images, and there are none. "
            "Embed some (--views d4), or use --replay corrected."
        )
    identity = torch.eye(n, dtype=torch.float64, device=pattern.device)
    mixing: Tensor = torch.linalg.solve(inputs + RIDGE * inputs.diagonal().mean() * identity, products, left=False)
    mixing[0] = identity
    if not mixing.isfinite().all():
        raise DataError("An exact view contains NaN or infinite values; `nucseg cache verify DATASET` finds it.")
    return mixing.to(torch.float32)
