"""How the samples of a batch move: each by an element of D4, exactly, and then by what is left of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import d4
from nucseg.replay.coordinate_maps import element_of, identity_map, sampled, sources, without


@dataclass(frozen=True, eq=False)
class Motions:
    """One motion a sample: its element of D4, which moves values without changing them, and then the rest of its map.

    A coordinate map is the element that comes nearest to it, followed by something that is near the identity, whichever
    transforms it was composed of. Where nothing is left, nothing is interpolated: D4 stays exact in any composition.
    """

    elements: tuple[int, ...]
    """The element of each sample, see `nucseg.replay.d4`."""
    bent: tuple[int, ...] = ()
    """The samples that go on to be moved by a map."""
    maps: Tensor | None = None
    """(len(bent), S, S, 3), their maps, see `nucseg.replay.coordinate_maps`; None where there are none."""

    @classmethod
    def of_elements(cls, elements: Sequence[int]) -> Motions:
        """Motions by elements of D4 alone."""
        return cls(tuple(elements))

    @classmethod
    def of_maps(cls, maps: Tensor) -> Motions:
        """Motions by coordinate maps (B, S, S, 3)."""
        elements = element_of(maps)
        rest = without(maps, elements)
        still = (rest == identity_map(rest.shape[1])).flatten(1).all(dim=1)
        bent = tuple(torch.nonzero(~still).flatten().tolist())
        return cls(tuple(elements.tolist()), bent, rest[list(bent)] if bent else None)

    def __len__(self) -> int:
        return len(self.elements)

    def to(self, device: torch.device) -> Motions:
        """The same motions on a device."""
        return Motions(self.elements, self.bent, None if self.maps is None else self.maps.to(device))

    def turned(self, x: Tensor) -> Tensor:
        """Each of (B, ..., H, H) moved by its element; any type, no value changes.

        Raises:
            ConfigError: B is not the number of motions, or the last two axes are not a square.
        """
        if len(x) != len(self):
            raise ConfigError(f"{len(x)} samples need as many motions, got {len(self)}.")
        return torch.stack([d4.apply(one, element) for one, element in zip(x, self.elements, strict=True)])

    def moved(self, x: Tensor, *, nearest: bool = False, outside: float = 0) -> Tensor:
        """Each of (B, C, S, S) moved, on the grid of the maps; what came from outside is `outside`.

        Linear between pixels, in float32; with `nearest` values of any type that are never blended.

        Raises:
            ConfigError: as `turned`, or the grid is not that of the maps.
        """
        result = self.turned(x)
        if self.maps is None:
            return result
        if x.shape[-1] != self.maps.shape[1]:
            raise ConfigError(f"the motions are maps of side {self.maps.shape[1]}, and the samples have {x.shape[-1]}.")
        grid, inside = self._sources
        rows = list(self.bent)
        values = sampled(result[rows], grid, nearest=nearest)
        result = result if nearest else result.float()
        result[rows] = values.masked_fill_(~inside[:, None], outside)
        return result

    @cached_property
    def _sources(self) -> tuple[Tensor, Tensor]:
        """What all parts of a sample are sampled at."""
        if self.maps is None:
            raise AssertionError("no sample goes on to be moved by a map")
        return sources(self.maps)
