"""How far replayed embeddings are from true ones, which the encoder computes from the moved image itself.

All measures use only cells that came from inside the image, and are ratios of sums over cells, so that images pool: a
bootstrap draws images and adds up their sums. The channel means m are taken over the cells of the training embeddings;
they contain nothing of the image.

    error            sum (t - r)^2 / sum (t - m)^2, t the true and r the replayed embedding; predicting m scores 1
    cosine           mean over cells of the cosine between t and r
    centred_cosine   the same between t - m and r - m, without what all cells share: 0 is no agreement
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nucseg.errors import ConfigError, DataError
from nucseg.metrics.statistics import Interval, Resampling, Table, percentile_interval, resampled_sums


@dataclass(frozen=True)
class Agreement:
    """Sums over the cells of one image that came from inside."""

    squared_error: float
    """Of (t - r)^2, over channels too."""
    squared_spread: float
    """Of (t - m)^2, over channels too."""
    cosine: float
    centred_cosine: float
    n_cells: float


Agreements = Mapping[str, Agreement]
"""Image id -> agreement of its replayed with its true embedding, for one motion and one replay."""

N_SUMS = len(fields(Agreement))

_RATIOS = {"error": (0, 1), "cosine": (2, 4), "centred_cosine": (3, 4)}
"""The positions of the two sums that each measure divides."""

MEASURES = tuple(_RATIOS)


def agreement(true: Tensor, replayed: Tensor, means: Tensor, inside: Tensor) -> Agreement:
    """Compare one replayed embedding with the true one.

    Shapes:
        true, replayed   (C, G, G)
        means            (C,), of the channels over training embeddings
        inside           (G, G) bool, the cells that came from inside the image

    Raises:
        ConfigError: the shapes do not match.
    """
    if replayed.shape != true.shape or means.shape != true.shape[:1] or inside.shape != true.shape[1:]:
        raise ConfigError(
            f"A replayed embedding {tuple(replayed.shape)}, channel means {tuple(means.shape)} and cells "
            f"{tuple(inside.shape)} do not match a true embedding {tuple(true.shape)}: expected (C, G, G), (C,) and "
            "(G, G)."
        )
    t, r = true[:, inside].float(), replayed[:, inside].float()  # (C, cells)
    from_means, replayed_from_means = (x - means.float()[:, None] for x in (t, r))
    return Agreement(
        squared_error=float((t - r).square().sum(dtype=torch.float64)),
        squared_spread=float(from_means.square().sum(dtype=torch.float64)),
        cosine=_cosines(t, r),
        centred_cosine=_cosines(from_means, replayed_from_means),
        n_cells=float(inside.sum()),
    )


def channel_means(pattern: Tensor) -> Tensor:
    """Return m, (C,), from a position pattern (C, G, G): its mean over cells."""
    return pattern.mean(dim=(1, 2), dtype=torch.float64)


def measured(
    motions: Sequence[Agreements], groups: Mapping[str, str] | None = None, draws: Resampling | None = None
) -> dict[str, Interval]:
    """Every measure over images, averaged over several motions, with its bootstrap interval.

    Args:
        motions: the agreements of each motion, all of the same images.
        groups: image id -> group; whole groups are drawn. None draws images.
        draws: how the bootstrap draws.

    Raises:
        DataError: a motion left no cell of any image inside, so there is nothing to measure.
    """
    columns = _columns(motions)
    resampled, n_groups = resampled_sums(columns, _group_of_each(groups, motions), draws)
    return {name: _interval(columns, resampled, n_groups, partial(_averaged, measure=name)) for name in MEASURES}


def compared(
    first: Sequence[Agreements],
    second: Sequence[Agreements],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """The paired difference (second - first) of the mean errors of two replays of the same images; see `measured`."""
    columns, middle = _columns([*first, *second]), len(first) * N_SUMS
    resampled, n_groups = resampled_sums(columns, _group_of_each(groups, first), draws)

    def score(sums: Table) -> Table:
        return _averaged(sums[:, middle:], "error") - _averaged(sums[:, :middle], "error")

    return _interval(columns, resampled, n_groups, score)


def of_image(sums: Agreement, measure: str) -> float:
    """A measure of a single image; NaN if no cell of it came from inside."""
    return float(_averaged(np.array([astuple(sums)]), measure)[0])


def _cosines(a: Tensor, b: Tensor) -> float:
    """Sum over cells of the cosines of (C, cells); a cell that is 0 in either counts as 0."""
    # four times as fast as torch.nn.functional.cosine_similarity along the first axis
    lengths = a.square().sum(dim=0) * b.square().sum(dim=0)
    cosines = (a * b).sum(dim=0) / lengths.sqrt().clamp_min(torch.finfo(lengths.dtype).tiny)
    return float(cosines.sum(dtype=torch.float64))


def _columns(motions: Sequence[Agreements]) -> Table:
    """(N, motions * N_SUMS), one row per image."""
    rows = [[total for images in motions for total in astuple(images[image_id])] for image_id in motions[0]]
    return np.array(rows, dtype=np.float64)


def _group_of_each(groups: Mapping[str, str] | None, motions: Sequence[Agreements]) -> list[str] | None:
    return None if groups is None else [groups[image_id] for image_id in motions[0]]


def _interval(columns: Table, resampled: Table, n_groups: int, score: Callable[[Table], Table]) -> Interval:
    value = float(score(columns.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        raise DataError(
            f"There is nothing to compare: a motion left no cell of any of {len(columns)} images inside the square. "
            "Use a smaller motion."
        )
    return percentile_interval(value, score(resampled), len(columns), n_groups)


def _averaged(sums: Table, measure: str) -> Table:
    """(R, motions * N_SUMS) -> (R,), the mean of a measure over motions; NaN if it is undefined for any of them."""
    upper, lower = _RATIOS[measure]
    each = sums.reshape(len(sums), -1, N_SUMS)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: Table = np.where(each[..., lower] > 0, each[..., upper] / each[..., lower], np.nan)
    averaged: Table = ratios.mean(axis=1)
    return averaged
