"""The effect of each photometric transform, and what the draws of photometric variants depend on."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed

from nucseg.photometric.stain_jitter import jitter_stains
from nucseg.photometric.transforms import ALBUMENTATIONS, TRANSFORMS
from nucseg.views import View, views_named

RNG = np.random.default_rng(3)
STAINED = (RNG.random((40, 50, 1)) * [60, 120, 50] + [120, 60, 120]).astype(np.uint8)
"""Many shades of purple."""


def variants(folder: Path, *transforms: str, head: str = "variants = 2") -> tuple[View, ...]:
    """The views of a recipe `mine` of these transforms."""
    file = folder / "mine.toml"
    file.write_text("\n".join([head, *(f"[[transform]]\n{transform}" for transform in transforms)]))
    return views_named(str(file))


def test_a_stain_jitter_that_changes_nothing_gives_the_same_bytes() -> None:
    every_colour = np.arange(256**2 * 3, dtype=np.uint32).astype(np.uint8).reshape(256, 256, 3)

    np.testing.assert_array_equal(jitter_stains(every_colour, [1, 1, 1], [0, 0, 0]), every_colour)


def test_each_stain_is_scaled_and_shifted_as_skimage_measures_it() -> None:
    scale, shift = [1.3, 0.8, 1.1], [0.05, -0.02, 0.03]
    before = rgb2hed(STAINED)
    inside = (before > 0.005).all(axis=-1)  # elsewhere skimage has cut off what is negative

    after = rgb2hed(jitter_stains(STAINED, scale, shift))

    assert inside.sum() > 200
    expected = before * scale + np.asarray(shift) / 6  # skimage's unit is six decades of optical density
    np.testing.assert_allclose(after[inside], expected[inside], atol=0.002)  # half a grey level


def test_a_large_image_is_jittered_like_its_parts() -> None:
    wide = np.tile(STAINED, (20, 14, 1))

    whole = jitter_stains(wide, [1.2, 0.9, 1], [0.01, 0, 0])

    np.testing.assert_array_equal(whole, np.tile(jitter_stains(STAINED, [1.2, 0.9, 1], [0.01, 0, 0]), (20, 14, 1)))


def test_gamma_is_a_power_of_the_light(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "RandomGamma"\ngamma = [0.7, 0.7]')

    expected = 255 * (STAINED / 255) ** 0.7

    assert np.abs(view.apply(STAINED, "a") - expected).max() <= 1


def test_brightness_adds_and_contrast_multiplies(tmp_path) -> None:
    brighter, *_ = variants(
        tmp_path, 'name = "RandomBrightnessContrast"\nbrightness = [0.1, 0.1]\ncontrast = [0.0, 0.0]'
    )
    flatter, *_ = variants(
        tmp_path, 'name = "RandomBrightnessContrast"\nbrightness = [0.0, 0.0]\ncontrast = [-0.5, -0.5]'
    )

    assert np.abs(brighter.apply(STAINED, "a") - (STAINED + 25.5)).max() <= 1
    assert np.ptp(flatter.apply(STAINED, "a")) == pytest.approx(np.ptp(STAINED) / 2, abs=2)


def test_clahe_equalises_the_lightness_like_opencv(tmp_path) -> None:
    cv2 = pytest.importorskip("cv2")
    view, *_ = variants(tmp_path, 'name = "CLAHE"\nclip = [3.0, 3.0]\ntiles = [4, 4]')
    lab = cv2.cvtColor(STAINED, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(4, 4)).apply(np.ascontiguousarray(lab[..., 0]))

    np.testing.assert_array_equal(view.apply(STAINED, "a"), cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def test_the_optical_density_is_scaled(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "OpticalDensity"\nscale = [0.4, 0.4]')

    density = -np.log10(STAINED / 255)

    assert np.abs(view.apply(STAINED, "a") - 255 * 10 ** (-0.4 * density)).max() <= 0.5


def test_the_optical_density_of_black_and_white_stays(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "OpticalDensity"\nscale = [0.3, 0.3]')
    black_and_white = np.repeat(np.uint8([[[0], [255]]]), 3, axis=2)

    np.testing.assert_array_equal(view.apply(black_and_white, "a"), black_and_white)


def test_white_balance_multiplies_each_channel_by_a_factor_of_its_own(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "WhiteBalance"\nfactor = [0.7, 1.6]')
    shades = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)

    changed = view.apply(shades, "a")

    factors = changed[0, 100] / 100
    assert np.ptp(factors) > 0.05
    assert (factors >= 0.7).all()
    assert (factors <= 1.6).all()
    assert np.abs(changed - np.minimum(shades * factors, 255)).max() <= 2  # factors are known to half a level in 100


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_background_moves_towards_white_by_a_share_and_takes_tissue_along(tmp_path, share) -> None:
    tissue, glass = np.array([100, 50, 90]), np.array([200, 220, 240])
    image = np.full((20, 20, 3), tissue, np.uint8)
    image[:4] = glass  # a fifth
    image[0, :10] = 255  # a few pixels that are brighter, such as dust, are not the background
    view, *_ = variants(tmp_path, f'name = "WhiteBackground"\nshare = [{share}, {share}]')

    changed = view.apply(image, "a")

    whiter = glass + share * (255 - glass)
    assert np.abs(changed[2, 0] - whiter).max() <= 0.5
    assert np.abs(changed[10, 0] - tissue * whiter / glass).max() <= 0.5
    assert (changed[0, 0] == 255).all()


def test_blur_is_that_of_scipy(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "GaussianBlur"\nsigma = [1.3, 1.3]')
    none, *_ = variants(tmp_path, 'name = "GaussianBlur"\nsigma = [0.0, 0.0]')

    expected = gaussian_filter(STAINED.astype(float), (1.3, 1.3, 0), mode="mirror")

    assert np.abs(view.apply(STAINED, "a") - expected).max() <= 1
    np.testing.assert_array_equal(none.apply(STAINED, "a"), STAINED)


@pytest.mark.parametrize("quality", [40, 90])
def test_compression_is_that_of_pillow(tmp_path, quality) -> None:
    view, *_ = variants(tmp_path, f'name = "ImageCompression"\nquality = [{quality}, {quality}]')
    file = io.BytesIO()
    Image.fromarray(STAINED).save(file, "JPEG", quality=quality)

    np.testing.assert_array_equal(view.apply(STAINED, "a"), np.asarray(Image.open(file)))


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_keeps_shape_and_type_and_repeats_itself(tmp_path, name) -> None:
    view, *_ = variants(tmp_path, f'name = "{name}"')
    part = np.tile(STAINED, (2, 2, 1))[:70, :90]  # rows that are not contiguous
    before = part.copy()

    changed = view.apply(part, "a")

    assert (changed.shape, changed.dtype) == (part.shape, np.uint8)
    np.testing.assert_array_equal(view.apply(before, "a"), changed)
    np.testing.assert_array_equal(part, before)


@pytest.mark.parametrize("recipe", ["laboratories", "stain", "papers"])
def test_draws_differ_between_variants_and_images_and_do_not_depend_on_their_order(recipe) -> None:
    views = views_named(recipe)
    drawn = [view.apply(STAINED, sample_id).tobytes() for view in views for sample_id in ("a", "b", "c")]

    again = [view.apply(STAINED, sample_id).tobytes() for view in reversed(views) for sample_id in ("c", "b", "a")]

    assert [view.name for view in views] == [f"{recipe}-{number}" for number in range(1, 5)]
    assert all(view.has_own_image for view in views)
    assert again[::-1] == drawn
    assert len(set(drawn)) > len(drawn) // 2


def test_another_process_draws_the_same() -> None:
    here = views_named("stain")[1].apply(STAINED, "human bladder/1")
    program = (
        "import sys, hashlib, numpy as np; from nucseg.views import views_named; "
        f"image = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape({STAINED.shape}); "
        "print(hashlib.sha256(views_named('stain')[1].apply(image, 'human bladder/1').tobytes()).hexdigest())"
    )

    there = subprocess.run([sys.executable, "-c", program], input=STAINED.tobytes(), capture_output=True, check=True)

    assert there.stdout.decode().strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_the_probability_of_one_transform_changes_no_draw_of_another(tmp_path) -> None:
    jitter = 'name = "HEDJitter"'
    neutral = jitter + "\nscale = [1.0, 1.0]\nshift = [0.0, 0.0]"

    always = [view.apply(STAINED, "a") for view in variants(tmp_path, neutral, jitter)]
    never = [view.apply(STAINED, "a") for view in variants(tmp_path, neutral + "\np = 0.0", jitter)]

    np.testing.assert_array_equal(always, never)
    assert (always[0] != STAINED).any()


def test_probability_zero_changes_nothing(tmp_path) -> None:
    never, *_ = variants(tmp_path, 'name = "RandomGamma"\ngamma = [0.5, 0.5]\np = 0.0')

    np.testing.assert_array_equal(never.apply(STAINED, "a"), STAINED)


def test_the_probability_is_the_share_of_changed_images(tmp_path) -> None:
    view, *_ = variants(tmp_path, 'name = "HEDJitter"\np = 0.3\nscale = [2.0, 2.0]')
    dot = STAINED[:2, :2]

    changed = [bool((view.apply(dot, f"image {i}") != dot).any()) for i in range(400)]

    assert 0.2 < np.mean(changed) < 0.4


def test_exactly_what_determines_the_pixels_is_described(tmp_path) -> None:
    jitter = 'name = "HEDJitter"'
    first = variants(tmp_path, jitter)[0].described

    assert first == variants(tmp_path, jitter, head="variants = 9")[0].described
    assert first == variants(tmp_path, jitter + "\np = 1")[0].described
    others = [
        variants(tmp_path, jitter)[1],
        variants(tmp_path, jitter, head="seed = 1")[0],
        variants(tmp_path, jitter + "\np = 0.5")[0],
        variants(tmp_path, jitter + "\nscale = [0.9, 1.2]")[0],
        variants(tmp_path, jitter, 'name = "CLAHE"')[0],
    ]
    assert len({str(first), *(str(other.described) for other in others)}) == 6
    assert "albumentations 2.0.8" in str(others[-1].described)


def test_the_described_version_of_albumentations_is_the_one_installed() -> None:
    from importlib.metadata import version

    assert f"albumentations {version('albumentations')}" == ALBUMENTATIONS
