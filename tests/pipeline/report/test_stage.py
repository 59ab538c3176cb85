import base64
import csv
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash
from safetensors.numpy import save as safetensors_of
from scipy import ndimage
from sklearn.metrics import f1_score

from nucseg.encoders.student.metadata import FORMAT, Origin
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import Key, SampleRow
from nucseg_pipeline.config import ReportConfig, TrainConfig
from nucseg_pipeline.modelling.inference import Prediction
from nucseg_pipeline.report import stage
from nucseg_pipeline.report.stage import Progress, ReportResult, report

SIDE, N_IMAGES = 48, 6
VOID = frozenset({"meta", "img", "br", "input"})


def nuclei_row(number: int) -> SampleRow:
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    instances = np.zeros((SIDE, SIDE), np.int32)
    for disc in range(1, 5):
        centre_y, centre_x = rng.integers(5, SIDE - 9, 2)
        instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 25] = disc
    return SampleRow(
        id=f"organ/<image> [{number}]",
        group=f"slide {number // 2}",
        stratum=f"organ {number % 2}",
        mpp=None,
        size=(SIDE, SIDE),
        image=rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8),
        instances=instances,
        ignore=y >= SIDE - 4,
        image_digest=number.to_bytes(32, "big"),
        mask_digest=number.to_bytes(32, "big"),
    )


ROWS = {row.id: row for row in map(nuclei_row, range(N_IMAGES))}


def digests(row: SampleRow) -> tuple[str, str]:
    return row.image_digest.hex(), row.mask_digest.hex()


def drawn_store(dataset: str) -> SimpleNamespace:
    """Has of a store what a report asks for."""
    table = [
        SimpleNamespace(id=one, group=row.group, image_digest=row.image_digest, present=True)
        for one, row in ROWS.items()
    ]
    return SimpleNamespace(
        dataset=dataset, preparation={"side_px": str(SIDE)}, location=f"cache/{dataset}.zarr", source="", table=table,
        notes=("left out: one",), find=lambda asked: Key({**asked, "format": "f16"}),
        embeddings=lambda key: DrawnEmbeddings(), row_of=list(ROWS).index,
        info=lambda row: SimpleNamespace(size=(SIDE, SIDE), image_digest=list(ROWS.values())[row].image_digest),
    )  # fmt: skip


class DrawnEmbeddings:
    """Embeddings in which the nuclei can be seen, of a grid of (SIDE / 4) cells a side."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        drawn = [list(ROWS.values())[row] for row in rows]
        cells = [(row.instances > 0)[::4, ::4] for row in drawn]
        noise = [np.random.default_rng(row.image_digest[-1]).normal(size=(5, *cells[0].shape)) for row in drawn]
        return [
            np.concatenate([grid[None], rough]).astype(np.float16) for grid, rough in zip(cells, noise, strict=True)
        ]


class DrawnRun:
    """Has of a run what a report asks for; its network knows the truth and errs by a given amount."""

    def __init__(
        self,
        name: str,
        *,
        error: float,
        dataset: str = "nuinsseg",
        ids: Sequence[str] = tuple(ROWS),
        fold: int = 0,
        seed: int = 0,
        learned: str = "aa",
    ) -> None:
        self.error = error
        self.config = TrainConfig(
            dataset=dataset, cache="cache", fusion="xgfb" if error < 1 else "none", fold=fold, seed=seed
        )
        self.split = SimpleNamespace(
            train=("a",), validation=("b",), test=tuple(ids), protocol="official", notes=("slides leak",)
        )
        self.store = drawn_store(dataset)
        self.inputs = SimpleNamespace(
            embedding={"architecture": "vit_b"},
            preparation=self.store.preparation,
            samples={"a": (learned, ""), "b": ("bb", ""), **{one: digests(row) for one, row in ROWS.items()}},
        )
        self.rule = InstanceRule(threshold=0.5, min_area_px=4)
        self.history = [{"epoch": 1.0, "train_loss": 0.9, "validation_dice": 0.5, "seconds": 1.0}]
        self.provenance = {"embedding": {"architecture": "vit_b", "weights": "6923"}, "versions": {"torch": "2"}}

    def rows(self, ids: Sequence[str], *, store: object) -> None:
        """Every embedding is there."""

    def probability(self, sample: SampleRow) -> np.ndarray:
        rough = np.random.default_rng(sample.image_digest[-1]).standard_normal((SIDE, SIDE))
        mask = ndimage.gaussian_filter((sample.instances > 0).astype(float), 0.7)
        return np.clip(mask + self.error * ndimage.gaussian_filter(rough, 2), 0, 1).astype(np.float32)

    def predict(self, ids: Sequence[str], *, store: object) -> Iterator[Prediction]:
        for one in ids:
            yield Prediction(ROWS[one], self.probability(ROWS[one]))


Report = Callable[..., ReportResult]


def drawn_report(
    folder: Path,
    runs: dict[str, DrawnRun],
    progress: Progress = lambda *_: None,
    *,
    page: bool = False,
    **wanted: object,
) -> ReportResult:
    """Report on drawn runs, given by name; without the page, which takes longest to make, where it is not read."""
    given: dict[str, object] = {"out": folder / "report", "n_resamples": 300, "n_overlays": 0}
    config = ReportConfig(runs=tuple(folder / name for name in runs), **{**given, **wanted})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "Run", SimpleNamespace(open=lambda path, cache: runs[path.name]))
        if not page:
            patch.setattr(stage, "page_text", lambda findings, columns, album: "".join("" for _ in album.shown))
        return report(config, progress)


@pytest.fixture
def make(tmp_path: Path) -> Report:
    """Reports on drawn runs in a folder of the test's own."""
    return partial(drawn_report, tmp_path)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """A report on two runs with one image shown, for tests that only read it."""
    return drawn_report(tmp_path_factory.mktemp("two"), two_runs(), page=True, n_overlays=1)


