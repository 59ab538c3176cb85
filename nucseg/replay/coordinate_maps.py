"""Coordinate maps: where each pixel of a moved frame comes from, on any grid of the same square.

A map is (B, S, S, 3) float32 with the channels (w x, w y, w). x and y, between -1 and 1, are the position that the
pixel's content had before, to the right and down as in `torch.nn.functional.grid_sample` with align_corners=False; w
is the share of the pixel that came from inside the frame. Weighted coordinates can be averaged: if some pixels came
from outside, the mean is still the mean position of the others. A pixel with w below one half came from outside.

One map moves image, masks and embedding, each on its own grid (`pooled`, `enlarged`), so they cannot disagree.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import d4

INSIDE = 0.5
"""Least share of a pixel that must come from inside the frame."""

COARSE_SIDE = 32
"""Side of the grid on which the element of a map is determined: a coarse grid shows the orientation as well."""


def identity_map(side: int) -> Tensor:
    """The map that moves nothing: (side, side, 3). Coordinates are exact in float32 if side is a power of two."""
    centres = (2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def pooled(maps: Tensor, side: int) -> Tensor:
    """The same maps on a coarser grid, each cell the mean over its pixels: (B, S, S, 3) -> (B, side, side, 3).

    Raises:
        ConfigError: S is not a multiple of side.
    """
    n = maps.shape[1]
    if n % side:
        raise ConfigError(
            f"A map of side {n} cannot be pooled to {side}: {n} is not a multiple of {side}. Pool to a divisor of {n}."
        )
    return F.avg_pool2d(maps.movedim(-1, 1), n // side).movedim(1, -1)


def enlarged(maps: Tensor, side: int) -> Tensor:
    """The same maps on a finer grid, linear between and beyond the pixel centres: -> (B, side, side, 3).

    A flip or a quarter turn stays one, up to rounding in float32.
    """
    # extrapolate by one pixel on every side, then resample without that rim
    framed = maps.movedim(-1, 1)
    for axis in (-1, -2):
        first = 2 * framed.narrow(axis, 0, 1) - framed.narrow(axis, 1, 1)
        last = 2 * framed.narrow(axis, -1, 1) - framed.narrow(axis, -2, 1)
        framed = torch.cat([first, framed, last], dim=axis)
    n = maps.shape[1]
    grid = identity_map(side)[..., :2].to(maps.device) * n / (n + 2)
    finer = F.grid_sample(framed, grid.expand(len(maps), -1, -1, -1), mode="bilinear", align_corners=False)
    finer[:, 2].clamp_(0, 1)
    return finer.movedim(1, -1)


def on_grid(maps: Tensor, side: int) -> Tensor:
    """The same maps on another grid: pooled to a coarser, interpolated to a finer one."""
    n = maps.shape[1]
    if n == side:
        return maps
    return pooled(maps, side) if n > side else enlarged(maps, side)


def sources(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (B, S, S, 2) before the motion, 0 if outside the frame, and whether (B, S, S) they lie inside."""
    weight = maps[..., 2:]
    inside = weight >= INSIDE
    return torch.where(inside, maps[..., :2] / weight.clamp_min(INSIDE), 0), inside[..., 0]


def warped(x: Tensor, maps: Tensor, *, nearest: bool = False) -> tuple[Tensor, Tensor]:
    """Move maps of values; pixels from outside the frame become 0.

    Args:
        x: (B, C, H, H) floats, or any type with `nearest`.
        maps: (B, S, S, 3) float32.
        nearest: take the value of the nearest pixel; otherwise interpolate linearly between pixel centres.

    Returns:
        The moved values (B, C, S, S), float32 unless nearest, and whether (B, S, S) they came from inside.
    """
    grid, inside = sources(maps)
    moved = sampled(x, grid, nearest=nearest)
    return moved.mul_(inside[:, None].to(moved.dtype)), inside


def sampled(x: Tensor, grid: Tensor, *, nearest: bool = False) -> Tensor:
    """The values (B, C, S, S) of maps (B, C, H, H) at coordinates (B, S, S, 2) within the frame; see `warped`."""
    if not nearest:
        # half precision would misplace a sample by up to an eighth of a cell
        with torch.autocast(x.device.type, enabled=False):
            return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    side = x.shape[-1]
    column, row = ((grid + 1) * (side / 2)).long().clamp_(0, side - 1).unbind(-1)
    index = (row * side + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).view(*x.shape[:2], *grid.shape[1:3])


def element_of(maps: Tensor) -> Tensor:
    """The element of D4 nearest to each map: (B, S, S, 3) -> (B,), see `nucseg.replay.d4`.

    It is the element whose matrix has the largest inner product with the map's mean derivative over the pixels from
    inside; the identity if no pixel came from inside.
    """
    grid, inside = sources(maps if maps.shape[1] % COARSE_SIDE else pooled(maps, COARSE_SIDE))
    right, down = grid[:, :-1, 1:] - grid[:, :-1, :-1], grid[:, 1:, :-1] - grid[:, :-1, :-1]
    whole = inside[:, :-1, 1:] & inside[:, 1:, :-1] & inside[:, :-1, :-1]
    derivative = torch.stack([right, down], dim=-1) * whole[..., None, None]  # (B, S-1, S-1, xy, right/down)
    return torch.einsum("bij,eij->be", derivative.sum((1, 2)), _matrices().to(maps.device)).argmax(dim=1)


def remainder(maps: Tensor, elements: Tensor) -> Tensor:
    """Divide maps by their elements of D4: moving by the element and then by the remainder equals moving by the map."""
    x, y, weight = maps.unbind(-1)
    inverse = _matrices().to(maps.device)[elements].mT[..., None, None]  # (B, to, from, 1, 1)
    return torch.stack([inverse[:, to, 0] * x + inverse[:, to, 1] * y for to in (0, 1)] + [weight], dim=-1)


@lru_cache
def _matrices() -> Tensor:
    """(8, 2, 2): the matrix by which each element maps a position to the position that its content came from."""
    corner = identity_map(2)[..., :2].movedim(-1, 0)
    moved = torch.stack([d4.apply(corner, element) for element in d4.ELEMENTS])  # (8, xy, 2, 2), coordinates +-1/2
    right, down = moved[:, :, 0, 1] - moved[:, :, 0, 0], moved[:, :, 1, 0] - moved[:, :, 0, 0]
    return torch.stack([right, down], dim=-1)
