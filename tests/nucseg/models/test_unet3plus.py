"""U-Net3+ against a reference implementation of its paper's figure, on the network's own weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nucseg.models import ModelConfig, UNet3Plus, build_model

HUANG = 26.97e6
"""Parameters of U-Net3+ with 64 channels in the first level (Huang et al. 2020, table 1)."""


def unet3plus_by_hand(drawing, image: Tensor) -> list[Tensor]:
    """Huang et al. 2020, figure 2 and section 2.1: the five outputs, finest first."""
    encoder, block = drawing.encode(image), drawing.block
    decoder = {4: encoder[4]}
    for n in (3, 2, 1, 0):
        down = [block(F.max_pool2d(encoder[i], 2 ** (n - i)), f"nodes.{n}.squeeze.{i}") for i in range(n)]
        same = [block(encoder[n], f"nodes.{n}.squeeze.{n}")]
        up = [
            block(F.interpolate(decoder[i], scale_factor=2 ** (i - n), mode="bilinear"), f"nodes.{n}.squeeze.{i}")
            for i in range(n + 1, 5)
        ]
        decoder[n] = block(torch.cat(down + same + up, dim=1), f"nodes.{n}.fuse")
    return drawing.heads([decoder[i] for i in range(5)])


@pytest.mark.parametrize("activation", ["glu", "relu"])
def test_the_network_is_the_drawing(activation: str, draw, make_inputs, make_lively) -> None:
    torch.manual_seed(0)
    config = ModelConfig(width=3, activation=activation, fusion="none", deep_supervision=True)
    model = make_lively(UNet3Plus(config)).eval()
    image, _ = make_inputs(48, 48)

    sides = model.outputs(image).sides

    assert len(sides) == 5
    torch.testing.assert_close(
        sides, unet3plus_by_hand(draw(model.state_dict(), activation), image), rtol=1e-4, atol=1e-4
    )


def test_every_node_fuses_five_times_the_width() -> None:
    model = build_model("unet3plus", ModelConfig(width=4, fusion="none"))

    assert [node.fuse[0].in_channels for node in model.nodes] == [20, 20, 20, 20]


def test_the_papers_width_gives_the_papers_size() -> None:
    with torch.device("meta"):
        model = UNet3Plus(ModelConfig(width=64, fusion="none"))

    assert sum(p.numel() for p in model.parameters()) == pytest.approx(HUANG, abs=0.005e6)