def two_runs() -> dict[str, DrawnRun]:
    return {"guided": DrawnRun("guided", error=0.8), "unguided": DrawnRun("unguided", error=2.0)}


class Page(HTMLParser):
    """Collects what a page is made of, and checks that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


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
    assert "3 groups only" in summary["notes"][2]


def test_the_table_has_a_line_an_image_and_run_that_adds_up_to_the_summary(two: ReportResult) -> None:
    folder = two.folder
    with (folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())

    assert [(line["run"], line["id"]) for line in lines] == [(run, one) for run in two_runs() for one in ROWS]
    assert np.mean([float(line["aji"]) for line in lines if line["run"] == "guided"]) == pytest.approx(
        summary["runs"]["guided"]["metrics"]["aji"]["value"]
    )
    assert all(sum(int(line[f"{name}_px"]) for name in ("tp", "fp", "fn", "tn")) == SIDE * (SIDE - 4) for line in lines)


def test_runs_are_compared_with_the_first_or_with_the_one_that_is_named(make: Report) -> None:
    by_first = make(two_runs()).findings[0].comparisons
    by_name = make(two_runs(), baseline="unguided").findings[0].comparisons

    assert [(c.name, c.baseline) for c in (*by_first, *by_name)] == [("unguided", "guided"), ("guided", "unguided")]
    gain = by_name[0].differences["dice"].difference
    assert gain.value > 0
    assert by_first[0].differences["dice"].difference.value == pytest.approx(-gain.value)


def test_the_markdown_shows_every_run_and_the_prediction_that_finds_nothing(two: ReportResult) -> None:
    text = (two.folder / "summary.md").read_text()
    dice = two.findings[0].runs[0].metrics["dice"]

    assert f"\n| guided | {dice.value:.3f} ({dice.low:.3f} to {dice.high:.3f}) |" in text
    assert "\n| all background | 0.000 (0.000 to 0.000) |" in text
    assert "\n- slides leak\n" in text


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(two: ReportResult) -> None:
    text = two.page.read_text()
    page = Page(text)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]

    assert page.open == []
    assert addresses
    assert all(address and address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|<link|https?://(?!www.w3.org/)", text)
    assert "default-src 'none'; img-src data:" in text


def test_the_only_script_that_may_run_is_that_of_the_page(two: ReportResult) -> None:
    text = two.page.read_text()
    (code,) = re.findall("<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()

    assert text.count("<script") == 2  # the other one is data
    assert f"script-src 'sha256-{digest}';" in text
    assert not [name for _, attributes in Page(text).elements for name in attributes if name.startswith("on")]


def test_pictures_have_words_and_tables_have_captions(two: ReportResult) -> None:
    page = Page(two.page.read_text())
    tags = [tag for tag, _ in page.elements]
    alts = [attributes.get("aria-label") for _, attributes in page.elements if attributes.get("role") == "img"]
    in_viewer = 3

    assert all(alts[:-in_viewer])
    # four charts; of the image: itself, its truth, two predictions, what guidance changed, the embedding
    assert len(set(alts[:-in_viewer])) == len(alts[:-in_viewer]) == 4 + 6
    assert tags.count("caption") == tags.count("table") > 4


def test_the_page_gives_the_headline_and_the_score_of_finding_nothing(two: ReportResult) -> None:
    dice = two.findings[0].runs[0].metrics["dice"]
    text = Page(two.page.read_text()).text

    assert f"guided guided, xgfb baseline {dice.value:.3f} 95 % interval {dice.low:.3f} to {dice.high:.3f}" in text
    assert f"scores {two.findings[0].all_background['dice_weighted'].value:.3f} on these images" in text
    assert "slides leak" in text
    assert f"{SIDE} px grid" in text
    assert "Warning" not in text


def test_names_cannot_break_the_page(two: ReportResult) -> None:
    page = two.page.read_text()

    assert "organ/&lt;image&gt; [0]" in page
    assert "<image>" not in page


def test_synthetic_images_and_a_random_encoder_are_warned_of(make: Report) -> None:
    run = DrawnRun("run", error=1.0, dataset="synthetic@macenko")
    run.provenance = {"embedding": {"architecture": "random"}}
    result = make({"run": run}, page=True)
    text = Page(result.page.read_text()).text

    assert len(result.findings[0].warnings) == 2
    assert "The images are synthetic" in text
    assert "random weights" in text
    assert (result.folder / "summary.md").read_text().count("**Warning.**") == 2


def test_a_student_that_learned_from_test_images_is_warned_of(
    make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path))
    runs = {"told": DrawnRun("told", error=0.5), "untold": DrawnRun("untold", error=0.5)}
    beginning = {"told": next(iter(ROWS.values())).image_digest.hex()[:16], "untold": "f" * 16}
    for name, run in runs.items():
        origin = Origin("small", {"architecture": "vit_b"}, {"mine": {"learned_images": [beginning[name]]}}, "")
        content = safetensors_of({"place": np.zeros(3, np.float32)}, {FORMAT: json.dumps(asdict(origin))})
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        run.inputs.embedding = {"architecture": "student", "weights": xxhash.xxh128_hexdigest(content)}

    (findings,) = make(runs).findings

    (warning,) = [one for one in findings.warnings if "distilled" in one]
    # the digests of the drawn images all begin alike
    assert warning.startswith(
        f"told: The encoder was distilled from {N_IMAGES} of {N_IMAGES} test images (such as organ"
    )


def test_the_median_the_worst_and_the_best_image_are_shown_before_others(make: Report) -> None:
    result = make({"run": DrawnRun("run", error=1.0)}, page=True, n_overlays=5)
    with (result.folder / "per_image.csv").open(newline="") as file:
        ranked = [line["id"] for line in sorted(csv.DictReader(file), key=lambda line: float(line["dice"]))]
    page = result.page.read_text()
    headings = re.findall(r"<h3 id=\"image-\d+-title\">(organ/.*?) <span class=\"soft\">([a-z ]+)", page)

    assert [one.replace("&lt;", "<").replace("&gt;", ">") for one, _ in headings[:3]] == [
        ranked[3],
        ranked[0],
        ranked[-1],
    ]
    assert [why.strip() for _, why in headings] == ["median", "worst", "best", "drawn by chance", "drawn by chance"]
    assert len({one for one, _ in headings}) == 5


def test_progress_counts_every_prediction_to_the_end(make: Report) -> None:
    calls: list[tuple[int, int, str]] = []
    make(two_runs(), lambda done, total, what: calls.append((done, total, what)), n_overlays=2)

    total = 2 * (N_IMAGES + 2)
    assert [call[:2] for call in calls] == [(done, total) for done in range(1, total + 1)]
    assert {call[2] for call in calls} == {"scoring guided", "scoring unguided", "drawing"}


def test_reporting_twice_gives_the_same_figures_and_pictures(make: Report) -> None:
    first = {file.name: file.read_text() for file in make(two_runs(), page=True).folder.iterdir()}
    second = {file.name: file.read_text() for file in make(two_runs(), page=True).folder.iterdir()}

    def without_time(text: str) -> str:
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text)

    assert {name: without_time(text) for name, text in first.items()} == {
        name: without_time(text) for name, text in second.items()
    }


def test_runs_with_different_test_images_are_refused_before_anything_is_predicted(make: Report, tmp_path: Path) -> None:
    runs = {**two_runs(), "other": DrawnRun("other", error=1.0, ids=[*list(ROWS)[:4], "elsewhere"])}

    with pytest.raises(ConfigError, match="4 images are in both, 2 only in guided, 1 only in other"):
        make(runs, lambda *_: pytest.fail("predicted"))
    assert not (tmp_path / "report").exists()


def test_a_baseline_that_is_no_run_is_refused_with_the_runs(make: Report) -> None:
    with pytest.raises(ConfigError, match="'nothing' is not among the runs: guided, unguided"):
        make(two_runs(), baseline="nothing")


def test_a_failure_leaves_the_older_report_as_it_was(make: Report) -> None:
    folder = make(two_runs()).folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    broken = two_runs()
    broken["unguided"].probability = lambda sample: np.full((SIDE, SIDE), np.nan, np.float32)  # type: ignore[method-assign]

    with pytest.raises(Exception, match="not finite"):
        make(broken)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_command_in_the_report_makes_it_again(make: Report, tmp_path: Path) -> None:
    command = make(two_runs(), cache="/moved cache", baseline="unguided").findings[0].command

    assert shlex.split(command) == [
        *("nucseg", "report", str(tmp_path / "guided"), str(tmp_path / "unguided")),
        *("--out", str(tmp_path / "report"), "--n-images", "0", "--cache", "/moved cache", "--baseline", "unguided"),
    ]


def test_a_report_is_named_after_its_runs(make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    many = {f"run{number}": DrawnRun("", error=1.0) for number in range(4)}

    assert make(two_runs(), out=None).folder == Path("reports/guided-vs-unguided")
    assert make(many, out=None).folder == Path("reports/run0-and-3-others")


def test_runs_of_one_name_are_told_apart_by_their_folders(
    make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "Run", SimpleNamespace(open=lambda path, cache: DrawnRun("", error=1.0)))
    paths = (tmp_path / "width8" / "seed0", tmp_path / "width32" / "seed0")
    config = ReportConfig(runs=paths, out=tmp_path / "report", n_overlays=0, n_resamples=100)

    assert [run.name for run in report(config).findings[0].runs] == ["width8/seed0", "width32/seed0"]


def test_a_single_group_has_no_interval_and_the_report_says_so(make: Report) -> None:
    ids = [one for one, row in ROWS.items() if row.group == "slide 0"]
    result = make({"run": DrawnRun("run", error=1.0, ids=ids)}, page=True)

    assert "no interval: one group" in Page(result.page.read_text()).text
    assert json.loads((result.folder / "summary.json").read_text())["runs"]["run"]["metrics"]["dice"]["low"] is None


def test_the_digest_of_the_test_part_changes_with_a_mask_and_not_with_the_runs(
    make: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = make(two_runs()).findings[0].test_digest
    alone = make({"other": DrawnRun("other", error=1.0)}).findings[0].test_digest
    first = next(iter(ROWS))
    monkeypatch.setitem(ROWS, first, replace(ROWS[first], mask_digest=b"redrawn"))

    assert alone == both
    assert make(two_runs()).findings[0].test_digest != both


def test_a_trained_run_can_be_reported(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    from nucseg_pipeline.train.stage import train

    config = training()
    train(config)
    result = report(ReportConfig(runs=(config.folder,), out=tmp_path / "report", n_overlays=1, n_resamples=100))
    found = result.findings[0]

    split = json.loads((config.folder / "split.json").read_text())

    assert found.n_images == len(split["test"]) > 0
    assert found.runs[0].configuration["width"] == 2
    assert len(found.runs[0].history) == 2
    assert "synthetic" in found.warnings[0]
    assert Page(result.page.read_text()).open == []


def folds() -> dict[str, DrawnRun]:
    """Two configurations, each on two folds of three images, the guided one with a second seed."""
    first, second = list(ROWS)[:3], list(ROWS)[3:]
    return {
        "guided-f0": DrawnRun("", error=0.8, ids=first),
        "guided-f1": DrawnRun("", error=0.8, ids=second, fold=1),
        "guided-f0-s1": DrawnRun("", error=0.9, ids=first, seed=1),
        "unguided-f0": DrawnRun("", error=2.0, ids=first),
        "unguided-f1": DrawnRun("", error=2.0, ids=second, fold=1),
    }


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    return drawn_report(tmp_path_factory.mktemp("folds"), folds(), page=True, n_overlays=4, baseline="unguided")


def test_repeats_are_summed_up_as_mean_and_spread(repeated: ReportResult) -> None:
    summary = json.loads((repeated.folder / "summary.json").read_text())
    values = {name: run["metrics"]["dice"]["value"] for name, run in summary["runs"].items()}
    # a fold counts once, however many seeds it was trained with
    guided = [(values["guided-f0"] + values["guided-f0-s1"]) / 2, values["guided-f1"]]

    over_runs = summary["configurations"]["guided"]["spreads"]["dice"]
    assert over_runs["mean"] == pytest.approx(np.mean(guided))
    assert over_runs["sd"] == pytest.approx(np.std(guided, ddof=1))
    assert (over_runs["low"], over_runs["high"]) == (min(guided), max(guided))
    assert summary["configurations"]["guided"]["repeats"] == "3 runs: folds 0, 1, seeds 0, 1"
    assert summary["configurations"]["guided"]["spread_over"] == "2 folds, the seeds of a fold averaged first"
    assert summary["configurations"]["unguided"]["spread_over"] == "2 folds"
    assert list(summary["configurations"]) == ["guided", "unguided"]


def test_repeats_are_compared_over_the_images_of_all_folds(repeated: ReportResult) -> None:
    (found,) = repeated.findings
    with (repeated.folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    mean = {
        (name, one): np.mean([float(x["dice"]) for x in lines if (x["configuration"], x["id"]) == (name, one)])
        for name in ("guided", "unguided")
        for one in ROWS
    }
    gains = [mean["guided", one] - mean["unguided", one] for one in ROWS]

    assert found.n_images == len(ROWS)
    assert len(lines) == 3 * 5
    difference = found.comparisons[0].differences["dice"]
    assert (found.comparisons[0].name, found.comparisons[0].baseline) == ("guided", "unguided")
    assert difference.difference.value == pytest.approx(np.mean(gains))
    assert difference.n_better == sum(gain > 0 for gain in gains)


def test_the_page_of_repeats_shows_the_spread_every_run_and_settings_by_configuration(repeated: ReportResult) -> None:
    text = Page(repeated.page.read_text()).text
    markdown = (repeated.folder / "summary.md").read_text()

    assert "3 runs: folds 0, 1, seeds 0, 1" in text
    assert all(name in text for name in folds())
    assert "they are not to be compared with one another" in text
    assert "## Repeats" in markdown
    assert (
        "| guided | 2 folds, the seeds of a fold averaged first (3 runs: folds 0, 1, seeds 0, 1) | dice |" in markdown
    )
    assert "(guided-f0)" in text  # whose prediction a picture shows


def test_configurations_on_different_folds_are_refused(make: Report) -> None:
    runs = folds()
    del runs["unguided-f1"]

    with pytest.raises(ConfigError, match="3 images are in both, 3 only in guided, 0 only in unguided"):
        make(runs)


def test_several_data_sets_make_a_matrix_and_a_report_each(make: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nucseg_pipeline.evaluation.test_sets.Store", SimpleNamespace(open=lambda at: drawn_store(Path(at).stem))
    )
    runs = {"here": DrawnRun("", error=0.8), "there": DrawnRun("", error=2.0, dataset="conic", ids=list(ROWS)[:4])}
    result = make(runs, page=True, datasets=("nuinsseg", "conic", "cryonuseg"))
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


def test_a_network_that_finds_next_to_nothing_is_warned_of(make: Report) -> None:
    blind = DrawnRun("", error=1.0)
    blind.probability = lambda sample: np.zeros((SIDE, SIDE), np.float32)  # type: ignore[method-assign]
    found = make({"blind": blind, "run": DrawnRun("", error=0.8)}).findings[0]

    assert [warning for warning in found.warnings if "blind (0.0%)" in warning]
    assert not [warning for warning in found.warnings if "run (" in warning]


def test_copies_of_learned_images_in_the_test_part_are_warned_of(make: Report) -> None:
    first = next(iter(ROWS.values()))
    result = make({"run": DrawnRun("", error=1.0, learned=first.image_digest.hex())})

    assert "run: 1 of 6 test images" in result.findings[0].warnings[0]
    assert first.id in result.findings[0].warnings[0]


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


def test_a_report_of_many_configurations_draws_the_first_and_says_so(make: Report) -> None:
    many = {f"run{number}": DrawnRun("", error=0.5 + number / 10) for number in range(10)}
    result = make(many, page=True)
    text = Page(result.page.read_text()).text

    assert text.count("The first 8 configurations are drawn, 2 are not.") == 2
    assert len(result.findings[0].comparisons) == 9


def test_the_report_of_a_single_image_shows_it_as_what_it_is(make: Report) -> None:
    result = make({"run": DrawnRun("", error=1.0, ids=list(ROWS)[:1])}, page=True, n_overlays=3)

    whys = re.findall(r"<h3 id=\"image-0-title\">organ/.*? <span class=\"soft\">([a-z ]+)", result.page.read_text())
    assert whys == ["the only image "]


def test_p_values_are_corrected_for_the_number_of_comparisons(make: Report) -> None:
    runs = {**two_runs(), "third": DrawnRun("third", error=1.5)}
    result = make(runs, baseline="unguided")
    told = json.loads((result.folder / "summary.json").read_text())["comparisons"]

    for metric in ("dice", "aji"):
        alone = sorted(one["differences"][metric]["wilcoxon_p"] for one in told.values())
        expected = [min(1, 2 * alone[0]), max(min(1, 2 * alone[0]), alone[1])]
        assert sorted(one["holm_p"][metric] for one in told.values()) == pytest.approx(expected)
    assert "| after Holm |" in (result.folder / "summary.md").read_text()


def test_the_images_of_the_largest_gain_and_loss_by_guidance_are_shown(make: Report) -> None:
    result = make(two_runs(), page=True, n_overlays=6)
    with (result.folder / "per_image.csv").open(newline="") as file:
        dice = {(line["run"], line["id"]): float(line["dice"]) for line in csv.DictReader(file)}
    gains = {one: dice["guided", one] - dice["unguided", one] for one in ROWS}
    headings = re.findall(
        r"<h3 id=\"image-\d+-title\">(.*?) <span class=\"soft\">(.*?) · organ", result.page.read_text()
    )
    reasons = {one.replace("&lt;", "<").replace("&gt;", ">"): why for one, why in headings}

    assert "largest gain" in reasons[max(gains, key=gains.__getitem__)]
    assert all(gains[one] < 0 for one, why in reasons.items() if "largest loss" in why)


def test_what_guidance_changed_is_counted_in_pixels_and_nuclei(two: ReportResult) -> None:
    data = json.loads(
        re.findall('(?s)<script type="application/json" id="data">(.*?)</script>', two.page.read_text())[0]
    )
    (picture,) = data["pictures"]
    shown = data["ids"][data["sheets"].index(0)]
    row, runs = ROWS[shown], two_runs()
    counted = ~row.ignore
    right = {name: ((run.probability(row) >= 0.5) == (row.instances > 0))[counted] for name, run in runs.items()}
    told = {one["name"]: one["guidance"] for one in picture["predictions"]}

    assert told["unguided"] is None
    assert told["guided"]["against"] == "unguided"
    # small nuclei are dropped after the threshold, which moves a few pixels
    assert told["guided"]["helped"] == pytest.approx((right["guided"] & ~right["unguided"]).sum(), abs=12)
    assert told["guided"]["harmed"] == pytest.approx((right["unguided"] & ~right["guided"]).sum(), abs=12)


def test_the_data_of_the_page_are_the_scores_of_the_table(two: ReportResult) -> None:
    data = json.loads(
        re.findall('(?s)<script type="application/json" id="data">(.*?)</script>', two.page.read_text())[0]
    )
    with (two.folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))

    for position, name in enumerate(data["configurations"]):
        own = [line for line in lines if line["configuration"] == name]
        assert [line["id"] for line in own] == data["ids"]
        for metric in ("dice", "hd95", "brier"):
            assert data["values"][metric][position] == pytest.approx([float(line[metric]) for line in own], abs=1e-5)
    assert sum(sheet is not None for sheet in data["sheets"]) == 1
