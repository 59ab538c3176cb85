"""A grid of tokens cut into windows and put together again, each by one gather."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Windows(nn.Module):
    """Windows in reading order, those at the bottom and at the right filled up with one padding token.

    Equals window_partition and window_unpartition of segment_anything (image_encoder.py), but pads with what it is
    given in place of zeros.
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
    """Which token of the grid is at each place of the windows; any where there is padding."""
    _padded: Tensor
    """Places that hold padding."""
    _places: Tensor
    """Where each token of the grid is."""

    def split(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Cut (B, G_h, G_w, C) into (B * n_windows, side, side, C), filled up with `padding` (C,)."""
        windows = tokens.flatten(1, 2).index_select(1, self._sources)
        windows[:, self._padded] = padding
        return windows.view(-1, self.side, self.side, tokens.shape[-1])

    def join(self, windows: Tensor) -> Tensor:
        """Put (B * n_windows, side * side, C) together to (B, G_h, G_w, C), without the padding."""
        tokens = windows.view(-1, len(self._sources), windows.shape[-1]).index_select(1, self._places)
        return tokens.view(-1, *self.grid, windows.shape[-1])
