"""Images moved on their native grid, against images moved by slicing."""

import numpy as np
import pytest
import torch

from nucseg.replay import Motions
from nucseg.replay.coordinate_maps import identity_map
from nucseg.views.orientation import PADDING
from nucseg_pipeline.fidelity.native_images import cells_inside, moved_native

HALF_TURN = 3


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def shifted(pixels: int, side: int) -> Motions:
    """A shift to the right by that many pixels of a map of that side."""
    moved = identity_map(side)
    moved[..., 0] -= 2 * pixels / side
    moved[..., 2] = (moved[..., 0] > -1).float()
    moved[..., :2] *= moved[..., 2:]
    return Motions.of_maps(moved[None])


def test_a_turned_square_keeps_every_pixel() -> None:
    native = image(50, 50)

    assert np.array_equal(moved_native(native, Motions.of_elements([HALF_TURN])), native[::-1, ::-1])


def test_an_oblong_image_is_padded_at_the_bottom_before_it_is_turned() -> None:
    native = image(30, 50)

    turned = moved_native(native, Motions.of_elements([HALF_TURN]))

    assert np.array_equal(turned[20:], native[::-1, ::-1])
    assert (turned[:20] == PADDING).all()


def test_a_map_is_applied_on_the_native_grid_and_the_rest_is_filled() -> None:
    native = image(128, 128)

    moved = moved_native(native, shifted(16, 64))

    assert np.array_equal(moved[:, 34:], native[:, 2:-32])
    assert (moved[:, :30] == PADDING).all()


def test_a_map_of_another_size_moves_the_image_by_the_same_share() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (100, 100, 3))  # rises to the right

    moved = moved_native(ramp, shifted(16, 64))

    # a quarter of 100 pixels
    assert np.abs(moved[:, 30:, 0].astype(int) - np.arange(5, 75)).max() <= 1


def test_cells_from_padding_and_from_outside_the_square_are_excluded() -> None:
    whole = torch.ones(8, 8, dtype=torch.bool)
    upper = whole.clone()
    upper[4:] = False

    assert torch.equal(cells_inside((60, 60), Motions.of_elements([5]), 8), whole)
    assert torch.equal(cells_inside((30, 60), Motions.of_elements([0]), 8), upper)
    assert torch.equal(cells_inside((30, 60), Motions.of_elements([HALF_TURN]), 8), upper.flip(0))
    shifted_cells = cells_inside((30, 60), shifted(16, 64), 8)
    assert torch.equal(shifted_cells[:, 2:], upper[:, 2:])
    assert not shifted_cells[:, :2].any()


@pytest.mark.parametrize("side", [40, 256, 300])
def test_any_native_size_can_be_bent(side: int) -> None:
    assert moved_native(image(side, side), shifted(64, 256)).shape == (side, side, 3)
