"""DDU-Net against a reference implementation of its description, on the network's own weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nucseg.models import DDUNet, ModelConfig
from nucseg.models.ddunet import CBAM, DilatedAttention


def cbam_by_hand(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Woo et al. 2018, Eqs. 1 to 3."""

    def perceptron(pooled: Tensor) -> Tensor:
        hidden = (pooled @ weights[f"{name}channel.0.weight"][:, :, 0, 0].T).clamp(min=0)
        return hidden @ weights[f"{name}channel.2.weight"][:, :, 0, 0].T

    cells = x.flatten(2)
    x = x * torch.sigmoid(perceptron(cells.mean(2)) + perceptron(cells.max(2).values))[:, :, None, None]
    pooled = torch.stack([x.mean(1), x.max(1).values], dim=1)
    return x * torch.sigmoid(F.conv2d(pooled, weights[f"{name}spatial.weight"], padding=3))


def dcam_by_hand(drawing, name: str, x: Tensor) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    branches, link = [drawing.activate(drawing.convolve(mean, f"{name}.globe.0")).expand(-1, -1, *x.shape[2:])], x
    for i, dilation in enumerate((1, 2, 4)):
        link = drawing.block(link, f"{name}.cascade.{i}", dilation)
        branches.append(link)
    joined = torch.cat([cbam_by_hand(drawing.weights, f"{name}.attend.{i}.", b) for i, b in enumerate(branches)], 1)
    return x + drawing.normalise(drawing.convolve(joined, f"{name}.project.0"), f"{name}.project.1")


@pytest.mark.parametrize("activation", ["relu", "glu"])
def test_the_network_is_its_description(activation: str, draw, make_inputs, make_lively) -> None:
    torch.manual_seed(0)
    config = ModelConfig(width=3, activation=activation, fusion="none", deep_supervision=True)
    model = make_lively(DDUNet(config)).eval()
    image, _ = make_inputs(64, 48)

    drawing = draw(model.state_dict(), activation)
    encoded = drawing.encode(image)
    maps = [*encoded[:4], dcam_by_hand(drawing, "surround", encoded[4])]
    for level in (3, 2, 1, 0):
        maps[level] = drawing.up(maps[level + 1], encoded[level], f"nodes.{level}")
    small = dcam_by_hand(drawing, "small_surround", encoded[2])
    for level in (1, 0):
        small = drawing.up(small, encoded[level], f"small_nodes.{level}")
    maps[0] = drawing.block(torch.cat([maps[0], small], dim=1), "merge")

    torch.testing.assert_close(model.outputs(image).sides, drawing.heads(maps), rtol=1e-4, atol=1e-4)


def test_block_attention_is_its_equations() -> None:
    torch.manual_seed(0)
    block, x = CBAM(80), torch.randn(2, 80, 6, 9)

    assert block.channel[0].out_channels == 80 // 16
    torch.testing.assert_close(block(x), cbam_by_hand(block.state_dict(), "", x))


def test_the_receptive_field_of_the_cascade_is_fifteen_cells() -> None:
    torch.manual_seed(0)
    cascade = DilatedAttention(8, activation="swish").double().eval().cascade
    x = torch.randn(1, 8, 31, 31, dtype=torch.float64, requires_grad=True)

    link = x
    for convolve in cascade:
        link = convolve(link)
    link[0, :, 15, 15].sum().backward()

    field = x.grad[0].abs().sum(0).nonzero()
    assert field.min(0).values.tolist() == [8, 8]
    assert field.max(0).values.tolist() == [22, 22]


def test_one_image_is_enough_to_train_on(make_inputs) -> None:
    image, embedding = make_inputs()

    DDUNet(ModelConfig(width=2)).train()(image[:1], embedding[:1]).square().mean().backward()


def test_the_small_decoder_reads_nothing_coarser_than_a_quarter(make_inputs, make_lively) -> None:
    model = make_lively(DDUNet(ModelConfig(width=2, fusion="none"))).eval()
    merged: list[Tensor] = []
    model.merge.register_forward_pre_hook(lambda _, args: merged.append(args[0]))
    image, _ = make_inputs()

    model(image)
    model.encoder.levels[3][0][0].weight.data.mul_(-1)
    model(image)

    (main, small), (other_main, other_small) = (x.chunk(2, dim=1) for x in merged)
    assert torch.equal(small, other_small)
    assert not torch.equal(main, other_main)
