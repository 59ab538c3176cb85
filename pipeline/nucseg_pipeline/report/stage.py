"""Stage three: score trained runs on their test parts, or on other data sets, and write a report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from math import prod
from pathlib import Path

from nucseg.errors import ConfigError, known
from nucseg.metrics import Resampling
from nucseg.metrics.instances import InstanceMap
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.evaluation.experiments import (
    MAX_NAMES,
    Configuration,
    group_runs,
    joint_name,
    run_names,
    unguided_references,
)
from nucseg_pipeline.evaluation.score_runs import (
    PredictImages,
    check_embeddings,
    inspected,
    predict_from_store,
    score_runs,
)
from nucseg_pipeline.evaluation.scored_images import (
    NATIVE,
    PREPARED,
    TILES,
    ScoredImage,
    grid_name,
    native_grid,
    prepared_grid,
)
from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.evaluation.test_sets import TestSet, choose_images, external_test_set, own_test_set
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.report.cross_dataset import Matrix, matrix
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel, embedding_panels
from nucseg_pipeline.report.image_layers import GalleryImage
from nucseg_pipeline.report.page import Gallery, matrix_page, page_text
from nucseg_pipeline.report.summary import ReportProvenance, ReportSummary, summarise
from nucseg_pipeline.report.text import csv_text, json_text, markdown_text, matrix_markdown
from nucseg_pipeline.report.tiles import TilePredictions, shrunk_note
from nucseg_pipeline.runs.run import Run

OnPrediction = Callable[[str], None]

DRAWN_AT_ONCE = 16
"""Images whose maps are in memory while they are drawn: at 1000 px about 20 MB for each image and configuration."""
DRAWN_PX = DRAWN_AT_ONCE * 1000**2
"""Of larger images, as many as have this number of pixels together."""


@dataclass(frozen=True)
class ReportResult:
    """What stage three wrote."""

    folder: Path
    page: Path
    summaries: tuple[ReportSummary, ...]
    matrix: Matrix | None
    """All data sets together; None for a single one."""


def report(config: ReportConfig, progress: Progress = lambda done, total, what: None) -> ReportResult:
    """Score finished runs and write per_image.csv, summary.json, summary.md and report.html.

    Without `datasets` every run is scored on its own test part. Repeats of a configuration, over folds and seeds, are
    averaged. Configurations are compared on the same test images; runs with different test images are refused. With
    several data sets, each has a report in a folder of its own, and these four files summarise all of them.

    Raises:
        ConfigError: a folder is no finished run, runs cannot be compared, or the report cannot be written.
        DataError: every pixel of a test part is ignored, a prediction is not finite, or a native image cannot be read.
        EncoderError: by tiles, the weights of an encoder are not found, or are not those of the training.
        nucseg_cache.CacheError: the store of a run is gone, damaged, or without the embeddings that guide it.
    """
    choose_device(config.device)
    opened = [Run.open(path, cache=config.cache) for path in config.runs]
    runs = dict(zip(config.names or run_names(config.runs), opened, strict=True))
    configurations = group_runs(runs)
    _check_baseline(configurations, config.baseline)
    test_sets = [external_test_set(name, configurations, config.cache) for name in config.datasets]
    test_sets = [inspected(test_set) for test_set in test_sets or [own_test_set(configurations)]]
    folder = config.out or _free_folder(Path("reports") / _report_name(configurations, config), config)
    check_writable(folder)
    evaluations = [_Evaluation.prepare(test_set, configurations, config) for test_set in test_sets]

    total, done = sum(evaluation.n_predictions for evaluation in evaluations), count(1)
    provenance = ReportProvenance(
        command=_command(config, folder),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nucseg=version("nucseg"),
        resampling=Resampling(n_resamples=config.n_resamples, seed=config.seed),
        baseline=config.baseline,
    )
    folders = dict(zip(runs, map(str, config.runs), strict=True))
    by_run = {name: configuration.name for configuration in configurations for name in configuration.runs}
    summaries, scores_by_dataset = [], {}
    not_scored = {test_set.store.dataset: test_set.not_scored for test_set in test_sets}

    def on_prediction(what: str) -> None:
        progress(next(done), total, what)

    for evaluation in evaluations:
        scores = evaluation.score(on_prediction)
        summary, columns = summarise(
            evaluation.described_test_set, configurations, folders, scores, evaluation.grid_name, provenance
        )
        gallery = evaluation.gallery(columns, scores, summary.baseline, on_prediction)
        files = {
            "per_image.csv": csv_text({summary.dataset: scores}, by_run, not_scored),
            "summary.json": json_text(summary),
            "summary.md": markdown_text(summary),
            "report.html": page_text(summary, columns, gallery),
        }
        write_files(folder if len(evaluations) == 1 else folder / summary.dataset, files)
        summaries.append(summary)
        scores_by_dataset[summary.dataset] = scores
    combined = None
    if len(summaries) > 1:
        combined = matrix(summaries)
        files = {
            "per_image.csv": csv_text(scores_by_dataset, by_run, not_scored),
            "summary.json": json_text(combined),
            "summary.md": matrix_markdown(combined),
            "report.html": matrix_page(combined),
        }
        write_files(folder, files)
    return ReportResult(folder, folder / "report.html", tuple(summaries), combined)


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """A test set that all configurations can be scored on: their inputs were checked."""

    test_set: TestSet
    configurations: tuple[Configuration, ...]
    predict: PredictImages
    config: ReportConfig

    @classmethod
    def prepare(cls, test_set: TestSet, configurations: tuple[Configuration, ...], config: ReportConfig) -> _Evaluation:
        """Check that every embedding, native image or encoder is there, before hours are spent on predictions."""
        if config.grid == TILES:
            by_tiles = TilePredictions(
                test_set, configurations, source=config.source, weights=config.weights, device=config.device
            )
            return cls(test_set, configurations, by_tiles, config)
        check_embeddings(test_set, configurations)
        native = config.grid == NATIVE
        grid = native_grid(test_set.store, test_set.all_ids, config.source) if native else prepared_grid
        return cls(test_set, configurations, predict_from_store(test_set, grid, config.device), config)

    @property
    def grid_name(self) -> str:
        return grid_name(self.config.grid, int(self.test_set.store.preparation.get("side_px", 256)))

    @property
    def described_test_set(self) -> TestSet:
        """The test set with notes on the size of its images; complete after `score`."""
        if isinstance(self.predict, TilePredictions):
            notes = self.predict.notes
        else:
            notes = shrunk_note(self.test_set, self.configurations, _command(replace(self.config, grid=TILES), None))
        return replace(self.test_set, notes=(*self.test_set.notes, *notes))

    @property
    def n_predictions(self) -> int:
        n_images = min(self.config.n_images, len(self.test_set.all_ids))
        return sum(map(len, self.test_set.ids.values())) + n_images * len(self.configurations)

    def score(self, on_prediction: OnPrediction) -> dict[str, RunScores]:
        """Run name -> scores of every run that has images here."""
        return score_runs(
            self.test_set,
            self.configurations,
            self.predict,
            lambda name: on_prediction(f"scoring {name}"),
        )

    def gallery(
        self, columns: Sequence[RunScores], scores: Mapping[str, RunScores], baseline: str, on_prediction: OnPrediction
    ) -> Gallery:
        """Choose the images to show; they are predicted while the page is written."""
        unguided = unguided_references(self.configurations, baseline)
        gains = _gains({column.name: column.values("dice") for column in columns}, unguided, baseline)
        chosen = choose_images(columns[0].values("dice"), self.config.n_images, self.config.seed, gains)
        strata = {image.id: image.stratum for image in columns[0].images}
        panels: list[EmbeddingPanel] = []
        if chosen and self.config.grid != TILES:  # tiles are guided by embeddings of their own
            panels = embedding_panels(self.test_set, self.configurations, list(chosen), strata, self.config.seed)
        return Gallery(tuple(panels), unguided, self._images(chosen, panels, unguided, scores, on_prediction))

    def _images(
        self,
        chosen: Mapping[str, str],
        panels: Sequence[EmbeddingPanel],
        unguided: Mapping[str, str],
        scores: Mapping[str, RunScores],
        on_prediction: OnPrediction,
    ) -> Iterator[GalleryImage]:
        """Predict the chosen images again, a few at a time: keeping the maps of all images would take gigabytes."""
        ids = list(chosen)
        at_once = self._drawn_at_once(ids)
        for start in range(0, len(ids), at_once):
            part = ids[start : start + at_once]
            colours = {name: painted for panel in panels for painted in [panel.paint(part)] for name in panel.names}
            images: dict[str, ScoredImage] = {}
            instances: dict[str, dict[str, InstanceMap]] = {image_id: {} for image_id in part}
            shown_scores: dict[str, dict[str, RunScores]] = {image_id: {} for image_id in part}
            for configuration in self.configurations:
                for name, run, own in self.test_set.first_runs(configuration, part):
                    for image in self.predict(run, own):
                        images[image.id] = image
                        shown_scores[image.id][configuration.name] = scores[name]
                        instances[image.id][configuration.name] = image.predicted(run.rule)
                        on_prediction("drawing")
            for image_id in part:
                yield GalleryImage(
                    image=images[image_id],
                    why=chosen[image_id],
                    instances=instances[image_id],
                    scores=shown_scores[image_id],
                    unguided=unguided,
                    embeddings={name: painted[image_id] for name, painted in colours.items()},
                )

    def _drawn_at_once(self, ids: Sequence[str]) -> int:
        """As many images as fit into a bounded memory: native ones can be large."""
        if self.config.grid == PREPARED or not ids:
            return DRAWN_AT_ONCE
        store = self.test_set.store
        largest_px = max(prod(store.info(store.row_of(image_id)).size) for image_id in ids)
        return min(DRAWN_AT_ONCE, max(DRAWN_PX // largest_px, 1))


def _gains(
    dice: Mapping[str, Mapping[str, float]], unguided: Mapping[str, str], baseline: str
) -> dict[str, float] | None:
    """Gain in Dice, for each image, of the first guided configuration, else of the first one compared at all."""
    others = [(name, baseline) for name in dice if name != baseline]
    pair = next(iter((*unguided.items(), *others)), None)
    return pair and {image_id: value - dice[pair[1]][image_id] for image_id, value in dice[pair[0]].items()}


def _check_baseline(configurations: Sequence[Configuration], baseline: str) -> None:
    names = [configuration.name for configuration in configurations]
    if baseline and not any(baseline in (item.name, *item.runs) for item in configurations):
        raise ConfigError(f"The baseline {baseline!r} is not among the runs (--baseline). {known(baseline, names)}")


def _report_name(configurations: Sequence[Configuration], config: ReportConfig) -> str:
    datasets = "-and-".join(config.datasets[:MAX_NAMES])
    name = joint_name(configurations) + (f"-on-{datasets}" if datasets else "")
    return name + ("" if config.grid == PREPARED else f"-{config.grid}")


def _free_folder(folder: Path, config: ReportConfig) -> Path:
    """A folder without the report of another command: two reports may have the same name."""
    candidates = chain([folder], (folder.with_name(f"{folder.name}-{number}") for number in count(2)))
    return next(place for place in candidates if _command_in(place) in ("", _command(config, place)))


def _command_in(folder: Path) -> str:
    """The command that wrote the report in a folder; empty if there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / "summary.json").read_bytes())["command"])
    return ""


def _command(config: ReportConfig, folder: Path | None) -> str:
    return command(replace(config, out=folder), without=("seed", "n_resamples"))
