"""Every attention variant equals the published attention."""

import sys
from collections.abc import Iterator

import pytest
import torch

from nucseg.encoders import attention
from nucseg.encoders.attention import VARIANTS, chunks, compiled_flex
from nucseg.encoders.blocks import relative_terms
from nucseg.encoders.vit import published_image_encoder

HEADS, DIM = 4, 32


@pytest.fixture(autouse=True)
def flex_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run FlexAttention eagerly: compiling it takes a minute on a CPU."""
    monkeypatch.setattr(attention, "compiled_flex", lambda: compiled_flex("eager"))
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def published_attention(input_size: tuple[int, int]) -> torch.nn.Module:
    """Make the published module with every parameter drawn, the relative positions (zero at first) too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = published_image_encoder().Attention(DIM, HEADS, use_rel_pos=True, input_size=input_size)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def falling(table: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of a published table for distances size - 1 down to 1 - size, through the published look-up."""
    found = published_image_encoder().get_rel_pos(size, size, table)
    return torch.stack([found[max(d, 0), max(-d, 0)] for d in range(size - 1, -size, -1)])


def by(variant: str, module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Attention with the published module's parameters by one of our variants."""
    n, g_h, g_w, dim = x.shape
    q, k, v = module.qkv(x).view(n, g_h, g_w, 3, HEADS, -1).unbind(3)
    scale = (dim // HEADS) ** -0.5
    terms = relative_terms(q, falling(module.rel_pos_h, g_h), falling(module.rel_pos_w, g_w))
    q, k, v = (part.flatten(1, 2).transpose(1, 2) for part in (q * scale, k, v))
    out = VARIANTS[variant](q, k, v, *terms)
    return module.proj(out.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("made_for", "grid"),
    [
        ((14, 14), (14, 14)),
        ((8, 12), (8, 12)),  # axes not to be confused
        ((14, 14), (20, 20)),  # relative positions interpolated
        ((3, 40), (3, 40)),  # a wide grid, where terms are added and not multiplied
    ],
)
def test_every_variant_equals_the_published_attention(
    variant: str, made_for: tuple[int, int], grid: tuple[int, int]
) -> None:
    module, x = published_attention(made_for), tokens(3, *grid, DIM)

    with torch.inference_mode():
        published, ours = module(x), by(variant, module, x)

    assert published.std() > 0.1  # not all zero
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-5 * float(published.abs().max()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_relative_positions_matter_in_this_comparison(variant: str) -> None:
    module, x = published_attention((14, 14)), tokens(1, 14, 14, DIM)
    with torch.inference_mode():
        before = by(variant, module, x)
        module.rel_pos_h.zero_()
        without_rows = by(variant, module, x)
        module.rel_pos_w.zero_()
        without_both = by(variant, module, x)

    assert (before - without_rows).abs().max() > 0.1
    assert (without_rows - without_both).abs().max() > 0.1


@pytest.mark.parametrize("grid", [(8, 8), (5, 40)])
@pytest.mark.parametrize("rows", [1, 3, 5, 8, 40])
def test_computing_few_rows_heads_or_images_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int], rows: int
) -> None:
    module, x = published_attention(grid), tokens(3, *grid, DIM)
    monkeypatch.setattr(attention, "MASK_BYTES", {"cpu": rows * grid[0] * grid[1] ** 2 * 4})
    with torch.inference_mode():
        published, ours = module(x), by("mask", module, x)

    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-5 * float(published.abs().max()))


@pytest.mark.parametrize("budget", [1, 100, 250, 800, 4000, 10**9])
def test_chunks_cover_everything_once_and_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(attention, "MASK_BYTES", {"cpu": budget})
    covered = torch.zeros(5, 3, 8)
    for chunk in chunks(5, 3, 8, 100, "mps"):  # as a CPU
        covered[chunk] += 1
        assert covered[chunk].numel() * 100 <= max(budget, 100)

    assert torch.equal(covered, torch.ones(5, 3, 8))


def test_the_masks_of_the_whole_grid_are_32_mib_on_a_cpu_and_many_heads_on_a_gpu() -> None:
    row_bytes = 64 * 4096 * 4
    (_, heads, rows), *_ = chunks(1, 12, 64, row_bytes, "cpu")
    assert (heads, rows) == (slice(0, 1), slice(0, 32))
    assert len(list(chunks(1, 12, 64, row_bytes, "cuda"))) == 1
    assert len(list(chunks(16, 12, 64, row_bytes // 2, "cuda"))) == 4
