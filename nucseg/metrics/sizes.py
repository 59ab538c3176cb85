"""Recall of nuclei by their size."""

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
"""Share of all nuclei at or below the upper edge of each bin."""


@dataclass(frozen=True)
class SizeBin:
    """The true nuclei of a test set with an area above `low_px` and up to `high_px`."""

    low_px: float
    """Lower edge, exclusive, in pixels of the evaluated grid."""
    high_px: float
    """Upper edge, inclusive."""
    n_nuclei: int
    recall: Interval
    """Share of them that is matched; the ends are None if fewer than two groups contain such nuclei."""


def size_edges(areas: Sequence[Counts]) -> tuple[float, ...]:
    """Return the edges between the quarters of all true nuclei by area, from 0 to the largest area.

    `areas` are the (T,) areas of the nuclei of each image, in pixels (`Overlaps.true_area`). Every edge is the area of
    a nucleus and belongs to the bin below it, so no bin is empty. Ties and few nuclei give fewer bins; without any
    nucleus there is no edge.
    """
    every = np.concatenate([np.empty(0), *areas])
    if not every.size:
        return ()
    edges = np.unique(np.quantile(every, QUARTILES, method="inverted_cdf"))
    return (0.0, *edges.tolist())


def recall_by_size(
    areas: Sequence[Counts],
    found: Sequence[Found],
    edges: Sequence[float],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> tuple[SizeBin, ...]:
    """Share of the true nuclei that are matched, in each bin of areas, with the nuclei of all images pooled.

    The bootstrap draws groups of images, as in `resampled_sums`. A resample without any nucleus in a bin is left out
    of the interval of that bin. Empty bins are left out.

    Shapes:
        areas[i]   (T_i,)     pixels of each true nucleus of image i (`Overlaps.true_area`)
        found[i]   (T_i,)     whether it is matched (`matched`), or for several runs the share of runs that match it
        edges      (B + 1,)   rising, from `size_edges` of the same images

    Raises:
        ConfigError: `areas` and `found` have different nuclei, a nucleus lies outside the edges, there is no image, or
            not one group per image.
    """
    _check_correspondence(areas, found)
    counted = [_count(area, hit, edges) for area, hit in zip(areas, found, strict=True)]
    columns = np.array(counted).reshape(len(counted), 2 * max(len(edges) - 1, 0))
    sums, _ = resampled_sums(columns, groups, draws)
    (nuclei, hits), (resampled_nuclei, resampled_hits) = np.hsplit(columns, 2), np.hsplit(sums, 2)
    # nan if a resample has no nucleus in the bin
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
    # if a single group has nuclei in this bin, every resample has the same recall, which is no interval
    return recall if len(np.unique(names[nuclei > 0])) > 1 else replace(recall, low=None, high=None)


def _count(area: Counts, found: Found, edges: Sequence[float]) -> Counts:
    """Count the nuclei of an image in each bin, and those that are matched, (2, B)."""
    position = np.searchsorted(edges, area) - 1
    n_bins = max(len(edges) - 1, 0)
    outside = area[(position < 0) | (position >= n_bins)]
    if outside.size:
        raise ConfigError(
            f"{outside.size} nuclei lie outside the edges {list(edges)}, for example one of {outside[0]:g} pixels. "
            "Compute the edges from the images that are scored: use size_edges(areas)."
        )
    hits = np.bincount(position, weights=found, minlength=n_bins)
    return np.stack([np.bincount(position, minlength=n_bins), hits])


def _check_correspondence(areas: Sequence[Counts], found: Sequence[Found]) -> None:
    n_areas, n_found = [len(area) for area in areas], [len(hit) for hit in found]
    if n_areas != n_found:
        raise ConfigError(
            f"Each true nucleus needs its area and whether it is matched: got {sum(n_areas)} areas in {len(n_areas)} "
            f"images and {sum(n_found)} matches in {len(n_found)}. Compute both from the same Overlaps."
        )
