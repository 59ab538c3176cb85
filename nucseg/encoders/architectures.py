"""Sizes, files and digests of the published SAM image encoders, known without loading one."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

EMBEDDING_SHAPE = (256, 64, 64)
"""Channels and grid of the embedding that every encoder returns for one image."""

INPUT_PX = 1024
"""Side of the square image that a SAM encoder reads, in pixels."""

PATCH_PX = 16
"""Side of the patch that becomes one token of a ViT, in pixels."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""Precisions that an encoder can compute in; norms are computed in float32 in each of them.

Two embeddings of the same image and identity, from different devices, threads or versions, differ by less than 1e-3
of their standard deviation in float32; bfloat16 differs from float32 by less than a tenth (see `bfloat16_error`).
"""

ROUNDING = 2**-8 / sqrt(3) * sqrt(3 / 8 / log(2))
"""Root mean square relative error of rounding to bfloat16, about 2**-9.2: the error is uniform within 2**-8 / m of a
significand m between 1 and 2, whose logarithm is uniform, so that the mean of 1 / m**2 is 3 / (8 ln 2)."""

ROUNDINGS_OF_A_BLOCK = 15
"""Seven in attention (normed tokens, weights of v, v, probabilities, result, weights of proj, output), six in the MLP
(normed tokens, weights, hidden, GELU, weights, output), two sums."""

ROUNDINGS_ELSEWHERE = 9
"""Pixels, patch weights, patches, position, sum; two kernels of the neck and their outputs."""

DOWNLOADS = "https://dl.fbaipublicfiles.com/segment_anything/"
"""Where Meta publishes the checkpoints."""


def bfloat16_error(depth: int) -> float:
    """Upper bound of the root mean square difference between bfloat16 and float32, in standard deviations.

    Rounding errors are independent, a linear map keeps the relative size of independent errors, and in a sum the
    squares of the errors add up: in a network that applies all roundings in sequence, the error grows with the square
    root of their number. In a residual network most of them affect only one branch, so the error is smaller.
    """
    return ROUNDING * sqrt(depth * ROUNDINGS_OF_A_BLOCK + ROUNDINGS_ELSEWHERE)


@dataclass(frozen=True, kw_only=True)
class VitShape:
    """Hyperparameters in which the ImageEncoderViTs differ; the others are SAM's."""

    embed_dim: int
    """Width of a token."""

    depth: int
    """Number of transformer blocks."""

    num_heads: int
    """Attention heads in each block."""

    global_blocks: tuple[int, ...]
    """Blocks that attend over the whole grid; the others attend within windows."""

    window_cells: int = 14
    """Side of an attention window, in grid cells."""


@dataclass(frozen=True, kw_only=True)
class PublishedVit:
    """A published SAM image encoder and the checkpoint with its weights."""

    shape: VitShape
    """Its hyperparameters (segment_anything, build_sam.py)."""

    file_name: str
    """Official file name of the checkpoint."""

    file_digest: str
    """xxh128 of the official checkpoint, hexadecimal, as pinned by micro-sam."""

    @property
    def url(self) -> str:
        """Where the checkpoint can be downloaded."""
        return DOWNLOADS + self.file_name


ARCHITECTURES: dict[str, PublishedVit] = {
    "vit_b": PublishedVit(
        shape=VitShape(embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11)),
        file_name="sam_vit_b_01ec64.pth",
        file_digest="6923c33df3637b6a922d7682bfc9a86b",
    ),
    "vit_l": PublishedVit(
        shape=VitShape(embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)),
        file_name="sam_vit_l_0b3195.pth",
        file_digest="a82beb3c660661e3dd38d999cc860e9a",
    ),
    "vit_h": PublishedVit(
        shape=VitShape(embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)),
        file_name="sam_vit_h_4b8939.pth",
        file_digest="97698fac30bd929c2e6d8d8cc15933c2",
    ),
}
"""The published encoders by name."""
