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
"""(C, H, W): channels of a grid of cells."""
Rgb = NDArray[np.float32]
"""(H, W, 3) in [0, 1]."""
Vector = NDArray[np.float64]

Value = TypeVar("Value", bound=np.generic)

N_COLOURS = 3
PERCENTILES = (1, 99)
"""The scores of a component between these become 0 to 1; the few beyond do not take the contrast from all others."""
NEGLIGIBLE = 1e-8
"""A component with less than this share of the variance is rounding, and is not blown up into a colour."""


@dataclass(frozen=True, eq=False)
class PrincipalColours:
    """The way from the channels of a cell to its colour, fitted to one map or to several.

    Maps painted by one fit can be compared: a colour means the same in each of them. Colours of two fits cannot.

    The sign of a principal component is arbitrary. Here the loading of the largest absolute value is positive
    (scikit-learn's rule), so that the same features always give the same colours.
    """

    mean: Vector
    """(C,) subtracted from each channel."""
    scale: Vector
    """(C,) that each channel is then divided by; 1 unless standardised."""
    axes: NDArray[np.float64]
    """(3, C) loadings, the most important component first; zeros where there are fewer than three."""
    low: Vector
    """(3,) score that becomes 0."""
    high: Vector
    """(3,) score that becomes 1."""
    explained: Vector
    """(3,) share of the variance in each component, of the standardised channels where they are."""

    @classmethod
    def fit(cls, maps: Sequence[FeatureMap], *, standardise: bool = False) -> PrincipalColours:
        """Find the components over all cells of all maps.

        Args:
            maps: each (C, H, W), of one number of channels and any grid.
            standardise: bring each channel to variance 1 first, so that its scale decides nothing: for channels of
                several sources put together.

        Raises:
            DataError: no map, one that is not (C, H, W), other numbers of channels, no cell, or values that are not
                finite.
        """
        cells = np.concatenate(_checked(maps))
        mean, varies = cells.mean(axis=0), np.ptp(cells, axis=0) > 0
        scale = np.where(varies & standardise, cells.std(axis=0), 1.0)
        axes, explained = np.zeros((N_COLOURS, len(mean))), np.zeros(N_COLOURS)
        if varies.any():  # the shares of no variance at all are not numbers
            found, shares = _components((cells - mean) / scale)
            axes[: len(found)], explained[: len(found)] = found, shares
        scores = ((cells - mean) / scale) @ axes.T
        low, high = _range(scores)
        return cls(mean, scale, axes, low, high, explained)

    def paint(self, features: FeatureMap) -> Rgb:
        """Colour the cells of a map: (C, H, W) -> (H, W, 3). A component without variance is one half everywhere.

        Raises:
            DataError: the map is not (C, H, W) of the fit's number of channels, or not finite.
        """
        (cells,) = _checked([features])
        if cells.shape[1] != len(self.mean):
            raise DataError(
                f"These colours were fitted to maps of {len(self.mean)} channels and cannot paint one of "
                f"{cells.shape[1]}. Fit them to maps of the same layer."
            )
        span = self.high - self.low
        scores = ((cells - self.mean) / self.scale) @ self.axes.T
        colours = np.where(span > 0, (scores - self.low) / np.where(span > 0, span, 1), 0.5)
        return colours.clip(0, 1).reshape(*features.shape[1:], N_COLOURS).astype(np.float32)


def principal_colours(features: FeatureMap, *, standardise: bool = False) -> tuple[Rgb, Vector]:
    """Colour one map by its own components: (C, H, W) -> (H, W, 3) in [0, 1], and their shares of the variance (3,).

    For the arguments and errors see `PrincipalColours.fit`.
    """
    colours = PrincipalColours.fit([features], standardise=standardise)
    return colours.paint(features), colours.explained


def without_padding(features: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """Cut off the cells that the padding of the square fills: (C, G, G) -> (C, h, w).

    Args:
        features: of an image padded at the bottom and on the right to a square.
        size: native (H, W) of the image. A cell that it covers by at least a half stays (`content_size`).
    """
    h, w = content_size(size, max(features.shape[1:]))
    return features[:, :h, :w]


def _components(cells: NDArray[np.float64]) -> tuple[NDArray[np.float64], Vector]:
    """Loadings (K, C) and shares of the variance (K,) of the components that are more than rounding, at most three."""
    from sklearn.decomposition import PCA

    # the full decomposition: the others that scikit-learn may choose are random, or square the rounding errors
    pca = PCA(n_components=min(N_COLOURS, *cells.shape), svd_solver="full").fit(cells)
    kept = pca.explained_variance_ratio_ > NEGLIGIBLE
    return pca.components_[kept], pca.explained_variance_ratio_[kept]


def _range(scores: NDArray[np.float64]) -> tuple[Vector, Vector]:
    """Robust ends of each component; where nearly all cells score alike, the true ones."""
    low, high = np.percentile(scores, PERCENTILES, axis=0)
    flat = high <= low
    return np.where(flat, scores.min(axis=0), low), np.where(flat, scores.max(axis=0), high)


def _checked(maps: Sequence[FeatureMap]) -> list[NDArray[np.float64]]:
    """List the cells of each map, (H * W, C)."""
    shapes = [one.shape for one in maps]
    if not maps or any(len(shape) != 3 or not min(shape) or shape[0] != shapes[0][0] for shape in shapes):
        raise DataError(
            f"Principal components need maps (C, H, W) of one number of channels with at least one cell, got "
            f"{', '.join(map(str, shapes)) or 'none'}. Give each image of a batch on its own, and only one layer."
        )
    broken = sum(int(np.count_nonzero(~np.isfinite(one))) for one in maps)
    if broken:
        raise DataError(
            f"{broken} values of the feature maps are not finite: the training diverged, or its precision overflowed. "
            "Train again with a lower learning rate or without mixed precision; for an embedding, embed it anew."
        )
    return [one.reshape(one.shape[0], -1).T.astype(np.float64) for one in maps]
