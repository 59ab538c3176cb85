"""What a symmetry of the square does to the channels of an embedding, fitted to exact views.

An encoder tells the direction of a structure by which channels speak. Of the turned image other channels speak, and a
moved embedding still says the old direction. How the channels mix is the same at every cell and in every image, so a
linear map for each element, (C, C), can be fitted to few images of which all eight orientations were encoded.
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
    """Return M that takes a moved embedding nearest to the true one: M[e] T_e(x - P) + P, by ridge regression.

    From the eight orientations of an image there are eight pairs for each element, and all are used: that from the
    first to the second is as good as that from the second to the third. Only one image is in memory at a time.

    Shapes:
        orbits    (8, C, G, G), the embeddings of the orientations of one image in the order of `d4.ELEMENTS`
        pattern   (C, G, G) of `position_pattern`
        returns   (8, C, C) float32; the identity for the identity

    Raises:
        DataError: there is no image at all, or the result would not be finite.
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
            "what a turn does to the channels is learned from exact views of training images, and there are none. "
            "Run `nucseg embed --views d4`, or take replay corrected."
        )
    identity = torch.eye(n, dtype=torch.float64, device=pattern.device)
    mixing: Tensor = torch.linalg.solve(inputs + RIDGE * inputs.diagonal().mean() * identity, products, left=False)
    mixing[0] = identity
    if not mixing.isfinite().all():
        raise DataError("an exact view holds values that are not finite. Run `nucseg cache verify`.")
    return mixing.to(torch.float32)
