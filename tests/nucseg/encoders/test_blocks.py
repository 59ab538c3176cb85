"""The parts of the encoder equal the published ones they replace."""

import pytest
import torch

from nucseg.encoders import blocks
from nucseg.encoders.attention import VARIANTS
from nucseg.encoders.blocks import Block
from nucseg.encoders.norms import normed
from nucseg.encoders.stem_and_neck import Neck, PatchEmbedding
from nucseg.encoders.vit import published_image_encoder
from nucseg.encoders.windows import Windows


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """Draw every parameter, so that no norm is the identity and no bias zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def published_block(grid: tuple[int, int], window: int, *, dim: int = 40, heads: int = 2) -> torch.nn.Module:
    """Make the published block; heads of 20, whose scale is no power of two."""
    module = published_image_encoder().Block(dim, heads, use_rel_pos=True, window_size=window, input_size=grid)
    return drawn(module)


@pytest.mark.parametrize("variant", ["mask", "columns"])
@pytest.mark.parametrize(
    ("grid", "window"),
    [
        ((16, 16), 0),
        ((6, 10), 0),
        ((14, 14), 7),  # no padding
        ((16, 16), 7),  # padding at both ends
        ((9, 16), 5),
        ((4, 6), 14),  # one window, most of it padding
    ],
)
def test_a_block_equals_the_published_one(variant: str, grid: tuple[int, int], window: int) -> None:
    published, x = published_block(grid, window), tokens(2, *grid, 40)
    with torch.inference_mode():
        ours = Block(published, grid, published_image_encoder().get_rel_pos)
        ours.attention.attend = VARIANTS[variant]
        expected, before = published(x), x.clone()
        found = ours(x)

    assert torch.equal(x, before)
    assert (expected - x).std() > 0.5  # the block does something
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_an_mlp_computed_in_chunks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    published, x = published_block((6, 10), 0), tokens(2, 6, 10, 40)
    ours = Block(published, (6, 10), published_image_encoder().get_rel_pos)
    with torch.inference_mode():
        expected = ours.mlp(x)
        monkeypatch.setattr(blocks, "CHUNK_BYTES", 4 * 160 * 7)  # 7 tokens
        found = ours.mlp(x)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("grid", "side"), [((16, 16), 7), ((64, 64), 14), ((14, 28), 14), ((3, 5), 4)])
def test_windows_are_the_published_ones_with_the_given_padding(grid: tuple[int, int], side: int) -> None:
    published, x = published_image_encoder(), tokens(2, *grid, 3)
    expected, padded = published.window_partition(x, side)
    windows = Windows(grid, side)

    zeros = windows.split(x, torch.zeros(3))
    nines = windows.split(x, torch.full((3,), 9.0))

    assert torch.equal(zeros, expected)
    is_padding = published.window_partition(torch.ones_like(x), side)[0] == 0
    assert torch.equal(nines, torch.where(is_padding, torch.tensor(9.0), expected))
    assert torch.equal(windows.join(nines.flatten(1, 2)), published.window_unpartition(nines, side, padded, grid))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_patches_are_embedded_as_by_the_published_convolution(memory: torch.memory_format) -> None:
    published = drawn(published_image_encoder().PatchEmbed((4, 4), (4, 4), embed_dim=20))
    x = tokens(2, 3, 12, 20)

    with torch.inference_mode():
        found, expected = PatchEmbedding(published)(x.contiguous(memory_format=memory)), published(x)

    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_neck_equals_the_published_one() -> None:
    norm = published_image_encoder().LayerNorm2d
    convolutions = (torch.nn.Conv2d(20, 8, 1, bias=False), torch.nn.Conv2d(8, 8, 3, padding=1, bias=False))
    published = drawn(torch.nn.Sequential(convolutions[0], norm(8), convolutions[1], norm(8)))
    x = tokens(2, 6, 10, 20)

    with torch.inference_mode():
        found, expected = Neck(published)(x.movedim(-1, 1)), published(x.movedim(-1, 1))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_of_values_whose_squares_overflow_is_finite_and_right(dtype: torch.dtype) -> None:
    x = torch.tensor([[-3e4, 1e4, 2e4, 6e4] * 4], dtype=dtype)

    found = normed(x, 1e-6)

    exact = x.double()
    expected = (exact - exact.mean()) / exact.std(unbiased=False)
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=2e-3)
    assert found.dtype == dtype


def test_a_norm_of_a_device_that_sums_in_half_precision_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tokens(5, 32).bfloat16()
    by_the_kernel = normed(x, 1e-6)
    monkeypatch.setattr("nucseg.encoders.norms.FLOAT32_INSIDE", ())

    torch.testing.assert_close(normed(x, 1e-6), by_the_kernel, rtol=2**-7, atol=0)
