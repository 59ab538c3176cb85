"""A tiny ImageEncoderViT of seeded random weights, for tests and demonstrations without a checkpoint."""

from __future__ import annotations

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from nucseg.encoders.architectures import VitShape
from nucseg.encoders.device import Hardware
from nucseg.encoders.sam import VitEncoder
from nucseg.encoders.vit import build_vit, expected_tensors

SHAPE = VitShape(embed_dim=64, depth=2, num_heads=2, global_blocks=(), window_cells=8)
"""Windows only: attention over the whole grid would cost more than everything else. 8 divides the grid of 64."""

POSITION_SCALE = 0.1
"""Scale of the position terms, where tokens are about 1: the embedding must depend more on image than on position."""

NOTE = (
    "The encoder `random` has random weights: its embeddings carry no knowledge of nuclei. "
    "Results with it show that the pipeline works, not how much guidance by SAM helps."
)


def open_random(seed: int, *, hardware: Hardware, batch_size: int | None) -> VitEncoder:
    """Open the random encoder of a seed; its `note` warns that the weights are random."""
    weights = random_weights(seed)
    state = {key: torch.from_numpy(values) for key, values in weights.items()}
    identity = {"architecture": "random", "weights": _digest(weights), "seed": str(seed)}
    model = build_vit(SHAPE, state, hardware)
    return VitEncoder(model, identity, hardware, batch_size, NOTE)


def random_weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw every weight: linear maps that preserve the scale of their input, norms that are the identity.

    Drawn by numpy, whose generators return the same numbers on every machine and share no state with torch's.
    """
    generator = np.random.default_rng(seed)
    return {key: _draw(generator, key, tensor) for key, tensor in expected_tensors(SHAPE).items()}


def _draw(generator: np.random.Generator, key: str, like: Tensor) -> NDArray[np.float32]:
    if key.endswith("bias"):
        return np.zeros(like.shape, np.float32)
    if like.ndim == 1:
        return np.ones(like.shape, np.float32)
    values = generator.standard_normal(like.shape, np.float32)
    if "pos" in key:
        return values * np.float32(POSITION_SCALE)
    return values / np.float32(np.sqrt(like[0].numel()))


def _digest(weights: dict[str, NDArray[np.float32]]) -> str:
    digest = xxhash.xxh128()
    for key, values in weights.items():
        digest.update(key.encode())
        digest.update(values.astype("<f4").tobytes())
    return str(digest.hexdigest())
