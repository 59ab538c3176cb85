"""Which nuclei are found, by their size: recall of the small ones and of the large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import ConfigError
from nucseg.metrics.instances import Counts
from nucseg.metrics.statistics import Interval, Resampling, Table, percentile_interval, resampled_sums

Found = NDArray[np.bool_] | Counts

QUARTILES = (0.25, 0.5, 0.75, 1.0)
"""Shares of all nuclei below the upper end of each bin."""


@dataclass(frozen=True)
class SizeBin:
    """The true nuclei of a test part of more than `low_px` and at most `high_px` pixels."""

    low_px: float
    """Area, in pixels of the evaluated grid, that all of them exceed."""
    high_px: float
    """Area that none of them exceeds."""
    n_nuclei: int
    """How many there are."""
    recall: Interval
    """Share of them that is matched; the ends are None where fewer than two groups hold such nuclei."""


def size_edges(areas: Sequence[Counts]) -> tuple[float, ...]:
    """Give the borders between the quarters of all true nuclei by area, from 0 to the largest area.

    `areas` are the (T,) areas of the nuclei of each image, in pixels (`Overlaps.true_area`). A border is the area of
    a nucleus and belongs to the bin below it, so no bin is empty. Ties and few nuclei give fewer bins, no nucleus at
    all gives no border.
    """
    every = np.concatenate([np.empty(0), *areas])
    if not every.size:
        return ()
    borders = np.unique(np.quantile(every, QUARTILES, method="inverted_cdf"))
    return (0.0, *borders.tolist())


def recall_by_size(
    areas: Sequence[Counts],
    found: Sequence[Found],
    edges: Sequence[float],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> tuple[SizeBin, ...]:
    """Share of the true nuclei that are matched, in each bin of areas; the nuclei of all images count together.

    The bootstrap draws groups of images, as in `resampled_sums`. A resample without any nucleus of a bin says nothing
    about its recall and is left out of the interval of that bin. A bin without any nucleus at all is left out.

    Shapes:
        areas[i]   (T_i,)     pixels of each true nucleus of image i (`Overlaps.true_area`)
        found[i]   (T_i,)     whether it is matched (`matched`); over several runs, the share of them that match it
        edges      (B + 1,)   rising, from `size_edges` of the same images

    Raises:
        ConfigError: `areas` and `found` are not of the same nuclei, a nucleus lies outside of the edges, there is no
            image, or not one group an image.
    """
    _check_correspondence(areas, found)
    counted = [_count(area, hit, edges) for area, hit in zip(areas, found, strict=True)]
    columns = np.array(counted).reshape(len(counted), 2 * max(len(edges) - 1, 0))
    sums, _ = resampled_sums(columns, groups, draws)
    (nuclei, hits), (resampled_nuclei, resampled_hits) = np.hsplit(columns, 2), np.hsplit(sums, 2)
    # nan where a resample holds no nucleus
    resampled = resampled_hits / np.where(resampled_nuclei > 0, resampled_nuclei, np.nan)
    names = np.arange(len(areas)) if groups is None else np.asarray(groups)
    return tuple(
        SizeBin(
            low_px=edges[position],
            high_px=edges[position + 1],
            n_nuclei=int(present.sum()),
            recall=_recall(present, hits[:, position], resampled[:, position], names),
        )
        for position, present in enumerate(nuclei.T)
        if present.any()
    )


def _recall(nuclei: Counts, hits: Counts, resampled: Table, names: NDArray[np.generic]) -> Interval:
    n_groups = len(np.unique(names))
    recall = percentile_interval(float(hits.sum() / nuclei.sum()), resampled, len(nuclei), n_groups)
    # the nuclei of one group give one recall in every resample: that is no interval
    return recall if len(np.unique(names[nuclei > 0])) > 1 else replace(recall, low=None, high=None)


def _count(area: Counts, found: Found, edges: Sequence[float]) -> Counts:
    """Count the nuclei of one image in each bin, and those that are matched, (2, B)."""
    position = np.searchsorted(edges, area) - 1
    n_bins = max(len(edges) - 1, 0)
    outside = area[(position < 0) | (position >= n_bins)]
    if outside.size:
        raise ConfigError(
            f"{outside.size} nuclei lie outside of the sizes {_named(edges)}, such as one of {outside[0]:g} pixels. "
            "Take the edges from the images that are scored: size_edges(areas)."
        )
    hits = np.bincount(position, weights=found, minlength=n_bins)
    return np.stack([np.bincount(position, minlength=n_bins), hits])


def _named(edges: Sequence[float]) -> str:
    return f"from {edges[0]:g} to {edges[-1]:g} pixels" if edges else "of no nucleus"


def _check_correspondence(areas: Sequence[Counts], found: Sequence[Found]) -> None:
    true, judged = [len(area) for area in areas], [len(hit) for hit in found]
    if true != judged:
        raise ConfigError(
            f"Each true nucleus needs its area and whether it is matched: got {sum(true)} areas in {len(true)} images "
            f"and {sum(judged)} matches in {len(judged)}. Make both from the same Overlaps."
        )
