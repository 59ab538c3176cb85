"""U-Net against a reference implementation of its paper's figure, on the network's own weights."""

import pytest
import torch

from nucseg.models import ModelConfig, UNet

RONNEBERGER = 31.03e6
"""Parameters of the paper's figure 1, counted from its numbers of channels."""


def parameters_by_hand(width: int) -> int:
    """Padded U-Net of five levels: a convolution and its normalisation have 9 i o + 2 o numbers."""

    def double(i: int, o: int) -> int:
        return 9 * (i * o + o * o) + 4 * o

    c = [width * 2**i for i in range(5)]
    encoder = sum(double(i, o) for i, o in zip([3, *c], c, strict=False))
    decoder = sum(4 * 2 * o * o + o + double(2 * o, o) for o in c[:-1])
    return encoder + decoder + 9 * width * 2 + 2


@pytest.mark.parametrize("activation", ["relu", "glu"])
def test_the_network_is_the_drawing(activation: str, draw, make_inputs, make_lively) -> None:
    torch.manual_seed(0)
    config = ModelConfig(width=3, activation=activation, fusion="none", deep_supervision=True)
    model = make_lively(UNet(config)).eval()
    image, _ = make_inputs(48, 32)

    drawing = draw(model.state_dict(), activation)
    maps = drawing.encode(image)
    for level in (3, 2, 1, 0):
        maps[level] = drawing.up(maps[level + 1], maps[level], f"nodes.{level}")

    torch.testing.assert_close(model.outputs(image).sides, drawing.heads(maps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [4, 64])
def test_it_has_the_parameters_of_the_drawing(width: int) -> None:
    with torch.device("meta"):
        model = UNet(ModelConfig(width=width, fusion="none"))

    assert sum(p.numel() for p in model.parameters()) == parameters_by_hand(width)


def test_the_papers_width_gives_the_papers_size() -> None:
    assert parameters_by_hand(64) == pytest.approx(RONNEBERGER, rel=1e-3)
