"""Tissue weights of images drawn by hand."""

import pytest
import torch
from torch import Tensor

from nucseg.models.tissue import tissue_mean, tissue_weights


def textured(side_px: int = 256, contrast: float = 10 / 255) -> Tensor:
    """(1, 3, side, side): gray of 0.6 with noise, in squares of 4 px so that no cell is smooth."""
    torch.manual_seed(0)
    noise = torch.randn(1, 1, side_px // 4, side_px // 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (0.6 + contrast * noise).clamp(0, 1).expand(-1, 3, -1, -1).clone()


@pytest.mark.parametrize("level", [0, 200, 245, 255])
def test_a_half_of_one_colour_and_its_margin_of_two_cells_weigh_nothing(level: int) -> None:
    image = textured()
    image[..., 128:] = level / 255  # columns of cells from 32 on

    weights = tissue_weights(image)

    assert weights.shape == (1, 1, 64, 64)
    assert weights[..., :30].min() > 0.95
    assert weights[..., 30:].max() < 0.01


def test_a_coloured_area_counts_as_glass_too() -> None:
    image = textured()
    image[..., 128:] = torch.tensor([0.9, 0.7, 0.8])[:, None, None]

    assert tissue_weights(image)[..., 30:].max() < 0.01


def test_a_small_hole_is_tissue() -> None:
    image = textured()
    image[..., 100:120, 100:120] = 0.95  # 5 x 5 cells

    assert tissue_weights(image).min() > 0.95


def test_the_noise_of_a_camera_is_no_texture() -> None:
    image = textured()
    image[..., 128:] = ((245 + torch.randn(1, 3, 256, 128)).round() / 255).clamp(max=1)

    assert tissue_weights(image)[..., 30:].max() < 0.05


def test_tissue_of_half_the_contrast_in_a_bright_image_is_tissue() -> None:
    assert tissue_weights(0.35 + textured(contrast=2.5 / 255)).min() > 0.8


@pytest.mark.parametrize("width", [4, 16, 60])
def test_padding_of_any_width_weighs_nothing(width: int) -> None:
    image = textured()
    image[..., 256 - width :] = 0

    assert tissue_weights(image)[..., 64 - width // 4 :].max() == 0


def test_cells_are_a_64th_of_the_longer_side() -> None:
    assert tissue_weights(textured(512)[:, :, :256]).shape == (1, 1, 32, 64)
    assert tissue_weights(textured(32)).shape == (1, 1, 32, 32)


def test_a_mean_over_tissue_leaves_out_the_rest_and_without_tissue_is_the_mean() -> None:
    values, weights = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    weights[0, :, :, :2] = 1

    means = tissue_mean(values, weights)

    torch.testing.assert_close(means[0, :, 0, 0], values[0, :, :, :2].mean(dim=(1, 2)), rtol=0, atol=2e-3)
    torch.testing.assert_close(means[1, :, 0, 0], values[1].mean(dim=(1, 2)))
