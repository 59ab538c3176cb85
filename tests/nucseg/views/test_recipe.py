"""View recipes: what they may contain, and the errors for anything else."""

from pathlib import Path

import numpy as np
import pytest

from nucseg.errors import ConfigError
from nucseg.views import view_names, views_named
from nucseg.views.crop import Crop
from nucseg.views.recipe import load_recipe, recipe_names

JITTER = '[[transform]]\nname = "HEDJitter"\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_the_built_in_recipes_are_what_their_comments_say() -> None:
    stain, papers, crops = load_recipe("stain"), load_recipe("papers"), load_recipe("crops")

    assert recipe_names() == ("crops", "glass", "laboratories", "papers", "stain")
    assert view_names() == ("identity", "d4", "crops", "glass", "laboratories", "papers", "stain")
    assert crops.crop == Crop((0.35, 1.0))
    assert (stain.crop, papers.crop) == (None, None)
    assert [step.transform.name for step in stain.steps] == ["HEDJitter"]
    assert [step.transform.name for step in papers.steps] == ["RandomGamma", "RandomBrightnessContrast", "CLAHE"]
    assert (stain.variants, papers.variants) == (4, 4)


def test_a_recipe_may_leave_out_what_has_a_default(mine) -> None:
    mine.write_text(JITTER)

    recipe = load_recipe(str(mine))

    assert (recipe.name, recipe.variants, recipe.seed, recipe.steps[0].p) == ("mine", 4, 0, 1.0)
    assert recipe.steps[0].parameters == {"scale": (0.8, 1.2), "shift": (-0.02, 0.02)}
    assert [view.name for view in views_named(str(mine))] == ["mine-1", "mine-2", "mine-3", "mine-4"]


def test_every_variant_changes_an_image_whatever_share_of_images_the_recipe_changes_in_training(mine) -> None:
    image = np.random.default_rng(0).integers(40, 240, (16, 16, 3), dtype=np.uint8)
    mine.write_text("variants = 20\n" + JITTER)
    always = views_named(str(mine))
    mine.write_text("variants = 20\np = 0.1\n" + JITTER)
    rarely = views_named(str(mine))

    assert [view.described for view in rarely] == [view.described for view in always]
    for view, other in zip(rarely, always, strict=True):
        changed = view.apply(image, "a")
        assert not np.array_equal(changed, image)
        np.testing.assert_array_equal(changed, other.apply(image, "a"))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("variants = 0\n" + JITTER, r"variants must be an integer from 1 to 999, got 0"),
        ("variants = true\n" + JITTER, r"variants must be an integer .* got True"),
        ("seed = -1\n" + JITTER, r"seed must be an integer from 0 to 4294967295, got -1"),
        ("p = 2\n" + JITTER, r"mine.toml: p must be from 0.0 to 1.0, got 2"),
        ("sed = 1\n" + JITTER, r"unknown key 'sed'. Did you mean 'seed'\?"),
        ("", r"names no transform\. Add a table \[\[transform\]\] with name = HEDJitter, "),
        ("transform = 3", r"names no transform"),
        ("[[transform]]\np = 1.0", r"transform 1 has no name"),
        (JITTER + '[[transform]]\nname = "Clahe"', r"transform 2: no transform is called 'Clahe'"),
        (JITTER + "p = 1.5", r"\(HEDJitter\): p must be from 0.0 to 1.0, got 1.5"),
        (JITTER + "p = nan", r"p must be a number from 0.0 to 1.0, got nan"),
        (JITTER + "scale = 0.2", r"scale must be a range \[low, high\], got 0.2. The default is \(0.8, 1.2\)"),
        (JITTER + "scale = [1.2, 0.8]", r"scale runs from 1.2 down to 0.8"),
        (JITTER + "scale = [-1, 0.8]", r"scale must be from 0.0 to 4.0, got -1"),
        (JITTER + 'scale = ["a", 0.8]', r"scale must be a number from 0.0 to 4.0, got 'a'"),
        (JITTER + "scales = [1, 2]", r"\(HEDJitter\) has an unknown key 'scales'. Did you mean 'scale'\?"),
        ("[[transform]\n", r"is not TOML"),
        ("crop = 0.5\n" + JITTER, r"crop must be a table, \[crop\] with scale = \[0.35, 1.0\], got 0.5"),
        ("[crop]\nsize = 3\n" + JITTER, r"crop has an unknown key 'size'. Known: scale"),
        ("[crop]\nscale = [0.5, 1.5]\n" + JITTER, r"crop: scale must be from 0.05 to 1.0, got 1.5"),
    ],
)
def test_an_error_says_what_was_expected(mine, written, message) -> None:
    mine.write_text(written)

    with pytest.raises(ConfigError, match=message):
        views_named(str(mine))


@pytest.mark.parametrize(
    "name",
    ["HorizontalFlip", "Rotate", "ElasticTransform", "RandomCrop", "Affine", "D4", "CoarseDropout", "RandomScale"],
)
def test_a_geometric_transform_is_referred_to_the_augmentation(mine, name) -> None:
    mine.write_text(f'[[transform]]\nname = "{name}"')

    with pytest.raises(ConfigError, match=rf"'{name}' moves or covers pixels.*training's augmentation.*HEDJitter"):
        views_named(str(mine))


@pytest.mark.parametrize("name", ["RGBShift", "Downscale", "UnsharpMask", "ToGray"])
def test_any_other_transform_is_unknown(mine, name) -> None:
    mine.write_text(f'[[transform]]\nname = "{name}"')

    with pytest.raises(ConfigError, match=f"no transform is called '{name}'. Known: HEDJitter"):
        views_named(str(mine))


@pytest.mark.parametrize("name", ["identity", "Identity", "d4", "d4-1", "D4x", "stain", "glass"])
def test_reserved_names_are_refused(tmp_path, name) -> None:
    file = tmp_path / f"{name}.toml"
    file.write_text(JITTER)

    with pytest.raises(ConfigError, match="Rename the file"):
        views_named(str(file))


@pytest.mark.parametrize("name", ["my recipe", "v1.2", "ü", "-x"])
def test_names_not_allowed_for_views_are_refused(tmp_path, name) -> None:
    file = tmp_path / f"{name}.toml"
    file.write_text(JITTER)

    with pytest.raises(ConfigError, match=r"letters, digits, _ and - only\. Rename the file"):
        views_named(str(file))


def test_an_unknown_name_suggests_a_known_one(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no views 'stian', and no such file\. Did you mean 'stain'\?"):
        views_named("stian")
    with pytest.raises(ConfigError, match="cannot be read"):
        views_named(str(tmp_path))
