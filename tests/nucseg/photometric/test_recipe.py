"""Photometric recipes of a training: what they may contain, and what their draws depend on."""

import json
from pathlib import Path

import numpy as np
import pytest

from nucseg.errors import ConfigError
from nucseg.photometric import PhotometricRecipe, photometric_names
from nucseg.views import view_names

IMAGE = np.random.default_rng(5).integers(40, 240, (24, 20, 3), dtype=np.uint8)
BALANCE = '[[transform]]\nname = "WhiteBalance"\nfactor = [0.5, 0.9]\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_none_changes_nothing() -> None:
    assert photometric_names() == ("none", "laboratories", "papers", "stain")
    assert PhotometricRecipe.named("none").apply(IMAGE, 0, 0, "a") is IMAGE


@pytest.mark.parametrize("name", ["laboratories", "papers", "stain"])
def test_draws_depend_on_seed_epoch_and_id_alone(name: str) -> None:
    cases = [(seed, epoch, sample_id) for seed in (0, 1) for epoch in (0, 1, 2) for sample_id in "abcdef"]
    recipe, again = PhotometricRecipe.named(name), PhotometricRecipe.named(name)
    before = IMAGE.copy()

    drawn = [recipe.apply(IMAGE, *case).tobytes() for case in cases]

    assert [again.apply(IMAGE, *case).tobytes() for case in reversed(cases)] == drawn[::-1]
    assert len(set(drawn)) > len(cases) // 3
    np.testing.assert_array_equal(IMAGE, before)


def test_laboratories_leaves_about_half_of_the_images_as_they_are() -> None:
    recipe = PhotometricRecipe.named("laboratories")

    unchanged = [recipe.apply(IMAGE, 0, epoch, str(number)) is IMAGE for epoch in range(20) for number in range(20)]

    assert 0.43 < np.mean(unchanged) < 0.57


def test_laboratories_makes_a_dark_image_as_bright_as_those_of_other_laboratories() -> None:
    dark = np.random.default_rng(0).normal((116, 69, 98), 25, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    recipe = PhotometricRecipe.named("laboratories")

    means = [recipe.apply(dark, 0, 0, str(number)).mean() for number in range(60)]

    assert min(means) < 100
    assert max(means) > 190


def test_a_file_of_views_is_used_without_its_variants_and_seed(mine: Path) -> None:
    mine.write_text("variants = 3\nseed = 7\n" + BALANCE)

    recipe = PhotometricRecipe.named(str(mine))

    assert json.loads(recipe.text) == {"transform": [{"name": "WhiteBalance", "factor": [0.5, 0.9]}]}
    assert PhotometricRecipe.named(recipe.text) == recipe
    assert (recipe.apply(IMAGE, 0, 0, "a") < IMAGE).all()


def test_p_is_the_share_of_images_that_are_changed(mine: Path) -> None:
    mine.write_text("p = 0.3\n" + BALANCE)
    recipe = PhotometricRecipe.named(str(mine))

    changed = [recipe.apply(IMAGE, 0, 0, str(number)) is not IMAGE for number in range(400)]

    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[crop]\nscale = [0.5, 1.0]\n" + BALANCE, r"mine.toml has a table \[crop\].*Remove the table"),
        ("[glass]\narea = [0.1, 0.5]\n" + BALANCE, r"mine.toml has a table \[glass\].*Remove the table"),
        ("p = 1.5\n" + BALANCE, r"mine.toml: p must be from 0.0 to 1.0, got 1.5"),
        ("share = 1\n" + BALANCE, r"unknown key 'share'. Known: p, transform"),
        ("", r"mine.toml names no transform"),
        (BALANCE + '[[transform]]\nname = "Affine"', r"'Affine' moves or covers pixels.*--augmentation"),
        ("[[transform]\n", r"mine.toml is not TOML"),
    ],
)
def test_an_error_says_what_was_expected(mine: Path, written: str, message: str) -> None:
    mine.write_text(written)

    with pytest.raises(ConfigError, match=message):
        PhotometricRecipe.named(str(mine))


def test_an_unknown_name_suggests_a_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no photometric recipe 'laboratory', and no such file\. Did you mean 'lab"):
        PhotometricRecipe.named("laboratory")
    for name in set(view_names()) - {"identity", "d4", *photometric_names()}:
        with pytest.raises(ConfigError, match=rf"recipe '{name}', .*{name} is a recipe of --views.*Known: none, lab"):
            PhotometricRecipe.named(name)
    with pytest.raises(ConfigError, match=r"no photometric recipe '', .*Known: none, laboratories"):
        PhotometricRecipe.named("")
    with pytest.raises(ConfigError, match="cannot be read"):
        PhotometricRecipe.named(str(tmp_path))
    with pytest.raises(ConfigError, match="neither a file nor JSON"):
        PhotometricRecipe.named('{"transform"')
