"""Glass: what it covers, in which colours, and how masks follow it and crops."""

import numpy as np
import pytest

from nucseg.data import prepare
from nucseg.errors import ConfigError
from nucseg.views import View, views_named
from nucseg.views.masks import MaskFollower, Masks, draws_for

RNG = np.random.default_rng(0)
IDS = [f"image {number}" for number in range(40)]
GREEN = np.broadcast_to(np.uint8([20, 120, 20]), (90, 130, 3)).copy()


def covered(view: View, sample_id: str, image: np.ndarray = GREEN) -> np.ndarray:
    """(H, W) bool, the pixels that the view changes."""
    return (view.apply(image, sample_id) != image).any(axis=-1)


def glass(folder, text: str = "", variants: int = 1) -> tuple[View, ...]:
    (folder / "mine.toml").write_text(f"variants = {variants}\n[glass]\n{text}")
    return views_named(str(folder / "mine.toml"))


def test_glass_covers_a_tenth_to_two_thirds_and_leaves_the_rest() -> None:
    (first, second) = views_named("glass")

    shares = [covered(view, sample_id).mean() for view in (first, second) for sample_id in IDS]

    # the soft border adds half its width at most
    assert 0.09 < min(shares) < 0.2
    assert 0.6 < max(shares) < 0.75
    assert 0.3 < np.mean(shares) < 0.5
    assert first.described["glass"] == 'Glass 1, {"area": [0.1, 0.67], "black": 0.2, "level": [180.0, 255.0]}'
    assert set(first.described) == {"seed", "variant", "glass"}


@pytest.mark.parametrize(("black", "lowest", "highest"), [(0, 196, 214), (1, 0, 20)])
def test_the_cover_has_the_grey_levels_of_the_recipe(tmp_path, black, lowest, highest) -> None:
    (view,) = glass(tmp_path, f"level = [200, 210]\nblack = {black}")
    for sample_id in IDS[:10]:
        painted = view.apply(GREEN, sample_id)
        opaque = prepared_masks(view, np.ones((90, 130), np.int32), sample_id)
        inside = painted[(opaque.instances == 0) & ~opaque.ignore]
        assert (inside >= lowest).all()
        assert (inside <= highest).all()
        assert np.ptp(inside.astype(int), axis=1).max() <= 12


def prepared_masks(view: View, instances: np.ndarray, sample_id: str) -> Masks:
    """The masks of a view on the native grid."""
    size = (instances.shape[0], instances.shape[1])
    square = np.zeros((max(size),) * 2, np.int32)
    square[: size[0], : size[1]] = instances
    followed = MaskFollower.of(view.described).apply(Masks(square, np.zeros(square.shape, np.bool_), size), sample_id)
    return Masks(followed.instances[: size[0], : size[1]], followed.ignore[: size[0], : size[1]], size)


def test_one_in_five_is_black(tmp_path) -> None:
    views = glass(tmp_path, variants=200)
    dark = [(view.apply(GREEN[:20, :20], "a") < 19).all(axis=-1).any() for view in views]
    assert 0.1 < np.mean(dark) < 0.3


@pytest.mark.parametrize("size", [(90, 130), (512, 512), (700, 500), (40, 33)])
def test_masks_equal_those_prepared_from_covered_native_masks(size) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image[:] = (20, 120, 20)
    instances = RNG.integers(0, 5, size, dtype=np.int32)
    ignore = RNG.random(size) < 0.1
    view = views_named("glass")[0]
    before = prepare(image, instances, ignore)
    for sample_id in IDS[:6]:
        cover = view.recipe.glass.draw(draws_for(0, 1, sample_id))
        opacity = cover.opacity(size, np.arange(size[0]), np.arange(size[1]))
        native = prepare(image, np.where(opacity >= 0.5, 0, instances), ignore | ((opacity > 0) & (opacity < 1)))

        followed = MaskFollower.of(view.described).apply(Masks(before.instances, before.ignore, before.size), sample_id)

        np.testing.assert_array_equal(followed.instances, native.instances)
        np.testing.assert_array_equal(followed.ignore, native.ignore)


def test_the_image_is_covered_where_the_masks_are() -> None:
    view = views_named("glass")[0]
    for sample_id in IDS[:10]:
        masks = prepared_masks(view, np.ones((90, 130), np.int32), sample_id)
        changed = covered(view, sample_id)
        assert changed[(masks.instances == 0) & ~masks.ignore].all()
        assert not changed[(masks.instances == 1) & ~masks.ignore].any()


@pytest.mark.parametrize("side", [256, 512])
def test_masks_of_a_crop_are_those_of_its_image(side) -> None:
    # blocks of four native pixels: the grid of the whole image loses nothing
    blocks = RNG.integers(1, 99, (64, 64), dtype=np.int32)
    instances = np.kron(blocks, np.ones((side // 64,) * 2, np.int32))
    image = np.repeat(instances[..., np.newaxis], 3, axis=-1).astype(np.uint8)
    none = np.zeros((side, side), np.bool_)
    whole = prepare(image, instances, none)
    for view in views_named("crops")[:4]:
        follower = MaskFollower.of(view.described)
        square = follower.crop.draw(draws_for(0, view.number, "a"))
        crop = square(image)
        native = prepare(crop, crop[..., 0].astype(np.int32), np.zeros(crop.shape[:2], np.bool_))

        followed = follower.apply(Masks(whole.instances, whole.ignore, whole.size), "a")

        assert followed.size == native.size
        assert not followed.ignore.any()
        # a pixel whose centre is within half a grid cell of a block's border may come from the neighbour
        assert (followed.instances == native.instances).mean() > (0.9 if side == 512 else 0.99)


def test_the_same_image_is_covered_alike_and_others_differently() -> None:
    first, second = views_named("glass")
    assert np.array_equal(first.apply(GREEN, "a"), first.apply(GREEN, "a"))
    assert not np.array_equal(first.apply(GREEN, "a"), first.apply(GREEN, "b"))
    assert not np.array_equal(first.apply(GREEN, "a"), second.apply(GREEN, "a"))


def test_an_image_of_one_pixel_and_one_larger_than_a_block_can_be_covered() -> None:
    view = views_named("glass")[0]
    assert view.apply(GREEN[:1, :1], "a").shape == (1, 1, 3)
    large = np.broadcast_to(GREEN[0, 0], (700, 900, 3))
    small = covered(view, "a", np.ascontiguousarray(large[::10, ::10]))
    assert covered(view, "a", np.ascontiguousarray(large)).mean() == pytest.approx(small.mean(), abs=0.06)


@pytest.mark.parametrize("text", [{}, {"transform 1": "HEDJitter 1"}, {"orientation": "1"}])
def test_other_views_leave_masks_as_they_are(text) -> None:
    assert MaskFollower.of({"seed": "0", "variant": "1", **text}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("area = [0.5, 0.95]", "glass: area must be from 0.0 to 0.9, got 0.95"),
        ("level = 3", "glass: level must be a range"),
        ("black = 2", "glass: black must be from 0.0 to 1.0"),
        ("gray = 2", "unknown key 'gray'"),
    ],
)
def test_invalid_glass_is_refused(tmp_path, text, message) -> None:
    with pytest.raises(ConfigError, match=message):
        glass(tmp_path, text)


def test_glass_must_be_a_table(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text("glass = 3")
    with pytest.raises(ConfigError, match=r"must be a table, \[glass\]"):
        views_named(str(tmp_path / "mine.toml"))
