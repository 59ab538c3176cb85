"""Every recipe in the documentation is valid and does what the text says."""

import re
from pathlib import Path

import pytest

from nucseg.photometric import PhotometricRecipe
from nucseg.replay.transforms import Geometry
from nucseg.views import views_named
from nucseg_pipeline.ablate.table_recipe import load_ablation
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
from tests.docs.pages import REPOSITORY

RECIPES = re.findall(r"^```toml\n(.*?)^```", (REPOSITORY / "docs/pages/recipes.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def recipe_with(text: str) -> str:
    (found,) = (recipe for recipe in RECIPES if text in recipe)
    return found


def test_all_recipes_are_tried() -> None:
    kinds = ("[embed]", "one_of", "OpticalDensity", "variants", "[ablation]")

    assert sorted(map(recipe_with, kinds)) == sorted(RECIPES)


def test_stages(file: Path) -> None:
    file.write_text(recipe_with("[embed]"))

    assert resolve(EmbedConfig, load_recipe(str(file), "embed"), {}).dataset == "nuinsseg@macenko"
    assert resolve(TrainConfig, load_recipe(str(file), "train"), {}).dataset == "nuinsseg@macenko"


def test_augmentation(file: Path) -> None:
    file.write_text(recipe_with("one_of"))

    motions = Geometry.named(str(file)).motions(0, 0, [str(number) for number in range(16)], side=64)

    assert len(set(motions.elements)) > 3
    assert 2 < len(motions.mapped) < 14


def test_colours(file: Path) -> None:
    file.write_text(recipe_with("OpticalDensity"))

    config = TrainConfig(dataset="nuinsseg", photometric=str(file))

    steps = PhotometricRecipe.named(config.photometric).steps
    assert [(step.transform.name, step.p) for step in steps] == [("OpticalDensity", 1.0), ("GaussianBlur", 0.2)]


def test_views(file: Path) -> None:
    file.write_text(recipe_with("variants"))

    views = views_named(str(file))
    assert len(views) == 4
    assert views[0].described["transform 1"].startswith("HEDJitter 1, p 1.0")


def test_ablation(file: Path) -> None:
    file.write_text(recipe_with("[ablation]"))

    table = load_ablation(str(file))
    assert len(table.rows) == 3 * 2
    assert table.seeds == (0, 1, 2)
    assert table.folds_of("nuinsseg") == 1
