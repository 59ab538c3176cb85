"""The digest of a configuration stays what it was when the options of a training become more."""

from pathlib import Path

from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.runs.digests import configuration_digest

BEFORE_PHOTOMETRIC = """[train]
dataset = "synthetic"
cache = "cache"
encoder = "vit_b"
precision = "auto"
model = "eunet3plus"
fusion = "xgfb"
width = 8
dropout = 0.3
deep_supervision = false
classification_guided = false
instance_head = "none"
split = "official"
fold = 0
seed = 0
epochs = 3
batch_size = 16
learning_rate = 0.0001
augmentation = "d4"
replay = "corrected"
views = "identity"
schedule = "constant"
mixed_precision = "no"
device = "auto"
preload = "auto"
log = "none"
"""
"""A config.toml as it was written before `train` had the option --photometric."""

RECORDED = "8be45f33f94f1fb4680f2f9a6c9bf72f08f48dfb818d13d8caee4805f23eb80f"
"""Its digest in the inputs.json of that run."""


def read(tmp_path: Path, text: str) -> TrainConfig:
    (tmp_path / "config.toml").write_text(text)
    return resolve(TrainConfig, load_recipe(tmp_path / "config.toml", "train"), {})


def test_a_run_from_before_an_option_counts_as_unchanged(tmp_path: Path) -> None:
    assert configuration_digest(read(tmp_path, BEFORE_PHOTOMETRIC)) == RECORDED


def test_the_value_of_the_new_option_counts(tmp_path: Path) -> None:
    changed = read(tmp_path, BEFORE_PHOTOMETRIC + 'photometric = "stain"\n')

    assert configuration_digest(changed) != RECORDED
