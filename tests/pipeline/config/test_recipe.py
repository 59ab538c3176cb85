"""Recipes override defaults, options override recipes, and a configuration survives being written and read."""

import contextlib
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg_pipeline.config import ReportConfig, TrainConfig
from nucseg_pipeline.config.recipe import STAGES, load_recipe, read_recipe, recipe_names, resolve, to_toml


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.toml"


def test_a_path_that_no_text_file_can_hold_is_refused_by_the_name_of_its_field() -> None:
    config = TrainConfig(dataset="synthetic", weights=Path(os.fsdecode(b"sam-\xff.pth")))
    with pytest.raises(ConfigError, match=r"weights .* not valid UTF-8"):
        to_toml(config)


def test_a_report_survives_being_written_and_read() -> None:
    config = ReportConfig(runs=(Path("runs/a [1]"), Path('runs/"b"\n')), n_images=0, baseline="ü")
    assert resolve(ReportConfig, tomllib.loads(to_toml(config))["report"], {}) == config


def test_a_path_in_a_recipe_may_start_at_the_home_folder(recipe: Path) -> None:
    recipe.write_text("[train]\nweights = '~/sam.pth'\n")
    config = resolve(TrainConfig, load_recipe(recipe, "train"), {"dataset": "synthetic"})
    assert config.weights == Path.home() / "sam.pth"


def test_a_whole_number_for_a_fraction_is_written_as_it_is_read() -> None:
    whole, fraction = (TrainConfig(dataset="synthetic", dropout=value) for value in (0, 0.0))
    assert to_toml(whole) == to_toml(fraction)


def test_a_folder_called_tilde_survives_being_written_and_read() -> None:
    config = TrainConfig(dataset="synthetic", weights=Path("~/sam.pth"))
    assert resolve(TrainConfig, tomllib.loads(to_toml(config))["train"], {}) == config


@pytest.mark.parametrize("name", [name for name in recipe_names() if "ablation" not in read_recipe(name)])
def test_every_recipe_of_the_package_configures_what_it_names(name: str) -> None:
    tables = set(read_recipe(name))

    assert tables in ({"embed", "train"}, {"distill", "record"})
    for stage in tables - {"record"}:
        resolve(STAGES[stage], load_recipe(name, stage), {})


def test_the_package_has_the_recipes_of_the_demonstration_and_of_the_data_sets() -> None:
    assert {"demo", "nuinsseg-cpu", "nuinsseg", "cryonuseg", "conic"} <= set(recipe_names())


def test_options_override_the_recipe_and_the_recipe_overrides_the_defaults(recipe: Path) -> None:
    recipe.write_text("[train]\nepochs = 3\nwidth = 8\n[embed]\nencoder = 'random'\n")
    config = resolve(TrainConfig, load_recipe(recipe, "train"), {"dataset": "nuinsseg", "epochs": 5, "fold": None})
    assert (config.epochs, config.width, config.fold, config.dropout) == (5, 8, 0, 0.3)


def test_a_recipe_sets_nothing_for_a_stage_that_it_does_not_name(recipe: Path) -> None:
    recipe.write_text("[train]\nepochs = 3\n")
    assert load_recipe(recipe, "embed") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[train]\nepoch = 3\n", "'epochs'"),
        ("[trian]\nepochs = 3\n", "'train'"),
        ("epochs = 3\n", "outside a table"),
        ("[train]\nepochs = 'three'\n", "epochs .* whole number"),
        ("[train]\nepochs = true\n", "epochs .* whole number"),
        ("[train]\nepochs = 3.0\n", "epochs .* whole number"),
        ("[train]\nlearning_rate = '1e-4'\n", "learning_rate .* a number"),
        ("[train]\ndeep_supervision = 1\n", "deep_supervision .* true or false"),
        ("[train]\nweights = 3\n", "weights .* path"),
        ('[train]\nweights = "a\\u0000b"\n', "weights .* path"),
        ("[train]\nencoder = ['vit_b']\n", "encoder .* string"),
        ("[report]\nruns = [1]\n", "runs .* path"),
        ("[train]\nepochs = \n", "not TOML"),
        ("[train]\nepochs = 3\nepochs = 4\n", "not TOML"),
        ("[train]\nx = " + "[" * 5000, "not TOML"),
        (b"\xff\xfe\x00", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_way_out(recipe: Path, content: str | bytes, message: str) -> None:
    recipe.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe, "train")


def test_a_recipe_of_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="'nuinsseg-cpu'"):
        load_recipe("nuinseg-cpu", "train")


@pytest.mark.parametrize("name", ["", "a\0b", "/"])
def test_a_recipe_that_cannot_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        load_recipe(name, "train")


def test_a_field_without_a_default_must_be_given() -> None:
    with pytest.raises(ConfigError, match="--dataset"):
        resolve(TrainConfig, {}, {"dataset": None})


@given(content=st.text())
def test_no_text_makes_another_error_than_one_of_ours(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with contextlib.suppress(ConfigError):
        load_recipe(path, "train")
