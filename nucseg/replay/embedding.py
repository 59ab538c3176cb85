"""Move an embedding with its image.

The embedding of a moved image is not the moved embedding, for two reasons. A pattern that depends on the place in the
grid stays where it is, so it is subtracted before and added after the motion: T(e - P) + P instead of T(e)
(`nucseg.replay.position_pattern`). And the encoder represents a structure by other channels once it is rotated, so
the channels are mixed by a matrix fitted to exact embeddings of rotated images (`nucseg.replay.channel_mixing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import d4
from nucseg.replay.coordinate_maps import on_grid, warped
from nucseg.replay.motion import Motions


@dataclass(frozen=True, eq=False)
class Replay:
    """How embeddings follow their images. Without pattern and mixing they are moved uncorrected."""

    pattern: Tensor | None = None
    """(C, G, G), the part that stays in place, from `position_pattern`."""
    mixing: Tensor | None = None
    """(8, C, C), the effect of each element of D4 on the channels, from `fit_mixing`."""

    def __call__(self, embeddings: Tensor, motions: Motions, *, views: bool = False) -> Tensor:
        """Return the embeddings as if their images had moved; without a motion an embedding keeps every bit.

        Cells from outside the image get the pattern alone. Runs on the device of the embeddings, in float32.

        Args:
            embeddings: (B, C, G, G) float16 or float32.
            motions: of the B samples.
            views: whether the embeddings are exact views: then the elements of D4 are done, and only the maps remain.

        Returns:
            (B, C, G, G) float32.

        Raises:
            ConfigError: B is not the number of motions, or the shapes of embeddings, pattern and mixing do not match.
        """
        self._check(embeddings, motions)
        maps: dict[int, Tensor] = {}
        if motions.maps is not None:
            maps = dict(zip(motions.mapped, on_grid(motions.maps, embeddings.shape[-1]), strict=True))
        result = torch.empty_like(embeddings, dtype=torch.float32)
        # one at a time: an embedding then stays in the processor's cache through all steps
        for row, element in enumerate(motions.elements):
            self._move(embeddings[row], 0 if views else element, maps.get(row), out=result[row])
        return result

    def to(self, device: torch.device) -> Replay:
        """The same on a device."""
        return Replay(*(None if x is None else x.to(device) for x in (self.pattern, self.mixing)))

    def _move(self, embedding: Tensor, element: int, rest: Tensor | None, *, out: Tensor) -> None:
        """Move one embedding (C, G, G) by an element and by the rest (G, G, 3) of its map."""
        if element == 0 and rest is None:
            out.copy_(embedding)
            return
        moved = d4.apply(embedding if self.pattern is None else embedding - self.pattern, element)
        if element and self.mixing is not None:
            moved = (self.mixing[element] @ moved.to(torch.float32).flatten(1)).view_as(moved)
        if rest is not None:
            moved = warped(moved[None], rest[None])[0][0]
        if self.pattern is None:
            out.copy_(moved)
        else:
            torch.add(moved, self.pattern, out=out)

    def _check(self, embeddings: Tensor, motions: Motions) -> None:
        if len(embeddings) != len(motions):
            raise ConfigError(f"Expected {len(embeddings)} motions, one per embedding, got {len(motions)}.")
        if self.pattern is not None and self.pattern.shape != embeddings.shape[1:]:
            raise ConfigError(
                f"The position pattern is {tuple(self.pattern.shape)}, but the embeddings are "
                f"{tuple(embeddings.shape[1:])}. Compute the pattern from the same embeddings."
            )
        n = embeddings.shape[1]
        if self.mixing is not None and self.mixing.shape != (8, n, n):
            raise ConfigError(
                f"The channel mixing is {tuple(self.mixing.shape)}, but the embeddings have {n} channels: expected "
                f"(8, {n}, {n}). Fit it to the same embeddings."
            )
