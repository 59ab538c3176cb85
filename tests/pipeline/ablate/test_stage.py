"""A table from its recipe: rows that can be run are run, the others say why not, and nothing is done twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.ablate.jobs import JobResult
from nucseg_pipeline.ablate.plan import PlannedRow
from nucseg_pipeline.ablate.stage import AblateCallbacks, AblateResult, ablate
from nucseg_pipeline.ablate.table import TableRow
from nucseg_pipeline.config import AblateConfig

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


@pytest.fixture
def asked(real_cache: Path, exported_encoder: str, tmp_path: Path) -> Callable[..., AblateConfig]:
    (tmp_path / "fusion.toml").write_text(RECIPE)

    def configure(**wanted: object) -> AblateConfig:
        given: dict[str, object] = {
            "recipe": str(tmp_path / "fusion.toml"),
            "cache": str(real_cache),
            "encoder": exported_encoder,
            "runs": tmp_path / "runs",
            "out": tmp_path / "out",
            "device": "cpu",
            "threads": 1,
        }
        return AblateConfig(**{**given, **wanted})

    return configure


def rows_by_name(result: AblateResult) -> dict[str, TableRow]:
    (table,) = result.tables.tables
    return {row.name: row for row in table.rows}


def test_a_table_is_made_once_and_costs_nothing_again(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    first, again, log = in_this_process(), in_this_process(), Log()
    result = ablate(asked(), log.callbacks(), first)
    repeated = ablate(asked(), Log().callbacks(), again)

    assert (result.n_trained, result.n_skipped, result.n_failed) == (4, 0, 0)
    assert (repeated.n_trained, repeated.n_skipped, repeated.n_failed) == (0, 4, 0)
    assert [name[-5:] for name in first.trained] == ["f0-s0", "f0-s0", "f1-s0", "f1-s0"]
    assert again.trained == []
    assert log.started == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert log.lines == ["epoch 1/1"] * 4
    assert rows_by_name(result) == rows_by_name(repeated)


def test_the_table_has_the_scores_of_the_report_and_the_published_ones(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    result = ablate(asked(), Log().callbacks(), in_this_process())
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


def test_a_row_without_its_weights_says_so_and_stops_no_other(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    log = Log()
    result = ablate(asked(folds=1), log.callbacks(), in_this_process())
    row = rows_by_name(result)["large encoder"]

    assert (row.status, row.metrics, row.published) == ("not run", {}, {})
    assert row.why in (result.folder / "ablation.md").read_text().replace("\\|", "|")
    assert "**not run**" in (result.folder / "ablation.md").read_text()
    assert [bool(planned.why_not) for planned in log.planned] == [False, False, True]


def test_a_row_guided_by_random_weights_is_never_run(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    result = ablate(asked(folds=1, encoder="random"), Log().callbacks(), in_this_process())
    rows = rows_by_name(result)

    assert rows["alone"].status == "done"
    assert rows["guided"].status == "not run"
    assert "random weights" in rows["guided"].why


def test_a_crash_is_reported_and_rows_are_compared_on_their_common_repeats(
    asked: Callable[..., AblateConfig],
    in_this_process: type[Any],
) -> None:
    crashing = in_this_process(crash=lambda run: run.fusion == "concat" and run.fold == 1)
    result = ablate(asked(), Log().callbacks(), crashing)
    rows = rows_by_name(result)

    assert (result.n_trained, result.n_failed) == (3, 1)
    assert len(crashing.trained) == 4
    assert all(row.repeats == "" and len(row.runs) == 1 for row in (rows["alone"], rows["guided"]))
    assert rows["guided"].why.startswith("1 of 2 runs failed: synthetic-eunet3plus-concat-")
    assert "SIGKILL" in rows["guided"].why
    assert "1 of 2 runs failed" in (result.folder / "ablation.md").read_text()

    second = in_this_process()
    assert ablate(asked(), Log().callbacks(), second).n_skipped == 3
    assert len(second.trained) == 1


def test_a_row_of_which_nothing_is_left_is_failed_not_missing(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    result = ablate(asked(folds=1), Log().callbacks(), in_this_process(crash=lambda run: run.fusion == "none"))
    rows = rows_by_name(result)

    assert (rows["alone"].status, rows["guided"].status) == ("failed", "done")
    assert rows["guided"].differences == {}
    assert result.tables.tables[0].baseline == "guided"
    assert "**failed**" in (result.folder / "ablation.md").read_text()


def test_two_rows_of_one_configuration_share_its_runs(
    asked: Callable[..., AblateConfig], in_this_process: type[Any], tmp_path: Path
) -> None:
    (tmp_path / "fusion.toml").write_text(RECIPE + '[[row]]\nname = "alone again"\nfusion = "none"\n')
    runner = in_this_process()
    rows = rows_by_name(ablate(asked(folds=1), Log().callbacks(), runner))

    assert len(runner.trained) == 2
    assert rows["alone again"].same_as == "alone"
    assert rows["alone again"].metrics == rows["alone"].metrics


def test_a_data_set_that_is_not_there_leaves_a_table_that_says_so(
    asked: Callable[..., AblateConfig], in_this_process: type[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "nowhere"))
    result = ablate(asked(datasets=("conic",)), Log().callbacks(), in_this_process())

    assert {row.status for row in rows_by_name(result).values()} == {"not run"}
    assert "conic" in rows_by_name(result)["alone"].why
    assert result.page.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    asked: Callable[..., AblateConfig], in_this_process: type[Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    runner = in_this_process()

    with pytest.raises(ConfigError, match="cannot be written"):
        ablate(asked(out=tmp_path / "file" / "out"), Log().callbacks(), runner)

    assert runner.trained == []


def test_a_finished_run_that_is_damaged_costs_its_row_and_not_the_table(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    result = ablate(asked(folds=1), Log().callbacks(), in_this_process())
    (Path(rows_by_name(result)["guided"].runs[0]) / "rule.json").write_text("no rule")

    again = ablate(asked(folds=1), Log().callbacks(), in_this_process())
    rows = rows_by_name(again)

    assert (rows["alone"].status, rows["guided"].status) == ("done", "failed")
    assert "rule.json" in rows["guided"].why
    assert (again.n_failed, again.is_complete) == (1, False)


def test_what_cannot_be_scored_ends_in_a_table_that_says_so(
    asked: Callable[..., AblateConfig], in_this_process: type[Any]
) -> None:
    result = ablate(asked(folds=1, grid="native"), Log().callbacks(), in_this_process())
    rows = rows_by_name(result)

    assert {rows["alone"].status, rows["guided"].status} == {"failed"}
    assert "cannot be scored" in rows["alone"].why
    assert rows["large encoder"].status == "not run"
    assert result.n_trained == 2
    assert result.page.exists()
    assert not result.is_complete
