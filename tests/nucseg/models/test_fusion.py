"""The fusions against their descriptions, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.models.fusion import (
    FUSIONS,
    ConcatFusion,
    Fusion,
    GatedSkip,
    MultiscaleFusion,
    XGatedFusion,
    XGatedReferenceFusion,
    build_fusion,
)

CHANNELS = (2, 4, 8, 16, 32)
GUIDED = [name for name in FUSIONS if name != "none"]


def make_scales(n_images: int = 2, side_px: int = 128) -> list[Tensor]:
    return [torch.randn(n_images, n, side_px >> i, side_px >> i) for i, n in enumerate(CHANNELS)]


def make_lively(name: str) -> Fusion:
    """A fusion whose last projections have left their start at zero."""
    torch.manual_seed(0)
    fusion = build_fusion(name, CHANNELS)
    for module_name, module in fusion.named_modules():
        if module_name.endswith("project"):
            nn.init.normal_(module.weight)
    return fusion


def guide_by_hand(embedding: Tensor, cells: int) -> Tensor:
    """Mean over the cells that meet, each channel to mean 0 and variance 1 over the batch."""
    step = 64 // cells
    guide = embedding.unfold(2, step, step).unfold(3, step, step).mean(dim=(-2, -1))
    centred = guide - guide.mean(dim=(0, 2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()


def weights_by_hand(gate: nn.Module, both: Tensor) -> Tensor:
    """Squeeze, expand, gated linear unit, convolution, sigmoid: (B, C, G, G) -> (B, weighed)."""
    expand, _, weigh, _ = gate.excite
    linear, shut = (both.mean(dim=(2, 3)) @ expand.weight[:, :, 0, 0].T + expand.bias).chunk(2, dim=1)
    return torch.sigmoid((linear * torch.sigmoid(shut)) @ weigh.weight[:, :, 0, 0].T + weigh.bias)


def attended_by_hand(block: nn.Module, weighed: Tensor) -> Tensor:
    """Self-attention over the cells, residual, layer normalisation: (B, C, G, G) -> (B, G * G, C)."""
    tokens = weighed.flatten(2).mT
    tokens = tokens + attention_by_hand(block.attention, tokens)
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def projected_by_hand(block: nn.Module, tokens: Tensor, latent: Tensor) -> Tensor:
    return latent + torch.einsum("btc,oc->bot", tokens, block.project.weight[:, :, 0, 0]).view_as(latent)


def attention_by_hand(layer: torch.nn.MultiheadAttention, tokens: torch.Tensor) -> torch.Tensor:
    q, k, v = (tokens @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (layer.num_heads, -1)) for part in (q, k, v))
    similar = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    mixed = torch.einsum("bhqk,bkhd->bqhd", similar.exp() / similar.exp().sum(-1, keepdim=True), v)
    return mixed.flatten(2) @ layer.out_proj.weight.T + layer.out_proj.bias


def test_the_block_of_the_papers_gates_both_latents_and_attends_to_both() -> None:
    block = make_lively("xgfb")
    assert isinstance(block, XGatedFusion)
    scales, embedding = make_scales(), 0.1 * torch.randn(2, 256, 64, 64) + 0.2
    both = torch.cat([scales[-1], guide_by_hand(embedding, 8)], dim=1)
    weighed = torch.einsum("bchw,bc->bchw", both, weights_by_hand(block.gate, both))
    expected = projected_by_hand(block, attended_by_hand(block, weighed), scales[-1])

    guided = block(scales, embedding)

    torch.testing.assert_close(guided[-1], expected, rtol=1e-4, atol=1e-4)
    assert all(after is before for after, before in zip(guided[:-1], scales[:-1], strict=True))


def test_the_block_of_the_published_code_gates_and_attends_to_the_networks_latent_alone() -> None:
    block = make_lively("xgfb_reference")
    assert isinstance(block, XGatedReferenceFusion)
    scales, embedding = make_scales(), 0.1 * torch.randn(2, 256, 64, 64) + 0.2
    both = torch.cat([scales[-1], guide_by_hand(embedding, 8)], dim=1)
    weighed = torch.einsum("bchw,bc->bchw", scales[-1], weights_by_hand(block.gate, both))
    expected = projected_by_hand(block, attended_by_hand(block, weighed), scales[-1])

    torch.testing.assert_close(block(scales, embedding)[-1], expected, rtol=1e-4, atol=1e-4)


def test_plain_concatenation_mixes_the_channels_of_each_cell() -> None:
    block = make_lively("concat")
    assert isinstance(block, ConcatFusion)
    scales, embedding = make_scales(), 0.1 * torch.randn(2, 256, 64, 64) + 0.2
    both = torch.cat([scales[-1], guide_by_hand(embedding, 8)], dim=1)

    expected = projected_by_hand(block, both.flatten(2).mT, scales[-1])

    torch.testing.assert_close(block(scales, embedding)[-1], expected, rtol=1e-4, atol=1e-4)


def test_a_gated_skip_weighs_both_maps_and_mixes_each_cell() -> None:
    torch.manual_seed(0)
    skip, scale, embedding = GatedSkip(8), torch.randn(2, 8, 32, 32), torch.randn(2, 256, 64, 64)
    nn.init.normal_(skip.project.weight)
    both = torch.cat([scale, guide_by_hand(embedding, 32)], dim=1)
    weighed = torch.einsum("bchw,bc->bchw", both, weights_by_hand(skip.gate, both))
    mixed = torch.einsum("bchw,oc->bohw", weighed, skip.mix[0].weight[:, :, 0, 0])
    linear, shut = F.batch_norm(mixed, None, None, training=True).chunk(2, dim=1)
    expected = scale + torch.einsum("bchw,oc->bohw", linear * torch.sigmoid(shut), skip.project.weight[:, :, 0, 0])

    torch.testing.assert_close(skip(scale, embedding), expected, rtol=1e-4, atol=1e-4)


def test_multiscale_guides_the_three_levels_of_the_embeddings_grid_and_coarser_each_by_its_own_block() -> None:
    fusion = make_lively("multiscale")
    assert isinstance(fusion, MultiscaleFusion)
    scales, embedding = make_scales(side_px=256), torch.randn(2, 256, 64, 64)

    guided = fusion(scales, embedding)

    assert all(after is before for after, before in zip(guided[:2], scales[:2], strict=True))
    assert [tuple(one.shape[-2:]) for one in guided[2:]] == [(64, 64), (32, 32), (16, 16)]
    for after, skip, level in ((guided[2], fusion.skips[0], 2), (guided[3], fusion.skips[1], 3)):
        assert torch.equal(after, skip(scales[level], embedding))
    assert torch.equal(guided[4], fusion.bottleneck(scales, embedding)[4])


def test_multiscale_alone_tells_two_cells_of_the_embedding_apart_that_the_bottleneck_averages() -> None:
    scales, embedding = make_scales(side_px=256), torch.randn(2, 256, 64, 64)
    swapped = embedding.clone()
    swapped[:, :, 0, 0], swapped[:, :, 0, 1] = embedding[:, :, 0, 1], embedding[:, :, 0, 0]

    def moved(name: str) -> float:
        fusion = make_lively(name).eval()
        pairs = zip(fusion(scales, embedding), fusion(scales, swapped), strict=True)
        return max((before - after).abs().max().item() for before, after in pairs)

    assert moved("multiscale") > 0.1
    assert max(moved(name) for name in ("concat", "xgfb", "xgfb_reference")) < 1e-4


def test_the_published_reading_does_not_see_where_in_the_image_the_guide_is() -> None:
    scales, embedding = make_scales(), torch.randn(2, 256, 64, 64)
    turned = embedding.rot90(1, (2, 3))

    def moved(name: str) -> float:
        fusion = make_lively(name)
        return (fusion(scales, embedding)[-1] - fusion(scales, turned)[-1]).abs().max().item()

    assert moved("xgfb_reference") < 1e-4
    assert min(moved("xgfb"), moved("concat")) > 0.1


@pytest.mark.parametrize("name", GUIDED)
def test_training_starts_from_the_network_without_guidance(name: str) -> None:
    scales = make_scales()

    guided = build_fusion(name, CHANNELS)(scales, torch.randn(2, 256, 64, 64))

    assert all(torch.equal(after, before) for after, before in zip(guided, scales, strict=True))


@pytest.mark.parametrize("name", GUIDED)
def test_the_first_step_already_moves_the_projections(name: str) -> None:
    fusion = build_fusion(name, CHANNELS)
    torch.stack([one.square().sum() for one in fusion(make_scales(), torch.randn(2, 256, 64, 64))]).sum().backward()

    projections = [weight for at, weight in fusion.named_parameters() if "project" in at]
    assert projections
    assert all(weight.grad.abs().min() > 0 for weight in projections)


@pytest.mark.parametrize("name", GUIDED)
def test_the_encoders_scale_and_offset_do_not_matter(name: str) -> None:
    fusion, scales, embedding = make_lively(name), make_scales(), torch.randn(2, 256, 64, 64)

    small, large = fusion(scales, embedding), fusion(scales, 10 * embedding + 3)

    for one, other, before in zip(small, large, scales, strict=True):
        assert (one - other).square().mean() <= 1e-5 * (one - before).square().mean()


@pytest.mark.parametrize("name", GUIDED)
def test_the_guide_of_one_image_does_not_reach_another(name: str) -> None:
    fusion, scales, embedding = make_lively(name).eval(), make_scales(), torch.randn(2, 256, 64, 64)
    other = embedding.clone()
    other[1] = 5 * torch.randn(256, 64, 64)

    before, after = fusion(scales, embedding)[-1], fusion(scales, other)[-1]

    torch.testing.assert_close(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", GUIDED)
def test_a_half_precision_embedding_is_used_in_full_precision(name: str) -> None:
    fusion, scales = make_lively(name), make_scales()
    stored = (0.1 * torch.randn(2, 256, 64, 64)).half()

    for half, full in zip(fusion(scales, stored), fusion(scales, stored.float()), strict=True):
        assert torch.equal(half, full)


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("side_px", [32, 256])
def test_any_grid_can_be_guided(side_px: int, name: str) -> None:
    scales = make_scales(side_px=side_px)

    guided = make_lively(name)(scales, torch.randn(2, 256, 64, 64))

    assert [one.shape for one in guided] == [one.shape for one in scales]


def test_without_fusion_the_maps_stay_as_they_are() -> None:
    scales = make_scales()

    assert all(a is b for a, b in zip(build_fusion("none", CHANNELS)(scales, None), scales, strict=True))


@pytest.mark.parametrize("name", GUIDED)
def test_a_fusion_without_its_embedding_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="got none"):
        build_fusion(name, CHANNELS)(make_scales(), None)


def test_an_unknown_fusion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=rf"'sum'.*{', '.join(FUSIONS)}"):
        build_fusion("sum", CHANNELS)
