"""Stage three: trained runs -> a report of what they are worth, on their test part or on other data sets."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, combinations, count
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg.metrics import Resampling
from nucseg.metrics.instances import InstanceMap
from nucseg.nuclei.instances import separate
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.evaluation.comparison import check_same_truth
from nucseg_pipeline.evaluation.experiments import Configuration, configurations, run_names, unguided_beside
from nucseg_pipeline.evaluation.scored_images import NATIVE, Grid, ScoredImage, native_grid, prepared_grid
from nucseg_pipeline.evaluation.scores import RunScores, score_image
from nucseg_pipeline.evaluation.test_sets import TestSet, choose_images, external_test_set, own_test_set
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.report.cross_dataset import Matrix, matrix
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel, guides
from nucseg_pipeline.report.image_layers import Shown
from nucseg_pipeline.report.page import Gallery, matrix_page, page_text
from nucseg_pipeline.report.summary import Made, ReportSummary, summarise
from nucseg_pipeline.report.text import csv_text, json_text, markdown_text, matrix_markdown
from nucseg_pipeline.runs.run import Run

SHOWN_AT_ONCE = 16
"""Images whose maps are held at a time while they are drawn: of 1000 px about 20 MB each and configuration."""

MOST_NAMES = 3
"""A report of more configurations or data sets than this is not named after every one of them."""


@dataclass(frozen=True)
class ReportResult:
    """What stage three made."""

    folder: Path
    page: Path
    """The report for people, one file."""
    findings: tuple[ReportSummary, ...]
    """One for each data set."""
    matrix: Matrix | None
    """All data sets side by side, where there are several."""


def report(config: ReportConfig, progress: Progress = lambda done, total, what: None) -> ReportResult:
    """Score finished runs and write per_image.csv, summary.json, summary.md and report.html.

    Without `datasets` every run is scored on its own test part. Repeats of one configuration, over folds and seeds, are
    summed up; two configurations are compared if they have the same test images, and refused if not. With several
    data sets there is a report in a folder for each, and these four files hold the matrix of them.

    Raises:
        ConfigError: a folder is no finished run, runs cannot be compared, or the report cannot be written.
        DataError: a prediction is not finite, or a native image cannot be read.
        nucseg_cache.CacheError: the store of a run is gone, damaged, or without the embeddings that guide it.
    """
    opened = [Run.open(path, cache=config.cache) for path in config.runs]
    runs = dict(zip(config.names or run_names(config.runs), opened, strict=True))
    entrants = configurations(runs)
    _check_baseline(entrants, config.baseline)
    exams = [external_test_set(dataset, entrants, config.cache) for dataset in config.datasets] or [
        own_test_set(entrants)
    ]
    folder = config.out or _free_folder(Path("reports") / _report_name(entrants, config), config)
    check_writable(folder)
    examined = [_Evaluation.prepare(exam, entrants, config) for exam in exams]

    meter = _Meter(progress, total=sum(one.n_predictions for one in examined))
    made = _made(config, folder)
    told: list[tuple[ReportSummary, dict[str, RunScores]]] = []
    for one in examined:
        scores = one.score(meter)
        findings, columns = summarise(one.exam, entrants, _folders(runs, config), scores, one.grid_name, made)
        album = one.album(columns, scores, findings, meter)
        place = folder if len(examined) == 1 else folder / findings.dataset
        write_files(
            place,
            {
                "per_image.csv": csv_text({findings.dataset: scores}, _by_run(entrants)),
                "summary.json": json_text(findings),
                "summary.md": markdown_text(findings),
                "report.html": page_text(findings, columns, album),
            },
        )
        told.append((findings, scores))
    whole = _write_matrix(folder, told, entrants) if len(told) > 1 else None
    return ReportResult(folder, folder / "report.html", tuple(findings for findings, _ in told), whole)


def _write_matrix(
    folder: Path, told: Sequence[tuple[ReportSummary, dict[str, RunScores]]], entrants: Sequence[Configuration]
) -> Matrix:
    whole = matrix([findings for findings, _ in told])
    write_files(
        folder,
        {
            "per_image.csv": csv_text({findings.dataset: scores for findings, scores in told}, _by_run(entrants)),
            "summary.json": json_text(whole),
            "summary.md": matrix_markdown(whole),
            "report.html": matrix_page(whole),
        },
    )
    return whole


@dataclass
class _Meter:
    """Counts predictions and tells the caller."""

    progress: Progress
    total: int
    done: int = 0

    def tick(self, what: str) -> None:
        self.done += 1
        self.progress(self.done, self.total, what)


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """An exam that all of its runs can sit: what they need is there."""

    exam: TestSet
    entrants: tuple[Configuration, ...]
    grid: Grid
    grid_name: str
    n_overlays: int
    seed: int

    @classmethod
    def prepare(cls, exam: TestSet, entrants: tuple[Configuration, ...], config: ReportConfig) -> _Evaluation:
        """Find out whether every embedding and every native image is there, before hours go into others."""
        for _, name, run in _sitting(exam, entrants):
            run.rows(exam.ids[name], store=exam.store_for(run))
        side_px = exam.store.preparation.get("side_px", 256)
        native = config.grid == NATIVE
        return cls(
            exam=exam,
            entrants=entrants,
            grid=native_grid(exam.store, exam.all_ids, config.source) if native else prepared_grid,
            grid_name="native grid" if native else f"{side_px} px grid",
            n_overlays=min(config.n_overlays, len(exam.all_ids)),
            seed=config.seed,
        )

    @property
    def n_predictions(self) -> int:
        return sum(map(len, self.exam.ids.values())) + self.n_overlays * len(self.entrants)

    def score(self, meter: _Meter) -> dict[str, RunScores]:
        """Run name -> scores of every run that has images here."""
        scores = {}
        for _, name, run in _sitting(self.exam, self.entrants):
            images = []
            for case in self._cases(run, self.exam.ids[name]):
                images.append(score_image(case, run.rule))
                meter.tick(f"scoring {name}")
            scores[name] = RunScores(name, tuple(images))
        for first, second in combinations(scores.values(), 2):
            check_same_truth(first, second)
        return scores

    def album(
        self, columns: Sequence[RunScores], scores: Mapping[str, RunScores], findings: ReportSummary, meter: _Meter
    ) -> Gallery:
        """Choose the images to show, and what else is seen of them; they are predicted when they are looked at."""
        beside = unguided_beside(self.entrants, findings.baseline)
        gains = _gains({one.name: one.values("dice") for one in columns}, beside, findings.baseline)
        chosen = choose_images(columns[0].values("dice"), self.n_overlays, self.seed, gains)
        strata = {image.id: image.stratum for image in columns[0].images}
        found = guides(self.exam, self.entrants, list(chosen), strata, self.seed) if chosen else []
        return Gallery(chosen, tuple(found), beside, self._shown(chosen, found, beside, scores, meter))

    def _shown(
        self,
        chosen: Mapping[str, str],
        found: Sequence[EmbeddingPanel],
        beside: Mapping[str, str],
        scores: Mapping[str, RunScores],
        meter: _Meter,
    ) -> Iterator[Shown]:
        """Predict the images once more, a few at a time, by the first run of each configuration scored on them.

        Holding the maps of all images from the scoring on would take gigabytes.
        """
        ids = list(chosen)
        for start in range(0, len(ids), SHOWN_AT_ONCE):
            part = ids[start : start + SHOWN_AT_ONCE]
            painted = {name: guide.paint(part) for guide in found for name in guide.names}
            cases: dict[str, ScoredImage] = {}
            instances: dict[str, dict[str, InstanceMap]] = {one: {} for one in part}
            drawn: dict[str, dict[str, RunScores]] = {one: {} for one in part}
            for entrant in self.entrants:
                for name, run, own in self._shares(entrant, part):
                    for case in self._cases(run, own):
                        cases[case.id] = case
                        drawn[case.id][entrant.name] = scores[name]
                        instances[case.id][entrant.name] = separate(
                            case.probability, run.rule.scaled(case.scale), case.distance
                        )
                        meter.tick("drawing")
            for one in part:
                embeddings = {name: colours[one] for name, colours in painted.items()}
                yield Shown(cases[one], chosen[one], instances[one], drawn[one], beside, embeddings)

    def _shares(self, entrant: Configuration, chosen: Iterable[str]) -> Iterator[tuple[str, Run, list[str]]]:
        """Give each of some images to the first run that was scored on it."""
        left = list(chosen)
        for name, run in entrant.runs.items():
            own = [one for one in left if one in self.exam.ids.get(name, ())]
            left = [one for one in left if one not in own]
            if own:
                yield name, run, own

    def _cases(self, run: Run, ids: Sequence[str]) -> Iterator[ScoredImage]:
        return map(self.grid, run.predict(ids, store=self.exam.store_for(run)))


def _gains(
    dice: Mapping[str, Mapping[str, float]], beside: Mapping[str, str], baseline: str
) -> dict[str, float] | None:
    """What the first guided configuration gains over the one without guidance, else the first over the baseline."""
    others = [(name, baseline) for name in dice if name != baseline]
    pair = next(iter((*beside.items(), *others)), None)
    return pair and {one: value - dice[pair[1]][one] for one, value in dice[pair[0]].items()}


def _sitting(exam: TestSet, entrants: Sequence[Configuration]) -> Iterator[tuple[Configuration, str, Run]]:
    for entrant in entrants:
        for name, run in entrant.runs.items():
            if name in exam.ids:
                yield entrant, name, run


def _check_baseline(entrants: Sequence[Configuration], baseline: str) -> None:
    names = [entrant.name for entrant in entrants]
    if baseline and not any(baseline == entrant.name or baseline in entrant.runs for entrant in entrants):
        raise ConfigError(f"The baseline {baseline!r} is not among the runs: {', '.join(names)}.")


def _report_name(entrants: Sequence[Configuration], config: ReportConfig) -> str:
    names = [entrant.name.replace("/", "-") for entrant in entrants]
    name = "-vs-".join(names) if len(names) <= MOST_NAMES else f"{names[0]}-and-{len(names) - 1}-others"
    datasets = "-and-".join(config.datasets[:MOST_NAMES])
    return name + (f"-on-{datasets}" if datasets else "") + ("-native" if config.grid == NATIVE else "")


def _free_folder(folder: Path, config: ReportConfig) -> Path:
    """A folder without the report of another command: names of runs are short, and two reports may have one name."""
    candidates = chain([folder], (folder.with_name(f"{folder.name}-{number}") for number in count(2)))
    return next(place for place in candidates if _command_in(place) in ("", _made(config, place).command))


def _command_in(folder: Path) -> str:
    """The command that made the report in a folder; empty where there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / "summary.json").read_bytes())["command"])
    return ""


def _made(config: ReportConfig, folder: Path) -> Made:
    words = ["nucseg", "report", *map(str, config.runs), "--out", str(folder)]
    words += [word for name in config.names for word in ("--name", name)]
    words += [word for dataset in config.datasets for word in ("--dataset", dataset)]
    grid = config.grid if config.grid == NATIVE else ""
    n_images = "" if config.n_overlays == ReportConfig.n_overlays else str(config.n_overlays)
    options = {"--grid": grid, "--source": config.source, "--n-images": n_images, "--cache": config.cache,
               "--baseline": config.baseline}  # fmt: skip
    return Made(
        command=shlex.join([*words, *(str(word) for pair in options.items() if pair[1] for word in pair)]),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nucseg=version("nucseg"),
        resampling=Resampling(n_resamples=config.n_resamples, seed=config.seed),
        baseline=config.baseline,
    )


def _folders(runs: Mapping[str, Run], config: ReportConfig) -> dict[str, str]:
    return dict(zip(runs, map(str, config.runs), strict=True))


def _by_run(entrants: Sequence[Configuration]) -> dict[str, str]:
    return {name: entrant.name for entrant in entrants for name in entrant.runs}
