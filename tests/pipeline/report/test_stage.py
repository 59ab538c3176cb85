"""The files of a report, and what they are made from."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from nucseg.errors import ConfigError, DataError
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.report import stage
from nucseg_pipeline.report.stage import ReportResult, report
from tests.pipeline.report.drawn import (
    N_IMAGES,
    ROWS,
    SIDE,
    DrawnRun,
    Page,
    Report,
    drawn_report,
    drawn_store,
    page_data,
    two_runs,
)


def test_a_report_is_four_files(two: ReportResult) -> None:
    assert sorted(file.name for file in two.folder.iterdir()) == [
        "per_image.csv",
        "report.html",
        "summary.json",
        "summary.md",
    ]
    assert two.page == two.folder / "report.html"


def test_the_summary_holds_what_scikit_learn_computes_from_the_predictions(two: ReportResult) -> None:
    summary = json.loads((two.folder / "summary.json").read_text())

    for name, run in two_runs().items():
        dice, weighted, weighted_nothing = [], [], []
        for row in ROWS.values():
            counted = ~row.ignore
            truth, found = row.instances[counted] > 0, run.probability(row)[counted] >= 0.5
            dice.append(f1_score(truth, found))
            weighted.append(f1_score(truth, found, average="weighted"))
            weighted_nothing.append(f1_score(truth, np.zeros_like(truth), average="weighted"))
        metrics = summary["runs"][name]["metrics"]
        assert metrics["dice"]["value"] == pytest.approx(np.mean(dice))
        assert metrics["dice_weighted"]["value"] == pytest.approx(np.mean(weighted))
        assert metrics["dice"]["n_groups"] == 3
        assert summary["all_background"]["dice"]["value"] == 0
        assert summary["all_background"]["dice_weighted"]["value"] == pytest.approx(np.mean(weighted_nothing))
    assert summary["grid"] == f"{SIDE} px grid"
    assert summary["notes"][:2] == ["slides leak", "left out: one"]
    assert "only 3 groups" in summary["notes"][2]


def test_the_table_has_a_line_an_image_and_run_that_adds_up_to_the_summary(two: ReportResult) -> None:
    folder = two.folder
    with (folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())

    assert [(line["run"], line["id"]) for line in lines] == [(run, image_id) for run in two_runs() for image_id in ROWS]
    assert np.mean([float(line["aji"]) for line in lines if line["run"] == "guided"]) == pytest.approx(
        summary["runs"]["guided"]["metrics"]["aji"]["value"]
    )
    assert all(sum(int(line[f"{name}_px"]) for name in ("tp", "fp", "fn", "tn")) == SIDE * (SIDE - 4) for line in lines)


def test_an_image_in_which_every_pixel_is_ignored_is_left_out_counted_and_named(
    make: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """micro-sam #1012: two empty masks agree, so such an image scored 1.000."""
    first, *others = ROWS
    monkeypatch.setitem(ROWS, first, replace(ROWS[first], ignore=np.ones((SIDE, SIDE), np.bool_)))

    result = make(two_runs(), page=True, n_images=1)

    summary = json.loads((result.folder / "summary.json").read_text())
    note = f"1 of {N_IMAGES} test images are not scored, because every pixel of them is ignored: {first}."
    assert (summary["n_images"], summary["not_scored"], note in summary["notes"]) == (N_IMAGES - 1, [first], True)
    assert note in Page(result.page.read_text()).text
    with (result.folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["id"], line["dice"], line["tn_px"]) for line in lines if not line["dice"]] == [(first, "", "0")] * 2
    scored = [float(line["dice"]) for line in lines if line["run"] == "guided" and line["id"] in others]
    assert summary["runs"]["guided"]["metrics"]["dice"]["value"] == pytest.approx(np.mean(scored))
    assert summary["runs"]["guided"]["n_images"] == len(scored) == N_IMAGES - 1


