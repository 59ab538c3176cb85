"""The shared building blocks against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from nucseg.models.blocks import ACTIVATIONS, ConvBlock, Encoder, UpsampledConv2d


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_an_upsampled_convolution_is_the_convolution_of_the_enlarged_map(scale: int) -> None:
    torch.manual_seed(0)
    conv = UpsampledConv2d(5, 7, scale=scale).double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 7, 3 * scale, 4 * scale, dtype=torch.float64)

    enlarged = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    expected = F.conv2d(enlarged, conv.weight, padding=1)

    torch.testing.assert_close(conv(x), expected)
    ours = torch.autograd.grad((conv(x) * slope).sum(), (x, conv.weight))
    theirs = torch.autograd.grad((expected * slope).sum(), (x, conv.weight))
    torch.testing.assert_close(ours, theirs)


def test_an_upsampled_convolution_never_saves_the_enlarged_map() -> None:
    conv = UpsampledConv2d(512, 2, scale=16)
    sizes = []

    def record(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        conv(torch.randn(1, 512, 4, 4, requires_grad=True))

    assert max(sizes) < 512 * 64 * 64 / 16


def test_glu_gates_one_half_of_the_convolution_by_the_other() -> None:
    torch.manual_seed(0)
    block = ConvBlock(3, 4, activation="glu").eval()
    conv, norm = block[0], block[1]
    norm.running_mean.normal_()
    norm.bias.data.normal_()
    x = torch.randn(2, 3, 6, 5)

    w_l, w_a = conv.weight.chunk(2)
    b_l, b_a = (norm.bias - norm.running_mean / (1 + norm.eps) ** 0.5).chunk(2)
    shrink = (1 + norm.eps) ** -0.5
    linear = F.conv2d(x, w_l * shrink, b_l, padding=1)
    gate = F.conv2d(x, w_a * shrink, b_a, padding=1)

    torch.testing.assert_close(block(x), torch.sigmoid(gate) * linear)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("swish", lambda x: x / (1 + torch.exp(-x))),
        ("glu", lambda x: x[:, :4] / (1 + torch.exp(-x[:, 4:]))),
    ],
)
def test_each_activation_is_its_formula(name: str, expected) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 3)

    torch.testing.assert_close(ACTIVATIONS[name].make()(x), expected(x))


def test_the_encoder_halves_the_grid_and_doubles_the_channels() -> None:
    scales = Encoder(4, activation="relu")(torch.randn(2, 3, 32, 48))

    assert [tuple(scale.shape[1:]) for scale in scales] == [
        (4, 32, 48),
        (8, 16, 24),
        (16, 8, 12),
        (32, 4, 6),
        (64, 2, 3),
    ]
