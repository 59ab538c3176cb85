"""Views in other orientations: exactly the moved pixels, aligned with the prepared sample and the encoder's input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nucseg.data import prepare
from nucseg.encoders.preprocess import to_input
from nucseg.replay import d4
from nucseg.views import views_named
from nucseg.views.orientation import PADDING

BY_NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "d4-1": np.fliplr,
    "d4-2": np.flipud,
    "d4-3": lambda image: np.rot90(image, 2),
    "d4-4": lambda image: image.swapaxes(0, 1),
    "d4-5": lambda image: np.rot90(image, 1),
    "d4-6": lambda image: np.rot90(image, -1),
    "d4-7": lambda image: np.rot90(image, 2).swapaxes(0, 1),
}
VIEWS = views_named("d4")
by_name = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


def smooth_image(height: int, width: int) -> np.ndarray:
    """Broad waves without any symmetry, brighter than the padding."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 31 + c) + np.cos(y / 23 - c) + x / width - y / height / 2 for c in range(3)]
    return np.stack([190 + 15 * wave for wave in waves], axis=-1).astype(np.uint8)


@by_name
def test_the_pixels_of_a_square_image_are_moved_as_by_numpy(view) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 17, 3), dtype=np.uint8)

    moved = view.apply(image, "any")

    assert moved.flags.c_contiguous
    np.testing.assert_array_equal(moved, BY_NUMPY[view.name](image))


def test_there_are_seven_other_orientations() -> None:
    assert [view.name for view in VIEWS] == list(BY_NUMPY)
    assert not any(view.has_own_image for view in VIEWS)
    assert len({str(view.described) for view in VIEWS}) == 7
    assert views_named("identity") == ()


@by_name
@pytest.mark.parametrize("size", [(200, 320), (320, 256)])
def test_preparing_a_view_equals_moving_the_prepared_sample(view, size) -> None:
    image, nothing = smooth_image(*size), np.zeros(size, np.int32)
    sample = prepare(image, nothing, nothing > 0)

    square = view.apply(image, "any")
    prepared = prepare(square, np.zeros(square.shape[:2], np.int32), np.zeros(square.shape[:2], bool)).image

    moved = d4.apply(torch.from_numpy(sample.image).movedim(-1, 0), view.element).movedim(0, -1).numpy()
    ignored = d4.apply(torch.from_numpy(sample.ignore), view.element).numpy()
    edge = np.abs(np.diff(ignored.astype(int), axis=0, prepend=ignored[:1])) + np.abs(
        np.diff(ignored.astype(int), axis=1, prepend=ignored[:, :1])
    )
    by_the_edge = torch.nn.functional.max_pool2d(torch.from_numpy(edge)[None].float(), 5, 1, 2)[0].numpy() > 0
    assert square.shape[:2] == (320, 320)
    assert np.all(prepared[ignored & ~by_the_edge] == PADDING)
    difference = np.abs(prepared.astype(int) - moved)[~ignored & ~by_the_edge]
    assert difference.max() <= 2
    assert np.abs(moved.astype(int) - sample.image).max() > 20  # it does move


@by_name
@pytest.mark.parametrize("size", [(200, 320), (320, 256), (64, 64)])
def test_the_encoders_input_of_a_view_is_that_of_the_image_moved(view, size) -> None:
    image = smooth_image(*size)

    seen = torch.from_numpy(to_input(view.apply(image, "any")))

    on_grid = [
        torch.nn.functional.avg_pool2d(x, 16) for x in (seen, d4.apply(torch.from_numpy(to_input(image)), view.element))
    ]
    assert on_grid[0].shape == (3, 64, 64)
    difference = (on_grid[0] - on_grid[1]).abs()
    assert difference.max() < 0.15  # of a cell that the image's edge cuts; the image is 1 above the padding
    assert difference.mean() < 0.01
