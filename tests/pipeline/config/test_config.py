"""Configurations refuse values that cannot work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucseg.data.splits import split
from nucseg.encoders import check_spec
from nucseg.encoders.student import SIZES as STUDENT_SIZES
from nucseg.errors import ConfigError
from nucseg.replay import geometry_names
from nucseg.views import views_named
from nucseg_cache import UnstorableEmbedding
from nucseg_cache.formats import format_named
from nucseg_pipeline.config import AblateConfig, EmbedConfig, ReportConfig, TrainConfig, default_cache, store_location
from nucseg_pipeline.config.distill import SIZES
from nucseg_pipeline.config.recipe import read_recipe
from nucseg_pipeline.config.train import GEOMETRIES
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.status import find_dataset
from nucseg_pipeline.fetch.catalogue import item_named
from nucseg_pipeline.fidelity.motions import select_motions
from nucseg_pipeline.modelling.model import check_network
from nucseg_pipeline.runs.run import TrainedRun


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("width", 0),
        ("batch_size", -1),
        ("threads", 0),
        ("fold", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("dropout", 1.0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("replay", "exact"),
        ("schedule", "step"),
        ("mixed_precision", "fp8"),
        ("device", "gpu"),
        ("preload", "maybe"),
        ("log", "wandb"),
        ("augmentation", "rotate"),
        ("photometric", "laboratory"),
        ("encoder", ""),
        ("dataset", "../elsewhere"),
        ("dataset", ".hidden"),
        ("dataset", ""),
    ],
)
def test_an_impossible_training_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        TrainConfig(**{"dataset": "synthetic", field: value})


def test_choices_that_are_known_by_name_are_those_of_the_package() -> None:
    assert geometry_names() == GEOMETRIES
    assert tuple(STUDENT_SIZES) == SIZES
    for device in ("auto", "cpu", "mps", "cuda", "cuda:3"):
        assert TrainConfig(dataset="synthetic", device=device).device == device


def test_an_augmentation_from_a_file_is_recorded_in_full(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[transform]]\nname = "Affine"\nrotate = [-5, 5]\n')

    config = TrainConfig(dataset="synthetic", augmentation=str(file))

    assert config.augmentation == '[{"name": "Affine", "rotate": [-5, 5]}]'
    assert TrainConfig(dataset="synthetic", augmentation=config.augmentation) == config


def test_a_photometric_recipe_from_a_file_is_recorded_in_full(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('variants = 2\np = 0.5\n[[transform]]\nname = "WhiteBalance"\nfactor = [0.9, 1.1]\n')

    config = TrainConfig(dataset="synthetic", photometric=str(file))

    assert config.photometric == '{"p": 0.5, "transform": [{"factor": [0.9, 1.1], "name": "WhiteBalance"}]}'
    assert TrainConfig(dataset="synthetic", photometric=config.photometric) == config
    assert TrainConfig(dataset="synthetic", photometric="stain").photometric == "stain"
    assert TrainConfig(dataset="synthetic").photometric == "none"


@pytest.mark.parametrize("name", ["gamma", "RandomGamma", "CLAHE", "colour-jitter", "ColorJitter", "brightness"])
def test_a_photometric_augmentation_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="--photometric, which keeps the cached embedding"):
        TrainConfig(dataset="synthetic", augmentation=name)


def test_a_run_is_named_after_what_is_trained_or_after_its_folder() -> None:
    config = TrainConfig(dataset="nuinsseg", fusion="none", fold=2, seed=7)
    assert config.name == "nuinsseg-eunet3plus-none-f2-s7"
    assert config.folder == Path("runs/nuinsseg-eunet3plus-none-f2-s7")
    assert TrainConfig(dataset="nuinsseg", run=Path("some/where")).name == "where"


@pytest.mark.parametrize(("field", "value"), [("limit", 0), ("batch_size", 0), ("stain", "vahadane"), ("encoder", "")])
def test_an_impossible_embedding_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        EmbedConfig(**{"dataset": "synthetic", field: value})


@pytest.mark.parametrize(
    ("wanted", "name", "stain"),
    [
        ({"dataset": "mine"}, "mine", "none"),
        ({"dataset": "mine", "stain": "macenko"}, "mine@macenko", "macenko"),
        ({"dataset": "mine@macenko"}, "mine@macenko", "macenko"),
        ({"dataset": "mine@macenko", "stain": "macenko"}, "mine@macenko", "macenko"),
        ({"dataset": "slides@2024", "stain": "reinhard"}, "slides@2024@reinhard", "reinhard"),
        ({"dataset": "slides@2024"}, "slides@2024", "none"),
    ],
)
def test_the_stain_stands_in_the_name_of_the_store(wanted: dict[str, Any], name: str, stain: str) -> None:
    config = EmbedConfig(**wanted)

    assert (config.dataset, config.stain) == (name, stain)
    assert EmbedConfig(dataset=name, stain=stain) == config


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"dataset": "nuinsseg@reinhard", "stain": "macenko"}, "--dataset nuinsseg --stain macenko, or --dataset"),
        ({"dataset": "nuinsseg@macenko", "stain": "none"}, "--dataset nuinsseg --stain none, or"),
        ({"dataset": "nuinsseg@macenk"}, "nuinsseg@white, nuinsseg@macenko or nuinsseg@reinhard; nuinsseg alone"),
        ({"dataset": "mine@none"}, "mine@white, mine@macenko or mine@reinhard; mine alone"),
        ({"dataset": "mine@macenko@reinhard"}, "mine@white, mine@macenko or mine@reinhard; mine alone"),
        ({"dataset": "mine", "stain": ""}, "none, white, macenko or reinhard, got ''"),
    ],
)
def test_a_stain_that_contradicts_the_name_is_refused_with_a_way_out(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmbedConfig(**wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"runs": ()}, "at least one run"),
        ({"runs": (Path("runs/a"), Path("runs/../runs/a"))}, "twice"),
        ({"grid": "512"}, "grid must be 256, native or tiles, got '512'"),
        ({"datasets": ("conic", "conic")}, "once, got conic, conic"),
        ({"datasets": ("../conic",)}, "dataset must be a name"),
        ({"source": Path("here")}, "goes with grid native or tiles"),
        ({"source": Path("here"), "grid": "native", "datasets": ("a", "b")}, "goes with grid native or tiles"),
        ({"weights": Path("here.onnx"), "grid": "native"}, "they go with grid tiles, got grid native"),
    ],
)
def test_an_impossible_report_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReportConfig(**{"runs": (Path("runs/a"),), **wanted})


@pytest.mark.parametrize("field", [{"seeds": (0, 1, 0)}, {"datasets": ("conic", "conic")}])
def test_a_table_takes_each_seed_and_data_set_once(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="takes each seed and each data set once"):
        AblateConfig(recipe="fusion", **field)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCSEG_CACHE", "s3://bucket/cache")
    assert default_cache() == TrainConfig(dataset="synthetic").cache == "s3://bucket/cache"
    monkeypatch.delenv("NUCSEG_CACHE")
    assert default_cache().endswith("nucseg")


def test_a_store_lies_in_its_cache_be_it_a_folder_or_a_url() -> None:
    assert store_location("/data/cache", "nuinsseg") == "/data/cache/nuinsseg.zarr"
    assert store_location("s3://bucket/cache/", "nuinsseg") == "s3://bucket/cache/nuinsseg.zarr"


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: TrainConfig(dataset="mine", replay="corected"), "corrected"),
        (lambda: TrainConfig(dataset="mine", schedule="cosin"), "cosine"),
        (lambda: TrainConfig(dataset="mine", log="tensorbord"), "tensorboard"),
        (lambda: TrainConfig(dataset="mine", augmentation="paper"), "papers"),
        (lambda: TrainConfig(dataset="mine", device="cudaa"), "cuda"),
        (lambda: EmbedConfig(dataset="mine", stain="maceko"), "macenko"),
        (lambda: EmbedConfig(dataset="nuinsseg@maceko"), "nuinsseg@macenko"),
        (lambda: EmbedConfig(dataset="mine@reinhart"), "mine@reinhard"),
        (lambda: ReportConfig(runs=(Path("a"),), grid="nativ"), "native"),
        (lambda: check_network(TrainConfig(dataset="mine", model="unet3pls")), "unet3plus"),
        (lambda: check_network(TrainConfig(dataset="mine", fusion="xgbf")), "xgfb"),
        (lambda: check_network(TrainConfig(dataset="mine", activation="swsh")), "swish"),
        (lambda: check_network(TrainConfig(dataset="mine", instance_head="distanc")), "distance"),
        (lambda: check_spec("vitb"), "vit_b"),
        (lambda: check_spec("student", precision="float31"), "float32"),
        (lambda: format_named("f61"), "f16"),
        (lambda: views_named("crop"), "crops"),
        (lambda: split([], dataset="mine", protocol="groupd", fold=0, seed=0), "grouped"),
        (lambda: read_recipe("nuinsseg-cpo"), "nuinsseg-cpu"),
        (lambda: select_motions(("elastc",)), "elastic"),
        (lambda: find_dataset("nuinseg", "nowhere"), "nuinsseg"),
        (lambda: open_source("cryonuse", None), "cryonuseg"),
        (lambda: item_named("vitb"), "vit_b"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(make: Callable[[], object], meant: str) -> None:
    with pytest.raises((ConfigError, UnstorableEmbedding), match=rf"Did you mean '{meant}'\?"):
        make()


def test_a_misspelt_run_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    for name in ("guided", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()

    with pytest.raises(ConfigError, match=r"no such folder\. Did you mean 'guided'\?"):
        TrainedRun.opened(tmp_path / "guidd")
    with pytest.raises(ConfigError, match=rf"It holds runs: name one of them, as in {tmp_path / 'guided'}\."):
        TrainedRun.opened(tmp_path)
