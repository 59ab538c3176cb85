"""Fused attention equals the published one."""

import pytest
import torch

from nucseg.encoders import attention
from nucseg.encoders.attention import FusedAttention, heads_at_once
from nucseg.encoders.vit import published_image_encoder


def published_attention(input_size: tuple[int, int], *, dim: int = 32, heads: int = 4) -> torch.nn.Module:
    """Make the published module with every parameter drawn, the relative positions (zero at first) too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = published_image_encoder().Attention(dim, heads, use_rel_pos=True, input_size=input_size)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def as_fused(module: torch.nn.Module) -> FusedAttention:
    return FusedAttention(module, published_image_encoder().get_rel_pos)


@pytest.mark.parametrize(
    ("made_for", "grid"),
    [
        ((14, 14), (14, 14)),
        ((16, 16), (16, 16)),
        ((8, 12), (8, 12)),  # axes not to be confused
        ((14, 14), (20, 20)),  # relative positions interpolated
        ((14, 14), (6, 10)),
    ],
)
def test_fused_attention_equals_the_published_one(made_for: tuple[int, int], grid: tuple[int, int]) -> None:
    module, x = published_attention(made_for), tokens(3, *grid, 32)

    with torch.inference_mode():
        published, fused = module(x), as_fused(module)(x)

    assert published.std() > 0.1  # not the equality of nothings
    torch.testing.assert_close(fused, published, rtol=0, atol=1e-4)


def test_relative_positions_matter_in_this_comparison() -> None:
    module, x = published_attention((14, 14)), tokens(1, 14, 14, 32)
    with torch.inference_mode():
        before = as_fused(module)(x)
        module.rel_pos_h.zero_()
        after = as_fused(module)(x)

    assert (before - after).abs().max() > 0.1


@pytest.mark.parametrize("mask_bytes", [1, 5 * 64**2 * 4])
def test_taking_few_heads_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, mask_bytes: int) -> None:
    module, x = published_attention((8, 8)), tokens(3, 8, 8, 32)
    with torch.inference_mode():
        published = module(x)
        monkeypatch.setattr(attention, "MASK_BYTES", {"cpu": mask_bytes})
        fused = as_fused(module)(x)

    torch.testing.assert_close(fused, published, rtol=0, atol=1e-4)


def test_the_masks_of_the_whole_grid_are_bounded_on_a_cpu() -> None:
    assert heads_at_once(4096, 4, "cpu") == 2
    assert heads_at_once(4096, 4, "mps") == 2
    assert heads_at_once(4096, 2, "cuda") == 64
    assert heads_at_once(100_000, 4, "cpu") == 1
