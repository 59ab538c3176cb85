"""Costs against closed forms, and against torch's counter on a network that runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nucseg.errors import ConfigError
from nucseg.models import MODELS, ModelConfig, build_model, count_costs

WIDTH, SIDE = 4, 64
CHANNELS = [WIDTH * 2**i for i in range(5)]
SIDES = [SIDE // 2**i for i in range(5)]


def flops(model: str, fusion: str = "none", **options: object) -> int:
    return count_costs(build_model(model, ModelConfig(width=WIDTH, fusion=fusion, **options)), SIDE).flops


def convolution(channels_in: int, channels_out: int, side: int, kernel: int = 3) -> int:
    return 2 * kernel**2 * channels_in * channels_out * side**2


ENCODER = sum(
    convolution(i, o, side) + convolution(o, o, side)
    for i, o, side in zip([3, *CHANNELS], CHANNELS, SIDES, strict=False)
)
HEAD = convolution(WIDTH, 2, SIDE)


def test_unet_is_its_convolutions() -> None:
    decoder = 0
    for c, side in zip(CHANNELS[:-1], SIDES, strict=False):
        up = 2 * 4 * (2 * c) * c * (side // 2) ** 2  # each cell below gives 2x2 cells
        decoder += up + convolution(2 * c, c, side) + convolution(c, c, side)

    assert flops("unet") == ENCODER + decoder + HEAD


def test_unet3plus_is_what_runs() -> None:
    decoder = 0
    for level, side in enumerate(SIDES[:-1]):
        joined = 5 * WIDTH
        decoder += convolution(joined, joined, side)
        inputs = [*CHANNELS[: level + 1], *[joined] * (3 - level), CHANNELS[-1]]
        for i, channels in enumerate(inputs):
            if i - level < 2:
                decoder += convolution(channels, WIDTH, side)
                continue
            # nine 1x1 convolutions on the small grid, then a matrix that enlarges rows and one for columns
            small = SIDES[i]
            mixing = 9 * convolution(channels, WIDTH, small, kernel=1)
            decoder += mixing + 2 * 3 * small * WIDTH * 3 * small * side + 2 * side * 3 * small * WIDTH * side

    assert flops("unet3plus") == ENCODER + decoder + convolution(5 * WIDTH, 2, SIDE)


def test_the_fusion_block_is_its_gate_its_attention_and_its_projection() -> None:
    both, cells = CHANNELS[-1] + 256, SIDES[-1] ** 2
    gate = 2 * (both * 2 * both + both * both)
    attention = 2 * cells * both * 3 * both + 2 * 2 * cells * cells * both + 2 * cells * both * both
    projection = 2 * cells * both * CHANNELS[-1]

    assert flops("unet", "xgfb") - flops("unet") == gate + attention + projection


def test_deep_supervision_costs_its_heads() -> None:
    heads = sum(convolution(c, 2, side) for c, side in zip(CHANNELS[1:], SIDES[1:], strict=True))

    assert flops("unet", deep_supervision=True) - flops("unet") == heads


@pytest.mark.parametrize("name", MODELS)
def test_it_equals_the_counter_on_a_network_that_runs(name: str, make_inputs) -> None:
    model, (image, embedding) = build_model(name, ModelConfig(width=WIDTH, fusion="concat")).eval(), make_inputs(64, 64)

    with FlopCounterMode(display=False) as counter:
        model(image[:1], embedding[:1])

    costs = count_costs(model, 64)
    assert costs.flops == counter.get_total_flops()
    assert costs.parameters == sum(p.numel() for p in model.parameters())


def test_nothing_is_computed_and_the_network_stays_as_it_was() -> None:
    with torch.device("meta"):
        huge = build_model("eunet3plus", ModelConfig(width=2048))  # hundreds of GB

    assert count_costs(huge, 1024).parameters > 5e10
    assert huge.training


def test_attention_is_counted_with_and_without_gradients() -> None:
    with torch.no_grad():
        without_gradients = flops("unet", "xgfb")

    assert without_gradients == flops("unet", "xgfb")


@pytest.mark.parametrize(
    ("input_px", "message"),
    [
        (250, r"got 250\. Nearest valid sizes: 240 and 256"),
        (0, r"got 0\. Nearest valid sizes: 16 and 32"),
        (-16, r"got -16\. Nearest valid sizes: 16 and 32"),
        (10**9, "input_px must be at most 65,536, got 1000000000"),
    ],
)
def test_a_side_that_cannot_be_halved_four_times_or_is_too_large_is_refused(input_px: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        count_costs(build_model("unet", ModelConfig(width=2)), input_px)
