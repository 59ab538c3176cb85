"""The recipes of tables: those of the package hold the papers' numbers, and a wrong one says what is wrong."""

from pathlib import Path

import pytest

from nucseg.errors import ConfigError
from nucseg.models import FUSIONS, MODELS
from nucseg_pipeline.ablate.table_recipe import load_ablation
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, read_recipe, recipe_names

TABLES = [name for name in recipe_names() if "ablation" in read_recipe(name)]

PUBLISHED = {
    "models": {
        "U-Net": ((0.7371, 0.6100), (0.7970, 0.6781), (0.7353, 0.6214)),
        "DDU-Net": ((0.8143, 0.6822), (0.7154, 0.6133), (0.8270, 0.7347)),
        "U-Net3+": ((0.7780, 0.6432), (0.7844, 0.7261), (0.8474, 0.7992)),
        "eU-Net3+ (w/o SAM)": ((0.8401, 0.7644), (0.8307, 0.8163), (0.8966, 0.8539)),
        "Guided eU-Net3+ (w/ SAM)": ((0.8942, 0.8164), (0.9399, 0.8938), (0.9351, 0.8869)),
    },
    "activations": {
        "ReLU": ((0.7780,), (0.7844,), (0.8474,)),
        "LeakyReLU": ((0.7931,), (0.8012,), (0.8567,)),
        "Swish": ((0.7583,), (0.7721,), (0.8439,)),
        "GLU": ((0.8401,), (0.8307,), (0.8966,)),
    },
    "fusion": {
        "without SAM": ((0.8401,), (0.8307,), (0.8966,)),
        "plain concatenation": ((0.8235,), (0.8146,), (0.8918,)),
        "X-GFB": ((0.8942,), (0.9399,), (0.9351,)),
        "X-GFB, gate only": (),
        "multiscale": (),
    },
    "encoders": {
        "ViT-B": ((0.8942,), (0.9399,), (0.9351,)),
        "ViT-L": ((0.8745,), (0.8918,), (0.9072,)),
        "ViT-H": ((0.8731,), (0.8867,), (0.8917,)),
        "encoder of --encoder": (),
    },
}
"""Paper A, table 1, and paper B, tables 2 to 4: for each data set Dice and, where it is printed, mIoU."""

ROW = '[[row]]\nname = "a"\n'


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_table_of_the_papers_holds_their_rows_and_numbers(name: str) -> None:
    ablation = load_ablation(name)

    found = {
        row.name: tuple(tuple(row.published[d].values()) for d in ("cryonuseg", "nuinsseg", "conic") if row.published)
        for row in ablation.rows
    }

    assert found == PUBLISHED[name]
    assert "paper" in ablation.source
    assert "weighted" in ablation.published_note


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_train_as_published_unless_told_otherwise(name: str) -> None:
    ablation = load_ablation(name)

    for row in ablation.rows:
        training = TrainConfig(dataset="nuinsseg", **{**ablation.train, **row.settings})
        assert (training.learning_rate, training.batch_size, training.dropout) == (1e-4, 16, 0.3)
        assert (training.epochs, training.width, training.schedule) == (50, 32, "constant")
        assert training.model in MODELS
        assert training.fusion in FUSIONS


@pytest.mark.parametrize("name", ["nuinsseg", "cryonuseg", "conic"])
def test_the_recipe_of_a_data_set_is_as_published_with_normalised_stain(name: str) -> None:
    training = TrainConfig(**load_recipe(name, "train"))  # type: ignore[arg-type]

    assert load_recipe(name, "embed")["stain"] == "macenko"
    assert training.dataset == f"{name}@macenko"
    assert (training.learning_rate, training.batch_size, training.dropout, training.epochs) == (1e-4, 16, 0.3, 50)
    assert (training.model, training.fusion, training.encoder, training.width) == ("eunet3plus", "xgfb", "vit_b", 32)


def test_a_grid_has_a_row_for_every_combination(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(
        '[ablation]\ndatasets = ["nuinsseg"]\n[grid]\nmodel = ["unet", "eunet3plus"]\nwidth = [8, 16]\n'
        'stain = ["none", "macenko"]\n'
    )

    rows = load_ablation(str(tmp_path / "t.toml")).rows

    assert len(rows) == 8
    assert rows[0].name == "unet, width 8, none"
    assert (rows[-1].settings, rows[-1].stain) == ({"model": "eunet3plus", "width": 16}, "macenko")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nwidth = 8\n", r"has no \[ablation\]"),
        ("[ablation]\n", "has no rows"),
        ("[ablation]\n[[row]]\nfusion = 'none'\n", "row 1 has no name"),
        ("[ablation]\n" + ROW + ROW, "two rows are called 'a'"),
        ("[ablation]\nbaseline = 'b'\n" + ROW, "baseline 'b' is not a row. Known: a"),
        ("[ablation]\nbase = 'a'\n" + ROW, "Unknown name 'base'.*'baseline'"),
        ("[ablation]\n[table]\n" + ROW, "Unknown name 'table'"),
        ("[ablation]\nfolds = { nuinsseg = 0 }\n" + ROW, "folds.*0"),
        ("[ablation]\nfolds = 5\n" + ROW, "folds.*got 5"),
        ("[ablation]\nseeds = ['a']\n" + ROW, "seeds.*list of numbers"),
        ("[ablation]\nseeds = [0, -1]\n" + ROW, r"\[ablation\]: .*seed"),
        ("[ablation]\ndatasets = ['../x']\n" + ROW, r"\[ablation\]: .*'\.\./x'"),
        ("[ablation]\ndatasets = 'nuinsseg'\n" + ROW, "datasets.*list of names"),
        ("[ablation]\n" + ROW + "fusoin = 'none'\n", "Unknown key 'fusoin'.*row 1.*'fusion'"),
        ("[ablation]\n" + ROW + "fold = 1\n", "'fold'.*a table sets it itself"),
        ("[ablation]\n" + ROW + "width = 'wide'\n", "width.*whole number"),
        ("[ablation]\n" + ROW + "stain = 'blue'\n", "stain.*macenko.*'blue'"),
        ("[ablation]\n" + ROW + "published.nuinsseg = { f1 = 0.5 }\n", "published.nuinsseg.*f1"),
        ("[ablation]\n[grid]\nwidth = 8\n", "list of values"),
        ("[ablation]\n[grid]\nwidth = []\n", "list of values"),
        ("[ablation]\nrow = 3\n", "Unknown name 'row'"),
        ("[ablation]\n" + ROW + "published = 3\n", "published in .* must be data sets with their scores, got 3"),
        ("ablation = 3\n" + ROW, "ablation must be a table, \\[ablation\\], got 3"),
        ("[ablation]\ntitle = 3\n" + ROW, "title in .* must be a string, got 3"),
    ],
)
def test_a_recipe_that_makes_no_table_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.toml").write_text(text)

    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_ablation(str(tmp_path / "t.toml"))