def test_a_test_part_in_which_every_pixel_is_ignored_is_refused(make: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    for image_id, row in ROWS.items():
        monkeypatch.setitem(ROWS, image_id, replace(row, ignore=np.ones((SIDE, SIDE), np.bool_)))

    with pytest.raises(
        DataError, match=rf"ignored in all test images of guided in cache/nuinsseg\.zarr \({N_IMAGES}: "
    ):
        make(two_runs())


def test_images_that_do_not_look_like_h_and_e_or_have_no_nuclei_are_named(
    make: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray, empty = list(ROWS)[:2]
    image = np.repeat(ROWS[gray].image[..., :1], 3, axis=-1)
    monkeypatch.setitem(ROWS, gray, replace(ROWS[gray], image=image))
    monkeypatch.setitem(ROWS, empty, replace(ROWS[empty], instances=np.zeros((SIDE, SIDE), np.int32)))

    notes = make(two_runs()).summaries[0].notes

    assert any(f"1 of {N_IMAGES} images does not look like H&E: {gray} (it is gray)" in note for note in notes)
    assert any(note.startswith(f"1 of {N_IMAGES} images have no true nuclei ({empty})") for note in notes)


def test_runs_are_compared_with_the_first_or_with_the_one_that_is_named(make: Report) -> None:
    by_first = make(two_runs()).summaries[0].comparisons
    by_name = make(two_runs(), baseline="unguided").summaries[0].comparisons

    assert [(c.name, c.baseline) for c in (*by_first, *by_name)] == [("unguided", "guided"), ("guided", "unguided")]
    gain = by_name[0].differences["dice"].difference
    assert gain.value > 0
    assert by_first[0].differences["dice"].difference.value == pytest.approx(-gain.value)


def test_the_markdown_lists_every_run_and_the_empty_prediction(two: ReportResult) -> None:
    text = (two.folder / "summary.md").read_text()
    dice = two.summaries[0].runs[0].metrics["dice"]

    assert f"\n| guided | {dice.value:.3f} ({dice.low:.3f} to {dice.high:.3f}) |" in text
    assert "\n| all background | 0.000 (0.000 to 0.000) |" in text
    assert "\n- slides leak\n" in text


def test_progress_counts_every_prediction_to_the_end(make: Report) -> None:
    calls: list[tuple[int, int, str]] = []
    make(two_runs(), lambda done, total, what: calls.append((done, total, what)), n_images=2)

    total = 2 * (N_IMAGES + 2)
    assert [call[:2] for call in calls] == [(done, total) for done in range(1, total + 1)]
    assert {call[2] for call in calls} == {"scoring guided", "scoring unguided", "drawing"}


def test_reporting_twice_gives_the_same_figures_and_pictures(two: ReportResult) -> None:
    again = drawn_report(two.folder.parent, two_runs(), page=True, n_images=1, out=two.folder.with_name("again"))

    def without_time_and_folder(folder: Path) -> dict[str, str]:
        changing = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d UTC|{re.escape(str(folder))}"
        return {file.name: re.sub(changing, "", file.read_text()) for file in folder.iterdir()}

    assert without_time_and_folder(again.folder) == without_time_and_folder(two.folder)


def test_runs_with_different_test_images_are_refused_before_anything_is_predicted(make: Report, tmp_path: Path) -> None:
    runs = {**two_runs(), "other": DrawnRun("other", error=1.0, ids=[*list(ROWS)[:4], "elsewhere"])}

    with pytest.raises(ConfigError, match="4 images are in both, 2 only in guided, 1 only in other"):
        make(runs, lambda *_: pytest.fail("predicted"))
    assert not (tmp_path / "report").exists()


def test_a_baseline_that_is_no_run_is_refused_with_the_runs(make: Report) -> None:
    with pytest.raises(ConfigError, match=r"'nothing' is not among the runs .*Known: guided, unguided"):
        make(two_runs(), baseline="nothing")


def test_a_failure_leaves_the_older_report_as_it_was(make: Report) -> None:
    folder = make(two_runs()).folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    broken = two_runs()
    broken["unguided"].probability = lambda sample: np.full((SIDE, SIDE), np.nan, np.float32)  # type: ignore[method-assign]

    with pytest.raises(Exception, match="not finite"):
        make(broken)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_command_in_the_report_reproduces_it(make: Report, tmp_path: Path) -> None:
    command = make(two_runs(), cache="/moved cache", baseline="unguided").summaries[0].command

    assert shlex.split(command) == [
        *("nucseg", "report", str(tmp_path / "guided"), str(tmp_path / "unguided")),
        *("--out", str(tmp_path / "report"), "--baseline", "unguided", "--n-images", "0", "--cache", "/moved cache"),
    ]


def test_a_report_is_named_after_its_runs(make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    many = {f"run{number}": DrawnRun("", error=1.0) for number in range(4)}

    assert make(two_runs(), out=None).folder == Path("reports/guided-vs-unguided")
    assert make(many, out=None).folder == Path("reports/run0-and-3-others")


def test_runs_of_the_same_name_are_named_by_their_parent_folders(
    make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "Run", SimpleNamespace(open=lambda path, cache: DrawnRun("", error=1.0)))
    paths = (tmp_path / "width8" / "seed0", tmp_path / "width32" / "seed0")
    config = ReportConfig(runs=paths, out=tmp_path / "report", n_images=0, n_resamples=100)

    assert [run.name for run in report(config).summaries[0].runs] == ["width8/seed0", "width32/seed0"]


def test_the_digest_of_the_test_part_changes_with_a_mask_and_not_with_the_runs(
    make: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = make(two_runs()).summaries[0].test_digest
    alone = make({"other": DrawnRun("other", error=1.0)}).summaries[0].test_digest
    first = next(iter(ROWS))
    monkeypatch.setitem(ROWS, first, replace(ROWS[first], mask_digest=b"redrawn"))

    assert alone == both
    assert make(two_runs()).summaries[0].test_digest != both


def test_trained_runs_are_reported_with_their_settings_and_history(trained: Path, trained_report: ReportResult) -> None:
    (summary,) = trained_report.summaries
    split = json.loads((trained / "guided" / "split.json").read_text())

    assert summary.n_images == len(split["test"]) > 0
    assert [run.configuration["fusion"] for run in summary.runs] == ["none", "xgfb", "multiscale"]
    assert [len(run.history) for run in summary.runs] == [1, 1, 1]
    assert "synthetic" in summary.warnings[0]
    assert Page(trained_report.page.read_text()).open == []


def test_a_checkpoint_is_read_once_for_scores_and_pictures(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "guided", tmp_path / "run")

    def delete(done: int, total: int, what: str) -> None:
        (tmp_path / "run" / "best.pt").unlink(missing_ok=True)

    config = ReportConfig(runs=(tmp_path / "run",), out=tmp_path / "report", n_images=1, n_resamples=50)
    result = report(config, delete)

    assert not (tmp_path / "run" / "best.pt").exists()
    assert [data["why"] for data in page_data(result)["pictures"]] == ["median"]


def test_a_device_that_the_machine_lacks_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device must be"):
        ReportConfig(runs=(tmp_path,), device="gpu")
    with pytest.raises(ConfigError, match="device is cuda:99"):
        report(ReportConfig(runs=(tmp_path / "nowhere",), device="cuda:99"))


def test_repeats_are_summarised_by_mean_and_spread(repeated: ReportResult) -> None:
    summary = json.loads((repeated.folder / "summary.json").read_text())
    values = {name: run["metrics"]["dice"]["value"] for name, run in summary["runs"].items()}
    # a fold counts once, however many seeds it was trained with
    guided = [(values["guided-f0"] + values["guided-f0-s1"]) / 2, values["guided-f1"]]

    over_runs = summary["configurations"]["guided"]["spreads"]["dice"]
    assert over_runs["mean"] == pytest.approx(np.mean(guided))
    assert over_runs["sd"] == pytest.approx(np.std(guided, ddof=1))
    assert (over_runs["low"], over_runs["high"]) == (min(guided), max(guided))
    assert summary["configurations"]["guided"]["repeats"] == "3 runs: folds 0, 1, seeds 0, 1"
    assert summary["configurations"]["guided"]["spread_over"] == "2 folds, averaged over the seeds of each fold"
    assert summary["configurations"]["unguided"]["spread_over"] == "2 folds"
    assert list(summary["configurations"]) == ["guided", "unguided"]


def test_repeats_are_compared_over_the_images_of_all_folds(repeated: ReportResult) -> None:
    (found,) = repeated.summaries
    with (repeated.folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    mean = {
        (name, image_id): np.mean(
            [float(x["dice"]) for x in lines if (x["configuration"], x["id"]) == (name, image_id)]
        )
        for name in ("guided", "unguided")
        for image_id in ROWS
    }
    gains = [mean["guided", image_id] - mean["unguided", image_id] for image_id in ROWS]

    assert found.n_images == len(ROWS)
    assert len(lines) == 3 * 5
    difference = found.comparisons[0].differences["dice"]
    assert (found.comparisons[0].name, found.comparisons[0].baseline) == ("guided", "unguided")
    assert difference.difference.value == pytest.approx(np.mean(gains))
    assert difference.n_better == sum(gain > 0 for gain in gains)


def test_several_data_sets_make_a_matrix_and_a_report_each(make: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nucseg_pipeline.evaluation.test_sets.Store", SimpleNamespace(open=lambda at: drawn_store(Path(at).stem))
    )
    runs = {"here": DrawnRun("", error=0.8), "there": DrawnRun("", error=2.0, dataset="conic", ids=list(ROWS)[:4])}
    result = make(runs, datasets=("nuinsseg", "conic", "cryonuseg"))
    summary = json.loads((result.folder / "summary.json").read_text())
    page = Page(result.page.read_text())

    assert sorted(file.name for file in result.folder.iterdir()) == [
        *("conic", "cryonuseg", "nuinsseg"),
        *("per_image.csv", "report.html", "summary.json", "summary.md"),
    ]
    assert {name: (column["n_images"], column["protocol"]) for name, column in summary["datasets"].items()} == {
        "nuinsseg": (6, "official"),
        "conic": (4, "official"),
        "cryonuseg": (6, "all images in the store"),
    }
    for dataset in summary["datasets"]:
        alone = json.loads((result.folder / dataset / "summary.json").read_text())
        for name in runs:
            assert summary["matrix"][name][dataset] == alone["configurations"][name]["metrics"]
        assert summary["matrix"]["all background"][dataset] == alone["all_background"]
    hrefs = [attributes["href"] or "" for tag, attributes in page.elements if tag == "a"]
    links = [href for href in hrefs if not href.startswith("#")]
    assert summary["kind"] == "matrix"
    assert links == [f"{dataset}/report.html" for dataset in summary["datasets"]]
    assert page.open == []
    assert page.text.count(" own ") == 2 * 5  # in every table the two cells at home
    markdown = (result.folder / "summary.md").read_text()
    dice = summary["matrix"]["here"]["nuinsseg"]["dice"]
    assert f"| here | {dice['value']:.3f} ({dice['low']:.3f} to {dice['high']:.3f}) * |" in markdown
    assert "there: trained on conic, not on nuinsseg" in page.text


def test_a_report_of_another_command_is_not_overwritten(
    make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = make({"run": DrawnRun("", error=1.0)}, out=None)
    before = (first.folder / "summary.json").read_text()

    again = make({"run": DrawnRun("", error=1.0)}, out=None)
    other = make({"run": DrawnRun("", error=1.0)}, out=None, cache="/moved")

    assert (first.folder, again.folder, other.folder) == (
        Path("reports/run"),
        Path("reports/run"),
        Path("reports/run-2"),
    )
    assert json.loads((first.folder / "summary.json").read_text())["command"] == json.loads(before)["command"]


def test_p_values_are_corrected_for_the_number_of_comparisons(make: Report) -> None:
    runs = {**two_runs(), "third": DrawnRun("third", error=1.5)}
    result = make(runs, baseline="unguided")
    compared = json.loads((result.folder / "summary.json").read_text())["comparisons"]

    for metric in ("dice", "aji"):
        alone = sorted(c["differences"][metric]["wilcoxon_p"] for c in compared.values())
        expected = [min(1, 2 * alone[0]), max(min(1, 2 * alone[0]), alone[1])]
        assert sorted(c["holm_p"][metric] for c in compared.values()) == pytest.approx(expected)
    assert "| after Holm |" in (result.folder / "summary.md").read_text()
