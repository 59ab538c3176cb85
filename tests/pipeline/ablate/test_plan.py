"""Before the first training of a table: embeddings, run folders that tables share, a bounded quick profile."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from nucseg.encoders import asked_identity, open_encoder
from nucseg_cache import Key, Store
from nucseg_pipeline.ablate import plan, prerequisites
from nucseg_pipeline.ablate.plan import all_runs, contents_digest, plan_rows, run_folder_name
from nucseg_pipeline.ablate.table_recipe import Ablation, Row
from nucseg_pipeline.config import AblateConfig, EmbedConfig, TrainConfig
from nucseg_pipeline.embed.stage import embed

KEY, OTHER = (Key({"architecture": name, "format": "f16"}) for name in ("onnx", "vit_b"))
TRAINING = TrainConfig(dataset="nuinsseg", cache="cache")


def make_ablation(*rows: Row) -> Ablation:
    return Ablation(
        name="t", title="t", datasets=("synthetic",), baseline=rows[0].name, rows=rows, train={}, folds={"synthetic": 2}
    )


def quietly(*_: object) -> None:
    """A callback that does nothing."""


def make_config(cache: Path, **wanted: object) -> AblateConfig:
    return AblateConfig(**{"recipe": "t", "cache": str(cache), **wanted})  # type: ignore[arg-type]


def test_a_run_is_named_after_what_affects_its_result() -> None:
    name = run_folder_name(TRAINING, KEY, "contents")

    assert name.startswith("nuinsseg-eunet3plus-xgfb-")
    assert name.endswith("-f0-s0")
    for changed in ({"epochs": 7}, {"activation": "relu"}, {"dropout": 0.1}, {"width": 8}, {"split": "grouped"}):
        assert run_folder_name(replace(TRAINING, **changed), KEY, "contents") != name
    assert run_folder_name(TRAINING, OTHER, "contents") != name
    assert run_folder_name(TRAINING, KEY, "other contents") != name
    for free in ({"cache": "elsewhere"}, {"device": "cuda"}, {"threads": 3}, {"encoder": "onnx:b"}, {"preload": "off"}):
        assert run_folder_name(replace(TRAINING, **free), KEY, "contents") == name
    repeat = run_folder_name(replace(TRAINING, fold=3, seed=1), KEY, "contents")
    assert repeat == name.replace("-f0-s0", "-f3-s1")


def test_a_run_on_other_images_is_another_run(cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    before = contents_digest(store)

    store.set_present(0, present=False)
    without = contents_digest(Store.open(cache / "synthetic.zarr"))
    store.set_present(0, present=True)

    assert without != before
    assert contents_digest(Store.open(cache / "synthetic.zarr")) == before


@pytest.fixture
def embed_configs(cache: Path, exported_encoder: str, monkeypatch: pytest.MonkeyPatch) -> list[EmbedConfig]:
    """The configurations that stage one is called with; it writes embeddings without an encoder."""
    seen: list[EmbedConfig] = []

    def embed(config: EmbedConfig, progress: object) -> SimpleNamespace:
        seen.append(config)
        store = Store.open(cache / "synthetic.zarr", mode="r+")
        identity = asked_identity(config.encoder)
        key = Key({**identity, "precision": "float32", "format": "f16"})
        embeddings = store.embeddings(key, recorded={})
        embeddings.write(range(store.n_rows), np.ones((store.n_rows, 256, 64, 64), np.float16))
        return SimpleNamespace(n_encoded=store.n_rows)

    monkeypatch.setattr(prerequisites, "embed", embed)
    return seen


def test_only_the_first_row_that_needs_embeddings_has_them_made(
    cache: Path, exported_encoder: str, embed_configs: list[EmbedConfig]
) -> None:
    config = make_config(cache, encoder=exported_encoder, device="cpu")
    rows = [Row("alone", {"fusion": "none"}), Row("concat", {"fusion": "concat"}), Row("xgfb", {})]

    planned = plan_rows(make_ablation(*rows), "synthetic", config, quietly)

    assert [row.n_encoded for row in planned] == [0, 12, 0]
    assert [row.why_not for row in planned] == ["", "", ""]
    assert [config.encoder for config in embed_configs] == [exported_encoder]


def test_a_row_whose_weights_are_nowhere_says_so(
    cache: Path, exported_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(config: EmbedConfig, progress: object) -> None:
        open_encoder(config.encoder, weights=config.weights)

    monkeypatch.setattr(prerequisites, "embed", embed)
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(cache / "nowhere"))
    config = make_config(cache, encoder=exported_encoder, weights=cache / "of the other")
    row = Row("large", {"encoder": "vit_h"})

    (planned,) = plan_rows(make_ablation(row), "synthetic", config, quietly)

    assert planned.runs == ()
    assert "sam_vit_h_4b8939.pth" in planned.why_not


def test_missing_weights_are_reported_before_images_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "nowhere"))
    embed = Mock()
    monkeypatch.setattr(prerequisites, "embed", embed)

    (planned,) = plan_rows(make_ablation(Row("large", {})), "synthetic", make_config(tmp_path / "new"), quietly)

    assert "No weights for vit_b" in planned.why_not
    embed.assert_not_called()


def test_a_stain_has_a_store_of_its_own(cache: Path, exported_encoder: str, embed_configs: list[EmbedConfig]) -> None:
    config = make_config(cache, encoder=exported_encoder, stain="macenko")
    rows = [Row("all", {}), Row("own", {}, stain="reinhard"), Row("raw", {}, stain="none")]

    planned = plan_rows(make_ablation(*rows), "synthetic", config, quietly)

    assert [row.dataset for row in planned] == ["synthetic@macenko", "synthetic@reinhard", "synthetic"]
    assert [(config.dataset, config.stain) for config in embed_configs[:2]] == [
        ("synthetic@macenko", "macenko"),
        ("synthetic@reinhard", "reinhard"),
    ]


@pytest.mark.parametrize(("own", "dataset"), [("", "synthetic@macenko"), ("none", "synthetic")])
def test_a_stain_in_the_data_sets_name_is_for_rows_that_name_none(cache: Path, own: str, dataset: str) -> None:
    rows = [Row("row", {"fusion": "none"}, stain=own)]

    (planned,) = plan_rows(make_ablation(*rows), "synthetic@macenko", make_config(cache), quietly)

    assert planned.dataset == dataset


def test_a_row_with_an_unknown_network_is_reported_before_anything_is_trained(cache: Path) -> None:
    rows = [Row("unet", {"model": "unett", "fusion": "none"}), Row("eunet", {"fusion": "none"})]

    wrong, right = plan_rows(make_ablation(*rows), "synthetic", make_config(cache), quietly)

    assert "Model 'unett' is not known" in wrong.why_not
    assert (bool(right.runs), right.n_parameters > 0) == (True, True)


def test_a_row_that_would_be_tested_on_other_images_is_reported_before_anything_is_trained(cache: Path) -> None:
    rows = [Row("official", {"fusion": "none"}), Row("other", {"fusion": "none", "split": "paper"})]

    first, second = plan_rows(make_ablation(*rows), "synthetic", make_config(cache), quietly)

    assert first.runs
    assert second.runs == ()
    assert "other images than the row 'official'" in second.why_not


def test_format_and_precision_of_a_row_are_what_is_embedded(
    cache: Path, exported_encoder: str, embed_configs: list[EmbedConfig]
) -> None:
    rows = [Row("f32", {"format": "f32"}), Row("bf16", {"precision": "bfloat16"})]

    plan_rows(make_ablation(*rows), "synthetic", make_config(cache, encoder=exported_encoder), quietly)

    assert [(config.format, config.precision) for config in embed_configs] == [("f32", "auto"), ("f16", "bfloat16")]


def test_all_folds_of_a_quick_row_are_trained_alike(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([(20, 4), (22, 4), (28, 4)])

    def parts(store: Store, config: TrainConfig) -> SimpleNamespace:
        n_train, n_validation = next(sizes)
        return SimpleNamespace(train=("t",) * n_train, validation=("v",) * n_validation, test=())

    monkeypatch.setattr(plan, "make_split", parts)
    config = make_config(cache, quick=True, folds=3)

    (planned,) = plan_rows(make_ablation(Row("row", {"fusion": "none"})), "synthetic", config, quietly)

    assert {run.epochs for run in planned.runs} == {25}


def test_images_that_an_interrupted_embed_has_left_out_are_brought_in_first(tmp_path: Path) -> None:
    folder, cache = tmp_path / "slides", tmp_path / "cache"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(pixels[..., 0] // 128).save(folder / "masks" / f"{number}.png")
    config = EmbedConfig(dataset="mine", source=folder, encoder="none", cache=str(cache))
    embed(replace(config, limit=2), quietly)

    plan_rows(make_ablation(Row("row", {"fusion": "none"})), "mine", make_config(cache), quietly)

    assert Store.open(cache / "mine.zarr").n_rows == 6


def test_a_row_of_an_option_waits_for_it(cache: Path, exported_encoder: str, embed_configs: list[EmbedConfig]) -> None:
    row = Row("own encoder", {"fusion": "concat"}, only_with="encoder")
    config = make_config(cache)

    (waiting,) = plan_rows(make_ablation(row), "synthetic", config, quietly)
    (served,) = plan_rows(make_ablation(row), "synthetic", replace(config, encoder=exported_encoder), quietly)

    assert "--encoder" in waiting.why_not
    assert served.runs


def test_folds_are_as_many_as_asked_and_as_the_protocol_has(cache: Path) -> None:
    row = Row("alone", {"fusion": "none"})
    for asked, n_runs in ((1, 1), (2, 2), (99, 5)):
        config = make_config(cache, folds=asked)
        (planned,) = plan_rows(make_ablation(row), "synthetic", config, quietly)
        assert len(planned.runs) == n_runs


def test_runs_are_trained_fold_by_fold_and_shared_ones_once(cache: Path) -> None:
    rows = [
        Row("alone", {"fusion": "none"}),
        Row("again", {"fusion": "none"}),
        Row("relu", {"fusion": "none", "activation": "relu"}),
    ]
    config = make_config(cache, folds=2)
    planned = plan_rows(make_ablation(*rows), "synthetic", config, quietly)

    runs = all_runs(planned)

    assert [(run.fold, run.activation) for run in runs] == [(0, None), (0, "relu"), (1, None), (1, "relu")]


@pytest.mark.parametrize(
    ("n_train", "n_validation", "epochs", "epoch_images", "validation_images"),
    [
        (84, 15, 10, None, None),
        (101, 31, 10, 100, 30),
        (4000, 600, 10, 100, 30),
        (20, 4, 25, None, None),
        (3, 1, 100, None, None),
    ],
)
def test_the_quick_profile_bounds_the_images_of_any_data_set(
    monkeypatch: pytest.MonkeyPatch,
    n_train: int,
    n_validation: int,
    epochs: int,
    epoch_images: int | None,
    validation_images: int | None,
) -> None:
    parts = SimpleNamespace(train=("t",) * n_train, validation=("v",) * n_validation)
    monkeypatch.setattr(plan, "make_split", lambda store, config: parts)

    quick = plan._quick(replace(TRAINING, **plan.QUICK), store=None)  # type: ignore[arg-type]

    assert (quick.epochs, quick.epoch_images, quick.validation_images) == (epochs, epoch_images, validation_images)


def test_the_quick_profile_stays_below_the_recipe_of_a_row(cache: Path) -> None:
    row = Row("narrow", {"fusion": "none", "width": 2})
    config = make_config(cache, quick=True)

    (planned,) = plan_rows(make_ablation(row), "synthetic", config, quietly)
    (run,) = planned.runs

    assert (run.width, run.batch_size) == (2, plan.QUICK["batch_size"])
