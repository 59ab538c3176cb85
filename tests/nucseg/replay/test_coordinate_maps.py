"""Coordinate maps against closed forms: rotations by hand, d4 by index, fields that are linear."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import d4
from nucseg.replay.coordinate_maps import (
    element_of,
    enlarged,
    identity_map,
    on_grid,
    pooled,
    remainder,
    sources,
    warped,
)

# a busy machine is no reason to fail
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25)


def moved_by(matrix: Tensor, shift: Tensor, side: int) -> Tensor:
    """The map of x -> matrix x + shift, 1 where that lies inside the frame and 0 where not: (1, side, side, 3)."""
    places = identity_map(side)[..., :2] @ matrix.T + shift
    inside = (places.abs() <= 1).all(dim=-1, keepdim=True).float()
    return torch.cat([places * inside, inside], dim=-1)[None]


def rotation(degrees: float) -> Tensor:
    angle = math.radians(degrees)
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def d4_map(element: int, side: int) -> Tensor:
    return d4.apply(identity_map(side).movedim(-1, 0), element).movedim(0, -1)[None]


@pytest.mark.parametrize("side", [1, 2, 64, 256])
def test_the_identity_changes_no_bit(side: int) -> None:
    x = torch.randn(1, 3, side, side)

    moved, inside = warped(x, identity_map(side)[None])

    assert torch.equal(moved, x)
    assert inside.all()


@pytest.mark.parametrize("element", d4.ELEMENTS)
@pytest.mark.parametrize(("side", "grid"), [(256, 64), (256, 256), (64, 16)])
def test_flips_and_quarter_turns_are_exact_on_every_coarser_grid(element: int, side: int, grid: int) -> None:
    x = torch.randn(1, 3, grid, grid)
    maps = on_grid(d4_map(element, side), grid)

    assert torch.equal(warped(x, maps)[0], d4.apply(x, element))
    labels = torch.randint(0, 99, (1, 1, grid, grid), dtype=torch.int32)
    assert torch.equal(warped(labels, maps, nearest=True)[0], d4.apply(labels, element))


@pytest.mark.parametrize("element", d4.ELEMENTS)
@pytest.mark.parametrize(("side", "grid"), [(64, 256), (32, 64), (256, 1000)])
def test_flips_and_quarter_turns_stay_exact_on_finer_grids(element: int, side: int, grid: int) -> None:
    torch.testing.assert_close(on_grid(d4_map(element, side), grid), d4_map(element, grid), atol=1e-6, rtol=0)


@unhurried
@given(st.floats(-180, 180), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_rotated_frame_leaves_no_cell_that_points_inside_wrongly(degrees: float, right: float, down: float) -> None:
    matrix, shift = rotation(degrees), torch.tensor([right, down])
    cells = pooled(moved_by(matrix, shift, 256), 64)

    places, inside = sources(cells)

    true = identity_map(64)[..., :2] @ matrix.T + shift
    cell = 2 / 64
    assert not inside[0][(true.abs().amax(dim=-1) > 1 + cell)].any()
    assert inside[0][(true.abs().amax(dim=-1) < 1 - cell)].all()
    error = (places[0] - true)[inside[0]].norm(dim=-1)
    # a cell that the edge cuts is where its share from inside is, at most half a diagonal of it away
    assert error.numel() == 0 or error.max() <= cell * math.sqrt(0.5)
    whole = inside[0] & (true.abs().amax(dim=-1) < 1 - cell)
    torch.testing.assert_close(places[0][whole], true[whole], atol=1e-4, rtol=0)


@unhurried
@given(st.floats(-180, 180), st.floats(0.6, 1.6))
def test_a_linear_field_is_moved_without_error(degrees: float, scale: float) -> None:
    matrix = scale * rotation(degrees)
    maps = moved_by(matrix, torch.zeros(2), 64)
    field = identity_map(64)[..., :2].movedim(-1, 0)[None]

    moved, inside = warped(field, maps)

    # between the outermost centres: beyond them there is nothing to interpolate with
    places = identity_map(64)[..., :2] @ matrix.T
    between = inside[0] & (places.abs().amax(dim=-1) <= 1 - 1 / 64)
    torch.testing.assert_close(moved[0].movedim(0, -1)[between], places[between], atol=1e-5, rtol=0)
    assert (moved[0, :, ~inside[0]] == 0).all()


def test_half_a_pixel_to_the_right_is_the_mean_of_two() -> None:
    maps = identity_map(4)[None].clone()
    maps[..., 0] += 1 / 4  # half a pixel of 2 / 4
    x = torch.tensor([[[[0.0, 4.0, 8.0, 0.0]] * 4]])

    moved, _ = warped(x, maps)

    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([2.0, 6.0, 4.0, 0.0]))


def test_a_cell_counts_if_at_least_half_of_it_came_from_inside() -> None:
    maps = identity_map(4)[None].clone()
    maps[0, 0, 0] = 0
    maps[0, 0:2, 2:4] = 0
    maps[0, 1, 2] = identity_map(4)[1, 2]

    _, inside = sources(pooled(maps, 2))

    assert inside[0].tolist() == [[True, False], [True, True]]
    places, _ = sources(pooled(maps, 2))
    remaining = identity_map(4)[[0, 1, 1], [1, 0, 1], :2].mean(dim=0)
    torch.testing.assert_close(places[0, 0, 0], remaining)


def test_an_enlarged_map_goes_on_in_a_straight_line_to_the_edge() -> None:
    matrix, shift = rotation(20) * 0.5, torch.tensor([0.1, 0.05])

    finer = enlarged(moved_by(matrix, shift, 64), 160)

    torch.testing.assert_close(finer, moved_by(matrix, shift, 160), atol=1e-5, rtol=0)


def test_labels_are_never_blended() -> None:
    labels = torch.tensor([0, 7, 1000, 2**30 + 1]).repeat_interleave(16).view(1, 1, 8, 8)
    angle = moved_by(rotation(33), torch.zeros(2), 8)

    moved, _ = warped(labels, angle, nearest=True)

    assert moved.dtype == labels.dtype
    assert set(moved.flatten().tolist()) <= set(labels.flatten().tolist())


@pytest.mark.parametrize("element", d4.ELEMENTS)
@pytest.mark.parametrize("degrees", [-40.0, 0.0, 40.0])
def test_a_map_is_its_element_and_a_small_rest(element: int, degrees: float) -> None:
    small = moved_by(rotation(degrees) * 0.9, torch.tensor([0.02, -0.03]), 64)
    x = torch.randn(1, 2, 64, 64)
    composed = torch.cat([small[..., :2] @ element_matrix(element).T, small[..., 2:]], dim=-1)

    found = element_of(composed)
    rest = remainder(composed, found)

    assert found.tolist() == [element]
    torch.testing.assert_close(rest, small)
    whole, _ = warped(x, composed)
    torch.testing.assert_close(warped(d4.apply(x, element), rest)[0], whole, atol=1e-4, rtol=0)


def element_matrix(element: int) -> Tensor:
    """Written by hand: a transpose swaps x and y, flips negate; maps a position to where its content came from."""
    flips = torch.diag(torch.tensor([-1.0 if element & 1 else 1.0, -1.0 if element & 2 else 1.0]))
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) if element & 4 else torch.eye(2)
    return flips @ swap


def test_a_map_that_leaves_the_frame_altogether_is_outside_and_has_the_identity_as_element() -> None:
    gone = torch.zeros(1, 8, 8, 3)

    moved, inside = warped(torch.ones(1, 1, 8, 8), gone)

    assert element_of(gone).tolist() == [0]
    assert not inside.any()
    assert (moved == 0).all()


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="side 10 cannot be pooled to 4"):
        pooled(identity_map(10)[None], 4)
