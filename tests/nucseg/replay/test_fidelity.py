"""Measures of replayed embeddings against closed forms."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from nucseg.errors import ConfigError, DataError
from nucseg.replay.fidelity import MEASURES, Agreement, agreement, channel_means, compared, measured, of_image

GRID = 6


@pytest.fixture
def true() -> Tensor:
    return torch.randn(5, GRID, GRID, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def means() -> Tensor:
    return torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25])


WHOLE = torch.ones(GRID, GRID, dtype=torch.bool)


def scores(true: Tensor, replayed: Tensor, means: Tensor, inside: Tensor = WHOLE) -> dict[str, float]:
    sums = agreement(true, replayed, means, inside)
    return {measure: of_image(sums, measure) for measure in MEASURES}


def test_the_true_embedding_has_no_error_and_agrees_wholly(true: Tensor, means: Tensor) -> None:
    assert scores(true, true, means) == pytest.approx({"error": 0, "cosine": 1, "centred_cosine": 1})


def test_the_channel_means_have_error_1_and_no_direction_of_their_own(true: Tensor, means: Tensor) -> None:
    found = scores(true, means[:, None, None].expand_as(true), means)

    assert found["error"] == pytest.approx(1)
    assert found["centred_cosine"] == 0


@pytest.mark.parametrize("share", [0.25, -1.0, 3.0])
def test_what_keeps_a_share_of_the_deviation_has_the_error_of_the_rest_squared(
    true: Tensor, means: Tensor, share: float
) -> None:
    m = means[:, None, None]
    found = scores(true, m + share * (true - m), means)

    assert found["error"] == pytest.approx((1 - share) ** 2)
    assert found["centred_cosine"] == pytest.approx(math.copysign(1, share))


def test_a_rotated_deviation_has_the_cosine_of_its_angle() -> None:
    true, rotated, means = torch.zeros(2, GRID, GRID), torch.zeros(2, GRID, GRID), torch.tensor([3.0, 4.0])
    true[0], rotated[0], rotated[1] = 1, math.cos(0.7), math.sin(0.7)
    centre = means[:, None, None]

    found = scores(centre + true, centre + rotated, means)

    assert found["centred_cosine"] == pytest.approx(math.cos(0.7), abs=1e-6)
    assert found["error"] == pytest.approx(2 - 2 * math.cos(0.7), abs=1e-6)
    a, b = np.array([4.0, 4.0]), np.array([3 + math.cos(0.7), 4 + math.sin(0.7)])
    assert found["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)


def test_cells_from_outside_count_in_nothing(true: Tensor, means: Tensor) -> None:
    inside = WHOLE.clone()
    inside[:, 4:] = False
    noisy = true.clone()
    noisy[:, :, 4:] = 1e6

    assert scores(true, noisy, means, inside) == scores(true, true, means, inside)
    assert scores(noisy, noisy, means, inside)["error"] == 0
    assert agreement(true, noisy, means, inside).n_cells == 4 * GRID


def images(errors: Sequence[float], spreads: Sequence[float]) -> dict[str, Agreement]:
    sums = zip(errors, spreads, strict=True)
    return {f"image {i}": Agreement(error, spread, 2.0, 1.0, 4.0) for i, (error, spread) in enumerate(sums)}


def test_images_pool_by_their_sums_and_motions_by_their_mean() -> None:
    first, second = images([1, 5], [10, 20]), images([6, 0], [10, 10])

    single, both = measured([first]), measured([first, second])
    assert single["error"].value == pytest.approx(6 / 30)
    assert both["error"].value == pytest.approx((6 / 30 + 6 / 20) / 2)
    assert (single["cosine"].value, single["centred_cosine"].value) == (0.5, 0.25)


def test_the_interval_is_that_of_the_two_ways_in_which_two_images_can_be_drawn() -> None:
    interval = measured([images([1, 9], [10, 10])])["error"]

    assert (interval.low, interval.high, interval.n_images) == (0.1, 0.9, 2)


def test_one_group_has_no_interval() -> None:
    interval = measured([images([1, 9], [10, 10])], groups={"image 0": "slide", "image 1": "slide"})["error"]

    assert (interval.low, interval.high, interval.n_groups) == (None, None, 1)


def test_a_paired_difference_is_sure_where_each_error_alone_is_not() -> None:
    worse, better = images([2, 4, 8], [10, 10, 10]), images([1, 3, 7], [10, 10, 10])

    difference = compared([worse], [better])

    assert difference.value == pytest.approx(-0.1)
    assert (difference.low, difference.high) == (pytest.approx(-0.1), pytest.approx(-0.1))
    assert measured([better])["error"].high > measured([worse])["error"].low


def test_an_image_that_was_moved_out_of_sight_is_left_out() -> None:
    agreements = images([1, 0], [10, 0])

    assert measured([agreements])["error"].value == pytest.approx(0.1)
    assert math.isnan(of_image(agreements["image 1"], "error"))


def test_a_motion_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="left no cell of any of 2 images"):
        measured([images([0, 0], [0, 0])])


def test_channel_means_are_those_of_the_pattern() -> None:
    pattern = torch.arange(8.0).view(2, 2, 2)

    assert channel_means(pattern).tolist() == [1.5, 5.5]


@pytest.mark.parametrize("part", ["replayed", "means", "inside"])
def test_shapes_that_do_not_match_are_refused(true: Tensor, means: Tensor, part: str) -> None:
    given = {"replayed": true, "means": means, "inside": WHOLE}
    given[part] = given[part][..., :-1]

    with pytest.raises(ConfigError, match="do not match a true embedding"):
        agreement(true, **given)
