"""The fusions against reference implementations of their descriptions."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.models.fusion import FUSIONS, Fusion, GatedSkip, build_fusion
from nucseg.models.tissue import centred_tissue

CHANNELS = (2, 4, 8, 16, 32)
GUIDED = [name for name in FUSIONS if name != "none"]


def make_scales(n_images: int = 2, side_px: int = 128) -> list[Tensor]:
    return [torch.randn(n_images, n, side_px >> i, side_px >> i) for i, n in enumerate(CHANNELS)]


def make_lively(name: str) -> Fusion:
    """A fusion whose projections are not zero as they are at first."""
    torch.manual_seed(0)
    fusion = build_fusion(name, CHANNELS)
    for module_name, module in fusion.named_modules():
        if module_name.endswith("project"):
            nn.init.normal_(module.weight)
    return fusion


def guide_by_hand(embedding: Tensor, cells: int) -> Tensor:
    """Average to the grid, then standardise each channel to mean 0 and variance 1 over the batch."""
    step = 64 // cells
    guide = embedding.unfold(2, step, step).unfold(3, step, step).mean(dim=(-2, -1))
    centred = guide - guide.mean(dim=(0, 2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()


def weights_by_hand(gate: nn.Module, both: Tensor) -> Tensor:
    """Squeeze, expand, gated linear unit, convolution, sigmoid: (B, C, G, G) -> (B, n_weights)."""
    expand, _, weigh, _ = gate.excite
    linear, shut = (both.mean(dim=(2, 3)) @ expand.weight[:, :, 0, 0].T + expand.bias).chunk(2, dim=1)
    return torch.sigmoid((linear * torch.sigmoid(shut)) @ weigh.weight[:, :, 0, 0].T + weigh.bias)


def attended_by_hand(block: nn.Module, latent: Tensor, both: Tensor) -> Tensor:
    """Gate, self-attention over the cells, residual, layer normalisation: (B, C, G, G) -> (B, G * G, C)."""
    tokens = torch.einsum("bchw,bc->bchw", latent, weights_by_hand(block.gate, both)).flatten(2).mT
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


@pytest.mark.parametrize(
    ("name", "tokens_by_hand"),
    [
        ("concat", lambda block, latent, both: both.flatten(2).mT),
        ("xgfb", lambda block, latent, both: attended_by_hand(block, both, both)),
        ("xgfb_reference", lambda block, latent, both: attended_by_hand(block, latent, both)),
    ],
)
def test_a_block_at_the_bottleneck_is_its_description(
    name: str, tokens_by_hand: Callable[[nn.Module, Tensor, Tensor], Tensor]
) -> None:
    block, scales, embedding = make_lively(name), make_scales(), 0.1 * torch.randn(2, 256, 64, 64) + 0.2
    latent = scales[-1]
    both = torch.cat([latent, guide_by_hand(embedding, 8)], dim=1)
    expected = projected_by_hand(block, tokens_by_hand(block, latent, both), latent)

    guided = block(scales, embedding)

    torch.testing.assert_close(guided[-1], expected, rtol=1e-4, atol=1e-4)
    assert all(after is before for after, before in zip(guided[:-1], scales[:-1], strict=True))


def test_a_gated_skip_weighs_both_maps_and_mixes_each_cell() -> None:
    torch.manual_seed(0)
    skip, scale, embedding = GatedSkip(8), torch.randn(2, 8, 32, 32), torch.randn(2, 256, 64, 64)
    nn.init.normal_(skip.project.weight)
    both = torch.cat([scale, guide_by_hand(embedding, 32)], dim=1)
    weighted = torch.einsum("bchw,bc->bchw", both, weights_by_hand(skip.gate, both))
    mixed = torch.einsum("bchw,oc->bohw", weighted, skip.mix[0].weight[:, :, 0, 0])
    linear, shut = F.batch_norm(mixed, None, None, training=True).chunk(2, dim=1)
    expected = scale + torch.einsum("bchw,oc->bohw", linear * torch.sigmoid(shut), skip.project.weight[:, :, 0, 0])

    torch.testing.assert_close(skip(scale, embedding), expected, rtol=1e-4, atol=1e-4)


def test_multiscale_guides_the_three_levels_of_the_embeddings_grid_and_coarser_each_by_its_own_block() -> None:
    fusion = make_lively("multiscale")
    scales, embedding = make_scales(side_px=256), torch.randn(2, 256, 64, 64)

    guided = fusion(scales, embedding)

    assert all(after is before for after, before in zip(guided[:2], scales[:2], strict=True))
    assert [tuple(scale.shape[-2:]) for scale in guided[2:]] == [(64, 64), (32, 32), (16, 16)]
    for after, skip, level in ((guided[2], fusion.skips[0], 2), (guided[3], fusion.skips[1], 3)):
        assert torch.equal(after, skip(scales[level], embedding))
    assert torch.equal(guided[4], fusion.bottleneck(scales, embedding)[4])


def test_only_multiscale_distinguishes_cells_of_the_embedding_that_the_bottleneck_averages() -> None:
    scales, embedding = make_scales(side_px=256), torch.randn(2, 256, 64, 64)
    swapped = embedding.clone()
    swapped[:, :, 0, 0], swapped[:, :, 0, 1] = embedding[:, :, 0, 1], embedding[:, :, 0, 0]

    def moved(name: str) -> float:
        fusion = make_lively(name).eval()
        pairs = zip(fusion(scales, embedding), fusion(scales, swapped), strict=True)
        return max((before - after).abs().max().item() for before, after in pairs)

    assert moved("multiscale") > 0.1
    assert max(moved(name) for name in ("concat", "xgfb", "xgfb_reference")) < 1e-4


def test_the_published_code_ignores_where_in_the_image_the_guide_responds() -> None:
    scales, embedding = make_scales(), torch.randn(2, 256, 64, 64)
    rotated = embedding.rot90(1, (2, 3))

    def moved(name: str) -> float:
        fusion = make_lively(name)
        return (fusion(scales, embedding)[-1] - fusion(scales, rotated)[-1]).abs().max().item()

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
    torch.stack([scale.square().sum() for scale in fusion(make_scales(), torch.randn(2, 256, 64, 64))]).sum().backward()

    projections = [weight for at, weight in fusion.named_parameters() if "project" in at]
    assert projections
    assert all(weight.grad.abs().min() > 0 for weight in projections)


@pytest.mark.parametrize("name", GUIDED)
def test_the_encoders_scale_and_offset_do_not_matter(name: str) -> None:
    fusion, scales, embedding = make_lively(name), make_scales(), torch.randn(2, 256, 64, 64)

    small, large = fusion(scales, embedding), fusion(scales, 10 * embedding + 3)

    for after, after_large, before in zip(small, large, scales, strict=True):
        assert (after - after_large).square().mean() <= 1e-5 * (after - before).square().mean()


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

    assert [after.shape for after in guided] == [before.shape for before in scales]


def test_without_fusion_the_maps_stay_as_they_are() -> None:
    scales = make_scales()

    assert all(a is b for a, b in zip(build_fusion("none", CHANNELS)(scales, None), scales, strict=True))


@pytest.mark.parametrize("name", GUIDED)
def test_a_fusion_without_its_embedding_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="got none"):
        build_fusion(name, CHANNELS)(make_scales(), None)


@pytest.mark.parametrize("name", GUIDED)
def test_with_tissue_neither_a_shift_of_the_embedding_nor_what_lies_outside_matters(name: str) -> None:
    fusion, scales, embedding = make_lively(name).eval(), make_scales(), torch.randn(2, 256, 64, 64)
    tissue = torch.zeros(2, 1, 64, 64)
    tissue[..., :40] = 1
    changed = embedding + torch.randn(256, 1, 1)
    changed[..., 40:] = 3 * torch.randn(2, 256, 64, 24)

    def moved(weights: Tensor | None) -> float:
        guides = [x if weights is None else centred_tissue(x, weights) for x in (embedding, changed)]
        pairs = zip(*(fusion(scales, guide, weights) for guide in guides), strict=True)
        return max((after - before).abs().max().item() for before, after in pairs)

    assert moved(tissue) < 0.01 * moved(None)


def test_a_gate_with_tissue_squeezes_over_it() -> None:
    torch.manual_seed(0)
    skip, scale, embedding = GatedSkip(8).eval(), torch.randn(1, 8, 64, 64), torch.zeros(1, 256, 64, 64)
    nn.init.normal_(skip.project.weight)
    tissue = torch.zeros(1, 1, 64, 64)
    tissue[..., :32] = 1
    glass = scale.clone()
    glass[..., 32:] = 2

    def weights(x: Tensor, cells: Tensor | None) -> Tensor:
        return skip.gate.weights(torch.cat([x, embedding], dim=1), cells)

    torch.testing.assert_close(weights(glass, tissue), weights(scale, tissue), rtol=0, atol=1e-3)
    assert (weights(glass, None) - weights(scale, None)).abs().max() > 0.01
    torch.testing.assert_close(weights(scale, torch.ones(1, 1, 64, 64)), weights(scale, None))
