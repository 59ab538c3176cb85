"""Feature maps as colours: their first three principal components as red, green and blue (paper A, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nucseg.data import content_size
from nucseg.errors import DataError

FeatureMap = NDArray[np.floating[Any]]
"""(C, H, W): a grid of cells with C channels."""
Rgb = NDArray[np.float32]
"""(H, W, 3) in [0, 1]."""
Vector = NDArray[np.float64]

Value = TypeVar("Value", bound=np.generic)

N_COLOURS = 3
PERCENTILES = (1, 99)
"""Scores of a component between these percentiles become 0 to 1, so that a few outliers do not take all contrast."""
NEGLIGIBLE = 1e-8
"""A component with less than this share of the variance is rounding error and not shown."""


@dataclass(frozen=True, eq=False)
class PrincipalColours:
    """A mapping from the channels of a cell to its colour, fitted to one or more maps.

    Maps painted by the same fit can be compared, since a colour means the same in each of them. Colours of different
    fits cannot be compared.

    The sign of a principal component is arbitrary. Here the loading with the largest absolute value is positive
    (scikit-learn's rule), so that the same features always have the same colours.
    """

    mean: Vector
    """(C,) subtracted from the channels."""
    scale: Vector
    """(C,) by which the channels are then divided; 1 unless standardised."""
    axes: NDArray[np.float64]
    """(3, C) loadings in order of variance; zeros if there are fewer than three components."""
    low: Vector
    """(3,) scores that become 0."""
    high: Vector
    """(3,) scores that become 1."""
    explained: Vector
    """(3,) share of the variance in each component, after standardisation if any."""

    @classmethod
    def fit(cls, maps: Sequence[FeatureMap], *, standardise: bool = False) -> PrincipalColours:
        """Compute the components over all cells of all maps.

        Args:
            maps: each (C, H, W), with the same number of channels and any grid.
            standardise: scale each channel to variance 1 first: for concatenated channels of several sources.

        Raises:
            DataError: no maps, maps that are not (C, H, W) or differ in C, no cells, or values that are not finite.
        """
        cells = np.concatenate(_checked(maps))
        mean, varies = cells.mean(axis=0), np.ptp(cells, axis=0) > 0
        scale = np.where(varies & standardise, cells.std(axis=0), 1.0)
        axes, explained = np.zeros((N_COLOURS, len(mean))), np.zeros(N_COLOURS)
        if varies.any():  # without any variance, its shares are NaN
            found, shares = _components((cells - mean) / scale)
            axes[: len(found)], explained[: len(found)] = found, shares
        scores = ((cells - mean) / scale) @ axes.T
        low, high = _range(scores)
        return cls(mean, scale, axes, low, high, explained)

    def paint(self, features: FeatureMap) -> Rgb:
        """Colour the cells of a map: (C, H, W) -> (H, W, 3). A component without variance becomes one half.

        Raises:
            DataError: the map is not (C, H, W) with the fit's number of channels, or not finite.
        """
        (cells,) = _checked([features])
        if cells.shape[1] != len(self.mean):
            raise DataError(
                f"These colours were fitted to maps with {len(self.mean)} channels, but this one has "
                f"{cells.shape[1]}. Fit them to maps of the same layer."
            )
        span = self.high - self.low
        scores = ((cells - self.mean) / self.scale) @ self.axes.T
        colours = np.where(span > 0, (scores - self.low) / np.where(span > 0, span, 1), 0.5)
        return colours.clip(0, 1).reshape(*features.shape[1:], N_COLOURS).astype(np.float32)


def principal_colours(features: FeatureMap, *, standardise: bool = False) -> tuple[Rgb, Vector]:
    """Colour a map by its own components: (C, H, W) -> (H, W, 3) in [0, 1], and their shares of the variance (3,).

    For arguments and errors, see `PrincipalColours.fit`.
    """
    colours = PrincipalColours.fit([features], standardise=standardise)
    return colours.paint(features), colours.explained


def without_padding(features: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """Cut off the cells of the padding: (C, G, G) -> (C, h, w).

    Args:
        features: of an image padded at the bottom and right to a square.
        size: native (H, W) of the image. Cells at least half covered by it are kept (`content_size`).
    """
    h, w = content_size(size, max(features.shape[1:]))
    return features[:, :h, :w]


def _components(cells: NDArray[np.float64]) -> tuple[NDArray[np.float64], Vector]:
    """Loadings (K, C) and shares of the variance (K,) of at most three components that exceed rounding errors."""
    from sklearn.decomposition import PCA

    # the full decomposition: scikit-learn's other solvers are randomised, or square the rounding errors
    pca = PCA(n_components=min(N_COLOURS, *cells.shape), svd_solver="full").fit(cells)
    kept = pca.explained_variance_ratio_ > NEGLIGIBLE
    return pca.components_[kept], pca.explained_variance_ratio_[kept]


def _range(scores: NDArray[np.float64]) -> tuple[Vector, Vector]:
    """Robust limits of each component; its minimum and maximum if nearly all cells have the same score."""
    low, high = np.percentile(scores, PERCENTILES, axis=0)
    flat = high <= low
    return np.where(flat, scores.min(axis=0), low), np.where(flat, scores.max(axis=0), high)


def _checked(maps: Sequence[FeatureMap]) -> list[NDArray[np.float64]]:
    """The cells of each map, (H * W, C)."""
    shapes = [features.shape for features in maps]
    if not maps or any(len(shape) != 3 or not min(shape) or shape[0] != shapes[0][0] for shape in shapes):
        raise DataError(
            f"Principal components need maps (C, H, W) with the same number of channels and at least one cell, got "
            f"{', '.join(map(str, shapes)) or 'none'}. Pass each image of a batch separately, and only one layer."
        )
    broken = sum(int(np.count_nonzero(~np.isfinite(features))) for features in maps)
    if broken:
        raise DataError(
            f"{broken} values of the feature maps are not finite: the training diverged, or its precision overflowed. "
            "Train again with a lower learning rate or without mixed precision; for an embedding, embed again."
        )
    return [features.reshape(features.shape[0], -1).T.astype(np.float64) for features in maps]
