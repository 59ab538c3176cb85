"""Crops: which part of an image they show."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nucseg.views import View, views_named
from nucseg.views.crop import Crop

HEIGHT, WIDTH = 60, 80
PLACES = np.stack([*np.indices((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))], axis=-1).astype(np.uint8)
"""Each pixel holds its row and its column."""


def cropped(folder: Path, scale: str, variants: int = 1) -> tuple[View, ...]:
    file = folder / "parts.toml"
    still = '[[transform]]\nname = "HEDJitter"\np = 0.0'
    file.write_text(f"variants = {variants}\n[crop]\nscale = {scale}\n{still}")
    return views_named(str(file))


def test_a_crop_is_a_square_of_adjacent_pixels_in_one_of_eight_orientations(tmp_path) -> None:
    seen = Counter()
    for view in cropped(tmp_path, "[0.3, 0.6]", variants=80):
        part = view.apply(PLACES, "a")
        side = part.shape[0]
        assert part.shape == (side, side, 3)
        assert 0.3 * HEIGHT - 1 <= side <= 0.6 * HEIGHT + 1
        rows, columns = part[..., 0].astype(int), part[..., 1].astype(int)
        top, left = rows.min(), columns.min()
        upright = PLACES[top : top + side, left : left + side]
        turns = [np.rot90(image, k) for image in (upright, upright.transpose(1, 0, 2)) for k in range(4)]
        (found,) = [i for i, turn in enumerate(turns) if np.array_equal(turn, part)]
        seen[found] += 1
    assert set(seen) == set(range(8))


def test_crops_come_from_everywhere_and_in_every_size(tmp_path) -> None:
    parts = [view.apply(PLACES, "a") for view in cropped(tmp_path, "[0.25, 1.0]", variants=300)]
    sides = np.array([len(part) for part in parts])
    covered = np.zeros((HEIGHT, WIDTH))
    for part in parts:
        covered[part[..., 0], part[..., 1]] += 1

    # fairly even but at the edges, which few squares touch; two of four corners at least
    assert (covered > 0).mean() > 0.99
    assert covered[5:-5, 5:-5].min() > 10
    # its logarithm is drawn evenly, so half of them are smaller than the geometric mean of both ends
    assert 0.4 < (sides < 0.5 * HEIGHT).mean() < 0.6


def test_a_crop_can_be_the_whole_of_a_square_image(tmp_path) -> None:
    square = PLACES[:, :HEIGHT]

    part = cropped(tmp_path, "[1.0, 1.0]")[0].apply(square, "a")

    assert sorted(part.reshape(-1, 3).tolist()) == sorted(square.reshape(-1, 3).tolist())


def test_an_image_of_one_pixel_can_be_cropped(tmp_path) -> None:
    assert cropped(tmp_path, "[0.05, 0.05]")[0].apply(PLACES[:1, :1], "a").shape == (1, 1, 3)


def test_a_crop_is_described_and_depends_on_image_and_variant(tmp_path) -> None:
    first, second = cropped(tmp_path, "[0.3, 0.6]", variants=2)
    crops = {
        first.apply(PLACES, "a").tobytes(),
        first.apply(PLACES, "b").tobytes(),
        second.apply(PLACES, "a").tobytes(),
    }

    assert first.described["crop"] == "a square of 0.3 to 0.6 of the shorter side, one of 8 orientations"
    assert first.has_own_image
    assert len(crops) == 3
    assert cropped(tmp_path, "[0.3, 0.7]")[0].described != first.described


@pytest.mark.parametrize("factor", [2, 3])
def test_relative_size_and_position_do_not_depend_on_the_resolution(tmp_path, factor) -> None:
    larger = PLACES.repeat(factor, axis=0).repeat(factor, axis=1)
    (view,) = cropped(tmp_path, "[0.5, 0.5]")

    small, large = (np.unique(view.apply(image, "a")[..., 0]) for image in (PLACES, larger))

    assert abs(int(small.min()) - int(large.min())) <= 1
    assert abs(int(small.max()) - int(large.max())) <= 1


@pytest.mark.parametrize("scale", ["[0.3333333333, 1.0]", "[0.35, 0.7000000001]", "[1.0, 1.0]"])
def test_a_crop_read_from_its_description_draws_the_same_squares(tmp_path, scale) -> None:
    (view,) = cropped(tmp_path, scale)

    read = Crop.parse(view.described["crop"])

    draws = [[crop.draw(random.Random(number)) for number in range(5)] for crop in (view.recipe.crop, read)]
    assert draws[0] == draws[1]


def test_stores_know_crops_by_this_description() -> None:
    described = views_named("crops")[0].described["crop"]

    assert described == "a square of 0.35 to 1 of the shorter side, one of 8 orientations"
