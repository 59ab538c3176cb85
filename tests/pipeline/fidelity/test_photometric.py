"""Which changes of colour are measured, and what they do to the pixels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg.errors import ConfigError
from nucseg.photometric import PhotometricRecipe
from nucseg.photometric.recipe import recipe_names
from nucseg_pipeline.fidelity.photometric import DEFAULT, RECIPES, colour_names, known_colours, select_colours


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(40, 200, (32, 32, 3), dtype=np.uint8)


def changed(name: str, image: NDArray[np.uint8], image_id: str = "image") -> NDArray[np.float64]:
    (spec,) = select_colours([name])
    return spec.change(0, image_id)(image).astype(np.float64)


def test_by_default_all_recipes_and_a_change_of_each_kind_are_measured() -> None:
    specs = select_colours([])

    assert [spec.name for spec in specs] == [*DEFAULT, *recipe_names()]
    assert {spec.family for spec in specs} == {spec.family for spec in known_colours().values()}


def test_all_means_every_change_and_none_no_change() -> None:
    assert {"all", "none", *(spec.name for spec in select_colours(["all"]))} == set(colour_names())
    assert select_colours(["none"]) == ()
    assert len(select_colours(["stain", "all"])) == len(select_colours(["all"]))


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.7, 1.3])
def test_density_multiplies_the_optical_density(image: NDArray[np.uint8], factor: float) -> None:
    expected = 255 * 10 ** (factor * np.log10(image / 255))

    assert np.abs(changed(f"density x{factor}", image) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("share", [0.10, 0.15])
def test_channels_change_red_and_green_in_opposite_directions(image: NDArray[np.uint8], share: float) -> None:
    expected = image * np.array([1 + share, 1 - share, 1])

    assert np.abs(changed(f"channels {100 * share:.0f} %", image) - expected).max() <= 0.5 + 1e-9


def test_gray_has_the_luma_of_rec_601_in_every_channel(image: NDArray[np.uint8]) -> None:
    expected = image @ np.array([0.299, 0.587, 0.114])

    assert np.abs(changed("gray", image) - expected[..., None]).max() <= 0.51


def test_a_white_background_of_half_density_is_both_in_this_order() -> None:
    image = np.full((10, 10, 3), 200, np.uint8)
    image[:5, :5] = 100

    values = changed("white background, density x0.5", image)

    assert (values[5:] == 255).all()
    assert values[0, 0] == pytest.approx(255 * (round(100 * 255 / 200) / 255) ** 0.5, abs=1)


@pytest.mark.parametrize("name", ["blur 1 px", "blur 2 px", "JPEG 80", "JPEG 50", "CLAHE 2", "contrast +0.2"])
def test_the_stronger_of_two_strengths_changes_an_image_more(image: NDArray[np.uint8], name: str) -> None:
    weaker = {"blur 2 px": "blur 1 px", "JPEG 50": "JPEG 80"}.get(name)

    difference = np.abs(changed(name, image) - image).mean()

    assert difference > (np.abs(changed(weaker, image) - image).mean() if weaker else 0)


def test_a_recipe_changes_an_image_as_the_first_epoch_of_a_training_with_the_same_seed(
    image: NDArray[np.uint8],
) -> None:
    in_training = PhotometricRecipe.named("stain").apply(image, seed=0, epoch=0, sample_id="image")

    assert np.array_equal(changed("stain", image), in_training)
    assert not np.array_equal(changed("stain", image), changed("stain", image, "another image"))


def test_a_file_of_transforms_is_measured_among_the_recipes(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    file = tmp_path / "mine [1].toml"
    file.write_text('[[transform]]\nname = "OpticalDensity"\nscale = [1.0, 1.0]\n')

    (spec,) = select_colours([str(file)])

    assert (spec.name, spec.family) == (str(file), RECIPES)
    assert np.array_equal(spec.change(0, "image")(image), image)


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(ConfigError, match="No change of colour is called 'grey'"):
        select_colours(["grey"])
