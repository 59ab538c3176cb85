"""Split a grid of tokens into windows and join them again, with one gather each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Windows(nn.Module):
    """Windows in reading order; those at the bottom and at the right are filled up with a padding token.

    Equals window_partition and window_unpartition of segment_anything (image_encoder.py), except that it pads with a
    given token instead of zeros.
    """

    def __init__(self, grid: tuple[int, int], side: int) -> None:
        super().__init__()
        self.grid, self.side = grid, side
        g_h, g_w = grid
        pad_h, pad_w = -g_h % side, -g_w % side
        cells = torch.arange(g_h * g_w).view(grid)
        padded = F.pad(cells, (0, pad_w, 0, pad_h), value=-1)
        sources = padded.view((g_h + pad_h) // side, side, -1, side).transpose(1, 2).flatten()
        self.register_buffer("_sources", sources.clamp(min=0), persistent=False)
        self.register_buffer("_padded", (sources < 0).nonzero()[:, 0], persistent=False)
        places = torch.empty_like(cells).flatten()
        places[sources[sources >= 0]] = (sources >= 0).nonzero()[:, 0]
        self.register_buffer("_places", places, persistent=False)

    _sources: Tensor
    """Index in the grid of each token of the windows; arbitrary for padding."""
    _padded: Tensor
    """Indices in the windows of padding tokens."""
    _places: Tensor
    """Index in the windows of each token of the grid."""

    def split(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Split (B, G_h, G_w, C) into (B * n_windows, side, side, C), filled up with `padding` (C,)."""
        windows = tokens.flatten(1, 2).index_select(1, self._sources)
        windows[:, self._padded] = padding
        return windows.view(-1, self.side, self.side, tokens.shape[-1])

    def join(self, windows: Tensor) -> Tensor:
        """Join (B * n_windows, side * side, C) to (B, G_h, G_w, C), without the padding."""
        tokens = windows.view(-1, len(self._sources), windows.shape[-1]).index_select(1, self._places)
        return tokens.view(-1, *self.grid, windows.shape[-1])
