"""What is known of the published SAM image encoders without loading one: their sizes, files and digests."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

EMBEDDING_SHAPE = (256, 64, 64)
"""Channels and grid of what every encoder returns for one image."""

INPUT_PX = 1024
"""Side of the square that every encoder is shown, in pixels."""

PATCH_PX = 16
"""Side of the patch that becomes one token of a ViT, in pixels."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What an encoder can be asked to compute in; norms are computed in float32 in each of them.

Two embeddings of one image and one identity, from other devices, threads or versions, differ by less than 1e-3 of
their standard deviation in float32; bfloat16 is within a tenth of it from float32 (see `bfloat16_error`).
"""

ROUNDING = 2**-8 / sqrt(3) * sqrt(3 / 8 / log(2))
"""Relative error, root mean square, of rounding to bfloat16: uniform within 2**-8 / m of a significand m from 1 to 2
whose logarithm is uniform, so that the mean of 1 / m**2 is 3 / (8 ln 2). About 2**-9.2."""

ROUNDINGS_OF_A_BLOCK = 15
"""Seven on the way through attention (normed tokens, weights of v, v, probabilities, result, weights of proj, output),
six through the MLP (normed tokens, weights, hidden, GELU, weights, output), two sums."""

ROUNDINGS_ELSEWHERE = 9
"""Pixels, patch weights, patches, position, sum; two kernels of the neck, and what each returns."""

DOWNLOADS = "https://dl.fbaipublicfiles.com/segment_anything/"
"""Where Meta publishes the checkpoints."""


def bfloat16_error(depth: int) -> float:
    """Root mean square difference expected at most between bfloat16 and float32, in standard deviations.

    Roundings are independent of one another, a linear map keeps the relative size of independent errors, and a sum
    adds the squares of its summands' errors: a network in which all roundings lie one behind the other errs by the
    root of their number. In a residual network most of them touch one branch alone, so it errs by less.
    """
    return ROUNDING * sqrt(depth * ROUNDINGS_OF_A_BLOCK + ROUNDINGS_ELSEWHERE)


@dataclass(frozen=True, kw_only=True)
class VitShape:
    """Hyperparameters of an ImageEncoderViT that differ between encoders; the others are SAM's."""

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
    """A SAM image encoder as published, and the checkpoint that holds its weights."""

    shape: VitShape
    """Its hyperparameters (segment_anything, build_sam.py)."""

    file_name: str
    """Official name of the checkpoint."""

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
