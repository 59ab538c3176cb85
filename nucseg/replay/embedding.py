"""Moving an embedding as its image moves: what an embedding holds besides the image stays right.

An embedding of a moved image is not the moved embedding. A pattern that belongs to the place in the grid stays where it
is, so it is taken off before and put back after: T(e - P) + P instead of T(e) (`nucseg.replay.position_pattern`). And
what the encoder says of an oriented structure, it says in other channels once the structure is turned: so the channels
are mixed as exact embeddings of turned images show (`nucseg.replay.channel_mixing`).
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
    """How embeddings follow their images. Without pattern and mixing they are moved as they are."""

    pattern: Tensor | None = None
    """(C, G, G) what stays in place, of `position_pattern`."""
    mixing: Tensor | None = None
    """(8, C, C) what each element of D4 does to the channels, of `fit_mixing`."""

    def __call__(self, embeddings: Tensor, motions: Motions, *, views: bool = False) -> Tensor:
        """Return the embeddings as if their images had moved; one that does not move keeps every bit.

        What came from outside the image is the pattern alone. Runs on the device of the embeddings, in float32.

        Args:
            embeddings: (B, C, G, G) float16 or float32.
            motions: of the B samples.
            views: the embeddings are exact views of the elements of their motions, and only the rest is to be done.

        Returns:
            (B, C, G, G) float32.

        Raises:
            ConfigError: B is not the number of motions, or embeddings, pattern and mixing do not belong together.
        """
        self._check(embeddings, motions)
        maps = (
            {}
            if motions.maps is None
            else dict(zip(motions.bent, on_grid(motions.maps, embeddings.shape[-1]), strict=True))
        )
        result = torch.empty_like(embeddings, dtype=torch.float32)
        # one after the other: each stays in a processor's cache from the first step to the last
        for row, element in enumerate(motions.elements):
            self._follow(embeddings[row], 0 if views else element, maps.get(row), out=result[row])
        return result

    def to(self, device: torch.device) -> Replay:
        """The same on a device."""
        return Replay(*(None if x is None else x.to(device) for x in (self.pattern, self.mixing)))

    def _follow(self, embedding: Tensor, element: int, rest: Tensor | None, *, out: Tensor) -> None:
        """Write what becomes of one embedding (C, G, G) that moves by an element and the rest (G, G, 3) of its map."""
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
            raise ConfigError(f"{len(embeddings)} embeddings need as many motions, got {len(motions)}.")
        if self.pattern is not None and self.pattern.shape != embeddings.shape[1:]:
            raise ConfigError(
                f"the position pattern is {tuple(self.pattern.shape)} and the embeddings are "
                f"{tuple(embeddings.shape[1:])}. Compute the pattern from the same embeddings."
            )
        n = embeddings.shape[1]
        if self.mixing is not None and self.mixing.shape != (8, n, n):
            raise ConfigError(
                f"the mixing of channels is {tuple(self.mixing.shape)} and the embeddings have {n} channels: (8, {n}, "
                f"{n}) expected. Fit it on the same embeddings."
            )
