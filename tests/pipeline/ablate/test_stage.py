"""A table from its recipe: rows that can be run are run, the others say why not, and nothing is done twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.ablate.jobs import JobResult
from nucseg_pipeline.ablate.plan import PlannedRow
from nucseg_pipeline.ablate.stage import AblateCallbacks, AblateResult, ablate
from nucseg_pipeline.ablate.table import TableRow
from nucseg_pipeline.config import AblateConfig
from tests.pipeline.conftest import InThisProcess, add_embeddings, export_encoder

RECIPE = """
[ablation]
title = "Fusion of the embedding"
source = "a paper, table 7"
published = "printed Dice"
datasets = ["synthetic"]
baseline = "alone"
folds = { synthetic = 2 }

[train]
width = 2
epochs = 1
batch_size = 4
learning_rate = 3e-3

[[row]]
name = "alone"
fusion = "none"
published.synthetic = { dice = 0.8, miou = 0.7 }

[[row]]
name = "guided"
fusion = "concat"

[[row]]
name = "large encoder"
encoder = "vit_h"
"""


class Log:
    """Records every call."""

    def __init__(self) -> None:
        self.planned: list[PlannedRow] = []
        self.started: list[str] = []
        self.lines: list[str] = []
        self.ended: list[JobResult] = []

    def callbacks(self) -> AblateCallbacks:
        return AblateCallbacks(
            on_embed=lambda done, total, what: None,
            on_plan=self.planned.append,
            on_start=lambda run, position: self.started.append(position),
            on_output=lambda run, line: self.lines.append(line),
            on_finish=lambda run, result: self.ended.append(result),
            on_score=lambda done, total, what: None,
        )


@dataclass(frozen=True)
class Finished:
    """A table whose trainings are all finished."""

    folder: Path
    encoder: str
    result: AblateResult
    log: Log
    trained: tuple[str, ...]
    """Names of the runs in the order of their training."""


def configure(folder: Path, **wanted: object) -> AblateConfig:
    given: dict[str, object] = {
        "recipe": str(folder / "fusion.toml"),
        "cache": str(folder / "cache"),
        "runs": folder / "runs",
        "out": folder / "out",
        "device": "cpu",
        "threads": 1,
    }
    return AblateConfig(**{**given, **wanted})


@pytest.fixture(scope="module")
def table(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A table of two folds, never to be changed."""
    folder = tmp_path_factory.mktemp("table")
    shutil.copytree(pristine_cache, folder / "cache")
    encoder = export_encoder(folder)
    add_embeddings(folder / "cache", encoder)
    (folder / "fusion.toml").write_text(RECIPE)
    log, runner = Log(), InThisProcess()
    result = ablate(configure(folder, encoder=encoder), log.callbacks(), runner)
    return Finished(folder, encoder, result, log, tuple(runner.trained))


