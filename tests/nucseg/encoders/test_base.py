"""Every encoder checks its embeddings: one that cannot be right is an error."""

import logging
from collections.abc import Callable

import numpy as np
import pytest

from nucseg.encoders.base import Encoder
from nucseg.errors import EncoderError, OutOfMemory

N_VALUES = 256 * 64 * 64


class EncoderOf(Encoder):
    """An encoder that applies a function to preprocessed images and records the batch sizes."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], batch_size: int = 4) -> None:
        self.function = function
        self.batch_size = batch_size
        self.batches: list[int] = []

    def _embed(self, inputs: np.ndarray) -> np.ndarray:
        self.batches.append(len(inputs))
        return self.function(inputs)


def brightness(inputs: np.ndarray) -> np.ndarray:
    """A simple embedding: the mean of the image plus a ramp over all values."""
    means = inputs.mean(axis=(1, 2, 3))
    numbers = np.arange(N_VALUES, dtype=np.float32).reshape(256, 64, 64) / N_VALUES
    return (means[:, None, None, None] + numbers).astype(np.float32)


def grey_images(*levels: int) -> list[np.ndarray]:
    return [np.full((16, 16, 3), level, np.uint8) for level in levels]


def test_images_come_back_in_their_order_whatever_the_batch_size() -> None:
    levels = (10, 200, 90, 0, 255)
    for batch_size, batches in ((1, [1] * 5), (2, [2, 2, 1]), (8, [5])):
        encoder = EncoderOf(brightness, batch_size)

        rows = encoder.encode(grey_images(*levels))

        assert encoder.batches == batches
        assert rows.shape == (5, 256, 64, 64)
        assert rows.dtype == np.float32
        assert np.argsort(rows[:, 0, 0, 0]).tolist() == [3, 0, 2, 1, 4]


def test_no_images_give_no_rows() -> None:
    assert EncoderOf(brightness).encode([]).shape == (0, 256, 64, 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_embedding_with_a_value_that_is_not_finite_names_its_image(value: float) -> None:
    def broken(inputs: np.ndarray) -> np.ndarray:
        rows = brightness(inputs)
        rows[2, 7, 8, 9] = value
        return rows

    with pytest.raises(EncoderError, match=r"image 2 of the batch.*not finite.*float32 \(or bfloat16\)"):
        EncoderOf(broken).encode(grey_images(1, 2, 3))


def test_an_embedding_constant_over_the_image_names_its_image() -> None:
    def constant(inputs: np.ndarray) -> np.ndarray:
        rows = brightness(inputs)
        rows[1] = np.arange(256)[:, None, None]  # channels differ, cells do not
        return rows

    with pytest.raises(EncoderError, match=r"image 1 of the batch is constant"):
        EncoderOf(constant).encode(grey_images(1, 2, 3))


def test_different_images_with_one_embedding_are_named() -> None:
    def stuck(inputs: np.ndarray) -> np.ndarray:
        rows = brightness(inputs)
        rows[3] = rows[1]
        return rows

    with pytest.raises(EncoderError, match=r"images 1, 3 of the batch are identical, but the images are not"):
        EncoderOf(stuck).encode(grey_images(1, 2, 3, 40))


def test_different_images_with_one_embedding_are_noticed_across_batches_of_one() -> None:
    with pytest.raises(EncoderError, match=r"images 0, 1 of the batch are identical"):
        EncoderOf(lambda inputs: brightness(inputs * 0), batch_size=1).encode(grey_images(10, 90))


def test_the_same_image_twice_may_have_one_embedding() -> None:
    same_once_resized = [np.full((side, side, 3), 80, np.uint8) for side in (16, 16, 32)]

    rows = EncoderOf(brightness).encode(same_once_resized)

    assert (rows[0] == rows[1]).all()
    assert (rows[0] == rows[2]).all()


@pytest.mark.parametrize("shape", [(1, 256, 32, 32), (2, 256, 64, 64), (256, 64, 64), (1, 64, 64, 256)])
def test_an_embedding_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError) as caught:
        EncoderOf(lambda inputs: np.zeros(shape, np.float32)).encode(grey_images(1))

    assert f"shape {shape} for 1 image(s), expected (1, 256, 64, 64)" in str(caught.value)


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fits_two(inputs: np.ndarray) -> np.ndarray:
        if len(inputs) > 2:
            raise RuntimeError("out of memory: 8 GiB asked for")
        return brightness(inputs)

    encoder = EncoderOf(fits_two, batch_size=8)
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(grey_images(10, 20, 30, 40, 50))

    assert encoder.batches == [5, 2, 2, 1]
    assert encoder.batch_size == 2
    assert (np.diff(rows[:, 0, 0, 0]) > 0).all()
    assert "Out of memory with 5 images at once; continuing with 2." in caplog.text


def test_no_memory_for_one_image_is_an_error_with_a_way_out() -> None:
    def fits_none(inputs: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory: 8 GiB asked for")

    with pytest.raises(OutOfMemory, match=r"even one image \(out of memory: 8 GiB asked for\).*cpu"):
        EncoderOf(fits_none, batch_size=2).encode(grey_images(10, 20))


def test_a_wrong_image_is_refused_before_anything_is_encoded() -> None:
    encoder = EncoderOf(brightness, batch_size=1)

    with pytest.raises(EncoderError, match="Image 1 of the batch is float64"):
        encoder.encode([*grey_images(10), np.zeros((16, 16, 3))])

    assert encoder.batches == []
