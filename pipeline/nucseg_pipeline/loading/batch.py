"""Rows as read from the store, and batches as a network takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg_cache import SampleRow

CPU = torch.device("cpu")

Part = NDArray[Any] | Tensor
"""An array on the host, or a tensor on the training device for rows that are preloaded there."""


@dataclass(frozen=True, eq=False)
class Row:
    """One sample and its embedding, as read from the store."""

    sample: SampleRow
    embedding: Part | None
    """(256, 64, 64) as stored: float16, float32, or int8 codes to be multiplied by `scale`; None without guidance."""
    distance: Part | None = None
    """(H, W) float32, see `nucseg.nuclei.instances.distance_map`, 0 in the padding; None if it was not asked for."""
    scale: Part | None = None
    """(256,) float32, by channel; None where the embedding is floats."""
    pixels: Mapping[str, Tensor] | None = None
    """`image`, `target` and `ignore` of a batch, for rows that are preloaded on the training device; else None.

    Without `image` where the row got another one, see `with_image`."""
    block: Tensor | None = None
    """(n, 256, 64, 64): the memory of the embeddings of all rows that were read together; None for preloaded rows."""

    @property
    def n_bytes(self) -> int:
        """Size of the row in memory."""
        sample = (self.sample.image, self.sample.instances, self.sample.ignore)
        of_batch = (self.embedding, self.scale, self.distance, *(self.pixels or {}).values())
        return sum(part.nbytes for part in (*sample, *of_batch) if part is not None)

    @property
    def parts(self) -> dict[str, Part]:
        """The arrays that a batch is stacked from, by name."""
        sample = self.sample
        if self.pixels is None:
            pixels: dict[str, Part] = {"target": sample.instances > 0, "ignore": sample.ignore}
        else:
            pixels = dict(self.pixels)
        pixels.setdefault("image", sample.image)
        others = {"embedding": self.embedding, "scale": self.scale, "distance": self.distance}
        return {**pixels, **{name: part for name, part in others.items() if part is not None}}

    def with_image(self, image: NDArray[np.uint8]) -> Row:
        """The row with another image (H, W, 3), on the host; `collate` moves those of a batch together."""
        pixels = self.pixels
        if pixels is not None:
            pixels = {name: part for name, part in pixels.items() if name != "image"}
        return replace(self, sample=replace(self.sample, image=image), pixels=pixels)

    def on(self, device: torch.device, twin: Row | None = None) -> Row:
        """The row with all parts of a batch on a device; `twin`, another view of it there, shares what both have."""
        parts = dict(self.parts)
        if twin is not None and twin.sample is self.sample:
            parts |= {**(twin.pixels or {}), **({} if twin.distance is None else {"distance": twin.distance})}
        moved = {
            name: part if isinstance(part, Tensor) else torch.from_numpy(part).to(device)
            for name, part in parts.items()
        }
        pixels = {name: moved.pop(name) for name in ("image", "target", "ignore")}
        return Row(self.sample, moved.get("embedding"), moved.get("distance"), moved.get("scale"), pixels)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows as tensors on one device."""

    ids: tuple[str, ...]
    image: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    target: Tensor
    """(B, H, W) int64, 1 inside nuclei."""
    ignore: Tensor
    """(B, H, W) bool, True for pixels that count neither in the loss nor in a score."""
    embedding: Tensor | None
    """(B, 256, 64, 64) float16 as stored, or float32; None without guidance."""
    distance: Tensor | None = None
    """(B, H, W) float32, see `nucseg.nuclei.instances.distance_map`; None if it was not asked for."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            ids=self.ids,
            image=self.image.to(device),
            target=self.target.to(device),
            ignore=self.ignore.to(device),
            embedding=None if self.embedding is None else self.embedding.to(device),
            distance=None if self.distance is None else self.distance.to(device),
        )


def collate(rows: Sequence[Row], device: torch.device = CPU) -> Batch:
    """Stack rows into a batch on a device.

    Pixels travel there as bytes and embeddings as they are stored; both are converted to floats on the device.
    """
    parts = [row.parts for row in rows]
    names = [name for name in parts[0] if name not in ("embedding", "scale")]
    if not all(isinstance(part["image"], Tensor) for part in parts):  # some were changed on the host
        parts = [{**part, "image": row.sample.image} for part, row in zip(parts, rows, strict=True)]
    stacked = {name: _stack([part[name] for part in parts], device) for name in names}
    return Batch(
        ids=tuple(row.sample.id for row in rows),
        image=stacked["image"].permute(0, 3, 1, 2).contiguous().float() / 255,
        target=stacked["target"].long(),
        ignore=stacked["ignore"],
        embedding=None if rows[0].embedding is None else stack_embeddings(rows, device),
        distance=stacked.get("distance"),
    )


def stack_embeddings(rows: Sequence[Row], device: torch.device = CPU) -> Tensor:
    """Stack the embeddings of rows of one storage format: (B, 256, 64, 64) on a device."""
    block = _whole_block(rows)
    stored = (
        _to_device(block, device)
        if block is not None
        else _stack([row.embedding for row in rows if row.embedding is not None], device)
    )
    scales = [row.scale for row in rows if row.scale is not None]
    return stored * _stack(scales, device)[:, :, None, None] if scales else stored


def _whole_block(rows: Sequence[Row]) -> Tensor | None:
    """The block of the rows, if they are all of it in its order, so that nothing need be copied; else None."""
    block = rows[0].block
    if block is None or len(block) != len(rows):
        return None
    in_order = all(
        row.block is block
        and isinstance(row.embedding, np.ndarray)
        and row.embedding.ctypes.data == block.data_ptr() + position * row.embedding.nbytes
        for position, row in enumerate(rows)
    )
    return block if in_order else None


def _stack(parts: Sequence[Part], device: torch.device) -> Tensor:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.stack([torch.as_tensor(part) for part in parts])
    whole = host_tensor((len(parts), *first.shape), first.dtype.name, pinned=device.type == "cuda")
    np.stack([np.asarray(part) for part in parts], out=whole.numpy())
    return _to_device(whole, device)


def _to_device(whole: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; from pinned memory without waiting for it."""
    return whole.to(device, non_blocking=whole.is_pinned())


def host_tensor(shape: tuple[int, ...], dtype: str, *, pinned: bool) -> Tensor:
    """An uninitialised tensor on the host; pinned memory is copied to a CUDA device without another copy."""
    if pinned:
        return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
    return torch.from_numpy(np.empty(shape, dtype))  # numpy asks for huge pages: the first write is far cheaper