@pytest.fixture
def configured(table: Finished, tmp_path: Path) -> Callable[..., AblateConfig]:
    """Configures a table in the folder of the test, where the runs of `table` are finished."""
    shutil.copytree(table.folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out"))
    return partial(configure, tmp_path, encoder=table.encoder)


def rows_by_name(result: AblateResult) -> dict[str, TableRow]:
    (table,) = result.tables.tables
    return {row.name: row for row in table.rows}


def delete_runs(config: AblateConfig, pattern: str) -> None:
    for folder in config.runs.glob(pattern):
        shutil.rmtree(folder)


def test_every_run_of_a_table_is_trained_once_fold_by_fold(table: Finished) -> None:
    result = table.result

    assert (result.n_trained, result.n_skipped, result.n_failed) == (4, 0, 0)
    assert [name[-5:] for name in table.trained] == ["f0-s0", "f0-s0", "f1-s0", "f1-s0"]
    assert table.log.started == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert table.log.lines == ["epoch 1/1"] * 4


def test_a_finished_table_is_not_trained_again(table: Finished, configured: Callable[..., AblateConfig]) -> None:
    runner = InThisProcess()
    again = ablate(configured(runs=table.folder / "runs", cache=str(table.folder / "cache")), Log().callbacks(), runner)

    assert (again.n_trained, again.n_skipped, again.n_failed) == (0, 4, 0)
    assert runner.trained == []
    assert rows_by_name(again) == rows_by_name(table.result)


def test_the_table_has_the_scores_of_the_report_and_the_published_ones(table: Finished) -> None:
    result = table.result
    rows = rows_by_name(result)
    summary = json.loads((result.folder / "synthetic/summary.json").read_text())
    markdown = (result.folder / "ablation.md").read_text()
    page = result.page.read_text()

    for name in ("alone", "guided"):
        dice = summary["configurations"][name]["metrics"]["dice"]["value"]
        assert rows[name].metrics["dice"].value == dice
        assert f"| {name} | {dice:.3f} (" in markdown
    assert rows["guided"].differences["dice"].difference.value == pytest.approx(
        rows["guided"].metrics["dice"].value - rows["alone"].metrics["dice"].value
    )
    assert rows["alone"].differences == {}
    assert "folds 0, 1" in rows["guided"].repeats
    assert "0.8000 / 0.7000" in markdown
    assert "0.8000 / 0.7000" in page
    assert "printed Dice" in markdown
    assert "| all background | 0.000 |" in markdown
    assert "--device cpu" in summary["command"]
    assert (result.folder / "synthetic/report.html").exists()
    assert 'href="synthetic/report.html"' in page
    assert json.loads((result.folder / "ablation.json").read_text())["tables"]["synthetic"]["n_images"] == 6


def test_a_row_without_its_weights_says_so_and_stops_no_other(table: Finished) -> None:
    result = table.result
    row = rows_by_name(result)["large encoder"]

    assert (row.status, row.metrics, row.published) == ("not run", {}, {})
    assert row.why in (result.folder / "ablation.md").read_text().replace("\\|", "|")
    assert "**not run**" in (result.folder / "ablation.md").read_text()
    assert [bool(planned.why_not) for planned in table.log.planned] == [False, False, True]


def test_a_row_guided_by_random_weights_is_never_run(configured: Callable[..., AblateConfig]) -> None:
    result = ablate(configured(folds=1, encoder="random"), Log().callbacks(), InThisProcess())
    rows = rows_by_name(result)

    assert rows["alone"].status == "done"
    assert rows["guided"].status == "not run"
    assert "random weights" in rows["guided"].why


def test_a_crash_is_reported_and_rows_are_compared_on_their_common_repeats(
    configured: Callable[..., AblateConfig],
) -> None:
    delete_runs(configured(), "*-concat-*-f1-*")
    crashing = InThisProcess(crash=lambda run: True)
    result = ablate(configured(), Log().callbacks(), crashing)
    rows = rows_by_name(result)

    assert (result.n_trained, result.n_skipped, result.n_failed) == (0, 3, 1)
    assert len(crashing.trained) == 1
    assert all(row.repeats == "" and len(row.runs) == 1 for row in (rows["alone"], rows["guided"]))
    assert rows["guided"].why.startswith("1 of 2 runs failed: synthetic-eunet3plus-concat-")
    assert "SIGKILL" in rows["guided"].why
    assert "1 of 2 runs failed" in (result.folder / "ablation.md").read_text()

    second = InThisProcess()
    assert ablate(configured(), Log().callbacks(), second).n_skipped == 3
    assert len(second.trained) == 1


def test_a_row_of_which_nothing_is_left_is_failed_not_missing(configured: Callable[..., AblateConfig]) -> None:
    delete_runs(configured(), "*-none-*")
    result = ablate(configured(folds=1), Log().callbacks(), InThisProcess(crash=lambda run: True))
    rows = rows_by_name(result)

    assert (rows["alone"].status, rows["guided"].status) == ("failed", "done")
    assert rows["guided"].differences == {}
    assert result.tables.tables[0].baseline == "guided"
    assert "**failed**" in (result.folder / "ablation.md").read_text()


def test_two_rows_of_one_configuration_share_its_runs(configured: Callable[..., AblateConfig], tmp_path: Path) -> None:
    (tmp_path / "fusion.toml").write_text(RECIPE + '[[row]]\nname = "alone again"\nfusion = "none"\n')
    runner = InThisProcess()
    rows = rows_by_name(ablate(configured(folds=1), Log().callbacks(), runner))

    assert runner.trained == []
    assert rows["alone again"].same_as == "alone"
    assert rows["alone again"].metrics == rows["alone"].metrics


def test_a_data_set_that_is_not_there_leaves_a_table_that_says_so(
    configured: Callable[..., AblateConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "nowhere"))
    result = ablate(configured(datasets=("conic",)), Log().callbacks(), InThisProcess())

    assert {row.status for row in rows_by_name(result).values()} == {"not run"}
    assert "conic" in rows_by_name(result)["alone"].why
    assert result.page.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    configured: Callable[..., AblateConfig], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    runner = InThisProcess()

    with pytest.raises(ConfigError, match="cannot be written"):
        ablate(configured(out=tmp_path / "file" / "out"), Log().callbacks(), runner)

    assert runner.trained == []


def test_a_finished_run_that_is_damaged_costs_its_row_and_not_the_table(
    configured: Callable[..., AblateConfig],
) -> None:
    (damaged,) = configured().runs.glob("*-concat-*-f0-*")
    (damaged / "rule.json").write_text("no rule")

    result = ablate(configured(folds=1), Log().callbacks(), InThisProcess())
    rows = rows_by_name(result)

    assert (rows["alone"].status, rows["guided"].status) == ("done", "failed")
    assert "rule.json" in rows["guided"].why
    assert (result.n_failed, result.is_complete) == (1, False)


def test_what_cannot_be_scored_ends_in_a_table_that_says_so(configured: Callable[..., AblateConfig]) -> None:
    result = ablate(configured(folds=1, grid="native"), Log().callbacks(), InThisProcess())
    rows = rows_by_name(result)

    assert {rows["alone"].status, rows["guided"].status} == {"failed"}
    assert "cannot be scored" in rows["alone"].why
    assert rows["large encoder"].status == "not run"
    assert result.n_skipped == 2
    assert result.page.exists()
    assert not result.is_complete
