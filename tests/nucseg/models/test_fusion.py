"""The X-gated fusion block against its description, written out."""

import pytest
import torch
import torch.nn.functional as F

from nucseg.errors import ConfigError
from nucseg.models.fusion import FUSIONS, XGatedFusion, build_fusion

CHANNELS = (2, 4, 8, 16, 32)


def make_scales(n_images: int = 2, side_px: int = 128) -> list[torch.Tensor]:
    return [torch.randn(n_images, n, side_px >> i, side_px >> i) for i, n in enumerate(CHANNELS)]


def make_block() -> XGatedFusion:
    """A block whose last projection has left its start at zero."""
    torch.manual_seed(0)
    block = XGatedFusion(CHANNELS)
    torch.nn.init.normal_(block.project.weight)
    return block


def attention_by_hand(layer: torch.nn.MultiheadAttention, tokens: torch.Tensor) -> torch.Tensor:
    q, k, v = (tokens @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (layer.num_heads, -1)) for part in (q, k, v))
    similar = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    mixed = torch.einsum("bhqk,bkhd->bqhd", similar.exp() / similar.exp().sum(-1, keepdim=True), v)
    return mixed.flatten(2) @ layer.out_proj.weight.T + layer.out_proj.bias


def test_the_block_is_its_description() -> None:
    block = make_block()
    scales, embedding = make_scales(), 0.1 * torch.randn(2, 256, 64, 64) + 0.2
    latent = scales[-1]

    guide = embedding.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(-2, -1))
    centred = guide - guide.mean(dim=(0, 2, 3), keepdim=True)
    guide = centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()
    both = torch.cat([latent, guide], dim=1)
    expand, _, weigh, _ = block.gate.excite
    linear, gate = (both.mean(dim=(2, 3)) @ expand.weight[:, :, 0, 0].T + expand.bias).chunk(2, dim=1)
    weights = torch.sigmoid((linear * torch.sigmoid(gate)) @ weigh.weight[:, :, 0, 0].T + weigh.bias)
    tokens = torch.einsum("bchw,bc->bhwc", both, weights).flatten(1, 2)
    tokens = tokens + attention_by_hand(block.attention, tokens)
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    added = torch.einsum("btc,oc->bot", tokens, block.project.weight[:, :, 0, 0]).view_as(latent)

    guided = block(scales, embedding)

    torch.testing.assert_close(guided[-1], latent + added, rtol=1e-4, atol=1e-4)
    assert all(after is before for after, before in zip(guided[:-1], scales[:-1], strict=True))


def test_training_starts_from_the_network_without_guidance() -> None:
    scales = make_scales()

    guided = XGatedFusion(CHANNELS)(scales, torch.randn(2, 256, 64, 64))

    assert torch.equal(guided[-1], scales[-1])


def test_the_first_step_already_moves_the_projection() -> None:
    block = XGatedFusion(CHANNELS)
    block(make_scales(), torch.randn(2, 256, 64, 64))[-1].square().sum().backward()

    assert block.project.weight.grad.abs().min() > 0


def test_the_encoders_scale_and_offset_do_not_matter() -> None:
    block, scales, embedding = make_block(), make_scales(), torch.randn(2, 256, 64, 64)

    small, large = block(scales, embedding)[-1], block(scales, 10 * embedding + 3)[-1]

    assert (small - large).square().mean() < 1e-5 * (small - scales[-1]).square().mean()


def test_the_guide_of_one_image_does_not_reach_another() -> None:
    block, scales, embedding = make_block().eval(), make_scales(), torch.randn(2, 256, 64, 64)
    other = embedding.clone()
    other[1] = torch.randn(256, 64, 64)

    before, after = block(scales, embedding)[-1], block(scales, other)[-1]

    torch.testing.assert_close(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 0.1


def test_a_half_precision_embedding_is_used_in_full_precision() -> None:
    block, scales = make_block(), make_scales()
    stored = (0.1 * torch.randn(2, 256, 64, 64)).half()

    assert torch.equal(block(scales, stored)[-1], block(scales, stored.float())[-1])


@pytest.mark.parametrize("side_px", [32, 256])
def test_any_grid_can_be_guided(side_px: int) -> None:
    scales = make_scales(side_px=side_px)

    assert make_block()(scales, torch.randn(2, 256, 64, 64))[-1].shape == (2, 32, side_px // 16, side_px // 16)


def test_without_fusion_the_maps_stay_as_they_are() -> None:
    scales = make_scales()

    assert all(a is b for a, b in zip(build_fusion("none", CHANNELS)(scales, None), scales, strict=True))


def test_a_fusion_without_its_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="got none"):
        make_block()(make_scales(), None)


def test_an_unknown_fusion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=rf"'sum'.*{', '.join(FUSIONS)}"):
        build_fusion("sum", CHANNELS)


def test_the_pooling_in_this_file_is_the_papers() -> None:
    embedding = torch.randn(1, 256, 64, 64)

    torch.testing.assert_close(
        embedding.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(-2, -1)), F.adaptive_avg_pool2d(embedding, 8)
    )
