"""How the samples of a batch move: each by an element of D4, exactly, then by the rest of its coordinate map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import d4
from nucseg.replay.coordinate_maps import element_of, identity_map, remainder, sampled, sources


@dataclass(frozen=True, eq=False)
class Motions:
    """One motion per sample: an element of D4, which moves values without changing them, then the rest of its map.

    Every coordinate map, whatever transforms it is composed of, is split into the element of D4 nearest to it and a
    rest near the identity. Where the rest is the identity, nothing is interpolated: D4 stays exact in any composition.
    """

    elements: tuple[int, ...]
    """The element of each sample, see `nucseg.replay.d4`."""
    mapped: tuple[int, ...] = ()
    """Indices of the samples that a map moves after their element."""
    maps: Tensor | None = None
    """(len(mapped), S, S, 3), their maps, see `nucseg.replay.coordinate_maps`; None if there are none."""

    @classmethod
    def of_elements(cls, elements: Sequence[int]) -> Motions:
        """Motions by elements of D4 alone."""
        return cls(tuple(elements))

    @classmethod
    def of_maps(cls, maps: Tensor) -> Motions:
        """Motions by coordinate maps (B, S, S, 3)."""
        elements = element_of(maps)
        rest = remainder(maps, elements)
        still = (rest == identity_map(rest.shape[1])).flatten(1).all(dim=1)
        mapped = tuple(torch.nonzero(~still).flatten().tolist())
        return cls(tuple(elements.tolist()), mapped, rest[list(mapped)] if mapped else None)

    def __len__(self) -> int:
        return len(self.elements)

    def to(self, device: torch.device) -> Motions:
        """The same motions on a device."""
        return Motions(self.elements, self.mapped, None if self.maps is None else self.maps.to(device))

    def apply_d4(self, x: Tensor) -> Tensor:
        """Move each of (B, ..., H, H) by its element; any type, no value changes.

        Raises:
            ConfigError: B is not the number of motions, or the last two axes are not a square.
        """
        if len(x) != len(self):
            raise ConfigError(f"Expected {len(x)} motions, one per sample, got {len(self)}.")
        return torch.stack([d4.apply(sample, element) for sample, element in zip(x, self.elements, strict=True)])

    def apply(self, x: Tensor, *, nearest: bool = False, outside: float = 0) -> Tensor:
        """Move each of (B, C, S, S), on the grid of the maps; pixels from outside the frame become `outside`.

        Interpolates linearly between pixels, in float32; with `nearest`, values of any type are never blended.

        Raises:
            ConfigError: as `apply_d4`, or the grid is not that of the maps.
        """
        result = self.apply_d4(x)
        if self.maps is None:
            return result
        if x.shape[-1] != self.maps.shape[1]:
            raise ConfigError(
                f"The motions have maps of side {self.maps.shape[1]}, but the samples have side {x.shape[-1]}."
            )
        grid, inside = self._sources
        rows = list(self.mapped)
        values = sampled(result[rows], grid, nearest=nearest)
        result = result if nearest else result.float()
        result[rows] = values.masked_fill_(~inside[:, None], outside)
        return result

    @cached_property
    def _sources(self) -> tuple[Tensor, Tensor]:
        """Where image, masks and distance are sampled: computed once for all of them."""
        if self.maps is None:
            raise AssertionError("no sample has a map")
        return sources(self.maps)
