"""A run that was trained on one data set, scored on others: real training, real stores, small."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nucseg_cache import EmbeddingNotFound, Key, SampleRow, Store
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.report.stage import report
from tests.pipeline.conftest import SIDE_PX, drawn_embedding, drawn_row

N_AWAY = 4


def away_row(number: int) -> SampleRow:
    return replace(drawn_row(100 + number), stratum="another organ")


def add_store(cache: Path, name: str, *, key: Key | None = None) -> None:
    rows = [away_row(number) for number in range(N_AWAY)]
    preparation = {"side_px": str(SIDE_PX), "stain": "none"}
    store = Store.create(cache / f"{name}.zarr", dataset=name, source="drawn", preparation=preparation, rows=rows)
    if key is not None:
        store.embeddings(key).write(range(N_AWAY), np.stack([drawn_embedding(row) for row in rows]))


@pytest.fixture(scope="module")
def cache(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that runs were trained from, and two more stores: one embedded, one not."""
    cache = tmp_path_factory.mktemp("domains")
    shutil.copytree(trained / "cache", cache, dirs_exist_ok=True)
    (key,) = Store.open(cache / "synthetic.zarr").keys()
    add_store(cache, "away", key=key)
    add_store(cache, "bare")
    return cache


@pytest.fixture
def configure(trained: Path, cache: Path, tmp_path: Path) -> Callable[..., ReportConfig]:
    """Configures a report on trained runs, given by name."""

    def configure(*names: str, **wanted: object) -> ReportConfig:
        runs = tuple(trained / name for name in names)
        given = {"out": tmp_path / "report", "n_images": 0, "n_resamples": 50, "cache": str(cache)}
        return ReportConfig(runs=runs, **{**given, **wanted})

    return configure


def test_a_run_is_scored_on_every_image_of_a_data_set_that_it_never_saw(configure: Callable[..., ReportConfig]) -> None:
    (found,) = report(configure("guided", "plain-f0", datasets=("away",), n_images=1)).summaries

    assert (found.dataset, found.protocol, found.n_images) == ("away", "all images in the store", N_AWAY)
    assert {stratum.name for stratum in found.strata} == {"another organ"}
    assert "trained on synthetic, not on away" in found.notes[0]
    assert [configuration.trained_on for configuration in found.configurations] == ["synthetic", "synthetic"]
    assert "--dataset away" in found.command


def test_an_unguided_run_needs_no_embeddings_and_a_guided_one_says_which_it_needs(
    configure: Callable[..., ReportConfig], tmp_path: Path
) -> None:
    assert report(configure("plain-f0", datasets=("bare",))).summaries[0].n_images == N_AWAY

    both = configure("plain-f0", "guided", datasets=("bare",), out=tmp_path / "both")
    with pytest.raises(EmbeddingNotFound, match=r"bare\.zarr has no embeddings yet, asked for .*random"):
        report(both, lambda *_: pytest.fail("predicted before everything needed was there"))
    assert not (tmp_path / "both").exists()


def test_the_command_prints_the_matrix_and_names_the_page(trained: Path, cache: Path, tmp_path: Path) -> None:
    options = ["--dataset", "synthetic", "--dataset", "away", "--out", str(tmp_path / "m"), "--cache", str(cache)]
    arguments = ["report", str(trained / "guided"), *options, "--device", "cpu"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})

    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "m" / "summary.json").read_text())
    own, across = (summary["matrix"]["guided"][name]["dice"]["value"] for name in ("synthetic", "away"))
    row = next(line for line in result.stdout.splitlines() if line.split()[1:2] == ["guided"])
    assert f"{own:.3f}" in row
    assert f"{across:.3f}" in row
    assert row.count("*") == 1
    assert result.stdout.rstrip().endswith(str(tmp_path / "m" / "report.html"))
    assert (tmp_path / "m" / "away" / "report.html").is_file()
