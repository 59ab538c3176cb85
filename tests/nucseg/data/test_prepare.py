"""Image, instances and ignore are prepared with the same geometry."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import downscale_local_mean

from nucseg.data import content_size, prepare, restore
from nucseg.errors import ConfigError, DataError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def prepared(image: np.ndarray, instances: np.ndarray | None = None, side_px: int = 256):
    if instances is None:
        instances = np.zeros(image.shape[:2], np.int32)
    return prepare(image, instances, instances < 0, side_px=side_px)


def fair_area_mean(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """Divide every native pixel into h x w equal parts, so that each prepared pixel consists of whole parts."""
    native_h, native_w = image.shape[:2]
    fine = image.astype(np.int64).repeat(h, axis=0).repeat(w, axis=1)
    return fine.reshape(h, native_h, w, native_w, 3).sum(axis=(1, 3)) / (native_h * native_w)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_reduced_image_has_the_mean_over_the_area_of_each_pixel(size, side_px, seed) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    scale = side_px / max(size)
    if scale >= 1 or min(size) * scale < 0.5:
        return
    h, w = content_size(size, side_px)

    got = prepared(image, side_px=side_px).image[:h, :w]

    assert np.abs(got - fair_area_mean(image, h, w)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8, 15, 16])
def test_an_integer_reduction_equals_the_local_mean_of_another_library(factor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16 * factor, 12 * factor, 3)).astype(np.uint8)
    image[: 4 * factor] = 255  # the largest sum there is

    sums = downscale_local_mean(image.astype(np.int64) * factor**2, (factor, factor, 1))

    expected = (2 * sums.astype(np.int64) + factor**2) // (2 * factor**2)  # halves rounded up, in whole numbers
    np.testing.assert_array_equal(prepared(image, side_px=16).image[:, :12], expected)


def test_an_image_of_the_right_size_is_not_changed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 200, 3)).astype(np.uint8)

    result = prepared(image)

    np.testing.assert_array_equal(result.image[:, :200], image)
    assert not result.image[:, 200:].any()


def test_a_small_image_is_interpolated_between_pixel_centres() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8), (128, 128))
    image = np.dstack([ramp] * 3)

    doubled = prepared(image).image[128, :, 0].astype(float)

    # Prepared pixel j has its centre at (j + 1/2) / 2 - 1/2 of the native grid, where the ramp is twice that
    expected = 2 * ((np.arange(256) + 0.5) / 2 - 0.5)
    assert np.abs(doubled - expected)[1:-1].max() <= 0.5


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(1, 30))
def test_masks_take_the_native_pixel_under_the_centre(size, side_px) -> None:
    native_h, native_w = size
    if min(size) * side_px / max(size) < 0.5:
        return
    instances = np.arange(native_h * native_w, dtype=np.int32).reshape(size)
    h, w = content_size(size, side_px)

    result = prepare(np.zeros((*size, 3), np.uint8), instances, instances % 3 == 0, side_px=side_px)

    rows = [int((i + Fraction(1, 2)) * native_h / h) for i in range(h)]
    columns = [int((j + Fraction(1, 2)) * native_w / w) for j in range(w)]
    expected = [[native_w * row + column for column in columns] for row in rows]
    assert result.instances[:h, :w].tolist() == expected
    np.testing.assert_array_equal(result.ignore[:h, :w], np.array(expected) % 3 == 0)


@pytest.mark.parametrize("size", [(512, 512), (320, 256), (300, 411), (100, 77)])
def test_masks_agree_with_nearest_neighbour_of_another_library(size) -> None:
    instances = np.random.default_rng(0).integers(0, 1000, size).astype(np.int32)
    h, w = content_size(size, 256)

    nearest = Image.fromarray(instances).resize((w, h), Image.Resampling.NEAREST)

    np.testing.assert_array_equal(
        prepared(np.zeros((*size, 3), np.uint8), instances).instances[:h, :w], np.asarray(nearest)
    )


def test_a_disc_keeps_its_position_in_image_and_mask() -> None:
    y, x = np.mgrid[:411, :300]
    disc = (y - 250.3) ** 2 + (x - 120.7) ** 2 < 60**2
    image = np.repeat(disc[..., None] * np.uint8(255), 3, axis=2)

    result = prepared(image, disc.astype(np.int32))

    rows, columns = np.mgrid[:256, :256]
    for weight in (result.image[..., 0] / 255.0, result.instances.astype(float)):
        centre = np.array([(rows * weight).sum(), (columns * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(centre, (np.array([250.3, 120.7]) + 0.5) * 256 / 411 - 0.5, atol=0.35)


def test_the_padding_is_at_the_bottom_right_and_ignored() -> None:
    image = np.full((320, 256, 3), 99, np.uint8)

    result = prepare(image, np.ones((320, 256), np.int32), np.zeros((320, 256), np.bool_))

    inside = np.zeros((256, 256), np.bool_)
    inside[:, :205] = True
    np.testing.assert_array_equal(result.ignore, ~inside)
    np.testing.assert_array_equal(result.instances == 1, inside)
    np.testing.assert_array_equal(result.image == 99, np.dstack([inside] * 3))
    assert result.size == (320, 256)
    assert (result.image.dtype, result.instances.dtype, result.ignore.dtype) == (np.uint8, np.int32, np.bool_)


@pytest.mark.parametrize(
    ("size", "side_px", "expected"),
    [
        ((512, 512), 256, (256, 256)),
        ((320, 256), 256, (256, 205)),
        ((256, 320), 1024, (819, 1024)),
        ((1000, 3), 256, (256, 1)),
        ((512, 1), 256, (256, 1)),  # exactly one half is rounded up
    ],
)
def test_the_content_has_the_size_of_segment_anything(size, side_px, expected) -> None:
    assert content_size(size, side_px) == expected


@settings(max_examples=200)
@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.sampled_from([256, 1024]))
def test_content_sizes_on_both_grids_have_the_same_geometry(size, side_px) -> None:
    if min(size) * side_px / max(size) < 0.5:
        return
    exact = [Fraction(extent * side_px, max(size)) for extent in size]

    got = content_size(size, side_px)

    assert max(got) == side_px
    assert all(abs(have - want) <= Fraction(1, 2) for have, want in zip(got, exact, strict=True))


def test_an_image_without_a_pixel_left_is_refused() -> None:
    with pytest.raises(DataError, match="2 x 2000 pixels would have no pixel left"):
        prepared(np.zeros((2000, 2, 3), np.uint8), side_px=256)


def test_a_side_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        content_size((10, 10), 0)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(DataError, match="do not match"):
        prepare(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 7), np.int32), np.zeros((8, 8), np.bool_))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(4, 40))
def test_restoring_inverts_the_geometry_of_preparation(size, side_px) -> None:
    """A ramp over the native image, prepared by its area mean, comes back as itself but at the clamped border."""
    if max(size) < side_px or min(size) * side_px < max(size):
        return
    h, w = content_size(size, side_px)
    square = np.full((side_px, side_px), np.nan, np.float32)
    square[:h, :w] = (np.arange(h)[:, None] + 0.5) / h + 2 * (np.arange(w) + 0.5) / w

    back = restore(square, size)

    native_h, native_w = size
    rows, columns = (np.arange(native_h)[:, None] + 0.5) / native_h, (np.arange(native_w) + 0.5) / native_w
    clamped = np.clip(rows, 0.5 / h, 1 - 0.5 / h) + 2 * np.clip(columns, 0.5 / w, 1 - 0.5 / w)
    assert back.shape == size
    np.testing.assert_allclose(back, clamped, atol=1e-4)


def test_an_enlargement_equals_that_of_torch() -> None:
    values = np.random.default_rng(0).random((32, 32), dtype=np.float32)

    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (75, 75), mode="bilinear")

    np.testing.assert_allclose(restore(values, (75, 75)), expected[0, 0].numpy(), atol=1e-5)


def test_a_map_that_was_not_resized_is_restored_without_padding() -> None:
    values = np.random.default_rng(0).random((256, 256), dtype=np.float32)

    np.testing.assert_array_equal(restore(values, (200, 256)), values[:200])
