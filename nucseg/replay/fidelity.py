"""How far replayed embeddings are from true ones: those that the encoder makes of the moved image itself.

All measures look only at cells that came from inside the image, and are sums over cells divided by sums over cells, so
that images pool: a bootstrap draws images and adds up their sums. The channel means m are those over the cells of the
training embeddings; they hold nothing of the image.

    error            sum (t - r)^2 / sum (t - m)^2, t the true and r the replayed embedding; 1 is that of predicting m
    cosine           mean over cells of the cosine between t and r
    centred_cosine   the same between t - m and r - m: what all cells share is taken off, so 0 is no agreement at all
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
"""Image id -> how its replayed embedding agrees with the true one; of one motion and one replay."""

N_SUMS = len(fields(Agreement))

_RATIOS = {"error": (0, 1), "cosine": (2, 4), "centred_cosine": (3, 4)}
"""Which sum each measure divides by which."""

MEASURES = tuple(_RATIOS)


def agreement(true: Tensor, replayed: Tensor, means: Tensor, inside: Tensor) -> Agreement:
    """Compare one replayed embedding with the true one.

    Shapes:
        true, replayed   (C, G, G)
        means            (C,), of the channels over training embeddings
        inside           (G, G) bool, the cells that came from inside the image

    Raises:
        ConfigError: the shapes do not belong together.
    """
    if replayed.shape != true.shape or means.shape != true.shape[:1] or inside.shape != true.shape[1:]:
        raise ConfigError(
            f"a replayed embedding {tuple(replayed.shape)}, channel means {tuple(means.shape)} and cells "
            f"{tuple(inside.shape)} do not belong to a true embedding {tuple(true.shape)}: (C, G, G), (C,) and (G, G) "
            "expected."
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
    """Return m, (C,), of a position pattern (C, G, G): the mean over cells of the mean over training embeddings."""
    return pattern.mean(dim=(1, 2), dtype=torch.float64)


def measured(
    lines: Sequence[Agreements], groups: Mapping[str, str] | None = None, draws: Resampling | None = None
) -> dict[str, Interval]:
    """Every measure over images, averaged over several motions, with its bootstrap interval.

    Args:
        lines: one for each motion, all of the same images.
        groups: image id -> group; whole groups are drawn. None draws images.
        draws: how the bootstrap draws.

    Raises:
        DataError: of some motion no cell came from inside in any image, so there is nothing to measure.
    """
    columns = _columns(lines)
    resampled, n_groups = resampled_sums(columns, _named(groups, lines), draws)
    return {name: _interval(columns, resampled, n_groups, partial(_averaged, measure=name)) for name in MEASURES}


def compared(
    first: Sequence[Agreements],
    second: Sequence[Agreements],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """The paired difference (second - first) of the mean errors of two replays of the same images; see `measured`."""
    columns, middle = _columns([*first, *second]), len(first) * N_SUMS
    resampled, n_groups = resampled_sums(columns, _named(groups, first), draws)

    def score(sums: Table) -> Table:
        return _averaged(sums[:, middle:], "error") - _averaged(sums[:, :middle], "error")

    return _interval(columns, resampled, n_groups, score)


def of_image(one: Agreement, measure: str) -> float:
    """A measure of one image alone; NaN where nothing of it was left inside."""
    return float(_averaged(np.array([astuple(one)]), measure)[0])


def _cosines(a: Tensor, b: Tensor) -> float:
    """Sum over cells of the cosines of (C, cells); 0 where a cell of one of them is 0."""
    # four times as fast as torch.nn.functional.cosine_similarity along the first axis
    lengths = a.square().sum(dim=0) * b.square().sum(dim=0)
    cosines = (a * b).sum(dim=0) / lengths.sqrt().clamp_min(torch.finfo(lengths.dtype).tiny)
    return float(cosines.sum(dtype=torch.float64))


def _columns(lines: Sequence[Agreements]) -> Table:
    """(N, lines * N_SUMS), a row an image."""
    return np.array([[value for line in lines for value in astuple(line[one])] for one in lines[0]], dtype=np.float64)


def _named(groups: Mapping[str, str] | None, lines: Sequence[Agreements]) -> list[str] | None:
    return None if groups is None else [groups[one] for one in lines[0]]


def _interval(columns: Table, resampled: Table, n_groups: int, score: Callable[[Table], Table]) -> Interval:
    value = float(score(columns.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        raise DataError(
            f"There is nothing to compare: a motion left no cell of any of {len(columns)} images inside the square. "
            "Take one that moves less."
        )
    return percentile_interval(value, score(resampled), len(columns), n_groups)


def _averaged(sums: Table, measure: str) -> Table:
    """(R, lines * N_SUMS) -> (R,), the mean over lines of a measure; NaN where one of them has nothing to measure."""
    upper, lower = _RATIOS[measure]
    each = sums.reshape(len(sums), -1, N_SUMS)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: Table = np.where(each[..., lower] > 0, each[..., upper] / each[..., lower], np.nan)
    averaged: Table = ratios.mean(axis=1)
    return averaged
