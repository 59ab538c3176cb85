"""Scores of every run of some configurations on a test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from nucseg.data.files import some
from nucseg_pipeline.evaluation.comparison import check_same_truth
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.scored_images import Grid, ScoredImage
from nucseg_pipeline.evaluation.scores import RunScores, averaged, score_image
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.loading.inspection import IGNORED, caution, caution_notes, nothing_counts, samples
from nucseg_pipeline.runs.run import Run


def inspected(test_set: TestSet) -> TestSet:
    """Leave out the images in which every pixel is ignored: two empty masks would score 1 there.

    The notes say which they are, and which images do not look like H&E.

    Raises:
        DataError: every pixel of the images of a run is ignored.
    """
    store, image_ids = test_set.store, test_set.all_ids
    cautions = {sample.id: caution(sample) for sample in samples(store, image_ids)}
    ignored = {image_id: store.info(store.row_of(image_id)) for image_id, why in cautions.items() if why == IGNORED}
    ids = {name: tuple(i for i in own if i not in ignored) for name, own in test_set.ids.items()}
    for name, own in test_set.ids.items():
        if own and not ids[name]:
            raise nothing_counts(store, own, f"test images of {name}")
    notes = list(caution_notes(cautions, len(image_ids)))
    if ignored:
        notes.append(
            f"{len(ignored)} of {len(image_ids)} test images are not scored, because every pixel of them is ignored: "
            f"{some(list(ignored))}."
        )
    not_scored = {name: tuple(ignored[i] for i in own if i in ignored) for name, own in test_set.ids.items()}
    return replace(test_set, ids=ids, notes=(*test_set.notes, *notes), not_scored=not_scored if ignored else {})


def check_embeddings(test_set: TestSet, configurations: Iterable[Configuration]) -> None:
    """Check that every embedding is there, before hours are spent on predictions.

    Raises:
        ConfigError: an image has no embedding.
        nucseg_cache.CacheError: the store has no embeddings of a run's encoder.
    """
    for name, run in test_set.scored_runs(configurations):
        run.rows(test_set.ids[name], store=test_set.store_for(run))


PredictImages = Callable[[Run, Sequence[str]], Iterator[ScoredImage]]
"""Predicts some images, by id, with a run; the results are on the grid that scores are computed on."""


def predict_from_store(test_set: TestSet, grid: Grid, device: str) -> PredictImages:
    """A function that predicts the prepared images of a test set with their cached embeddings."""

    def predict(run: Run, image_ids: Sequence[str]) -> Iterator[ScoredImage]:
        return map(grid, run.predict(image_ids, store=test_set.store_for(run), device=device))

    return predict


def score_runs(
    test_set: TestSet, configurations: Iterable[Configuration], predict: PredictImages, on_image: Callable[[str], None]
) -> dict[str, RunScores]:
    """Score every run on its images: run name -> scores; `on_image` is called with the run's name after each image.

    Raises:
        ConfigError: two runs were scored on different images, or against different masks, under the same id.
        DataError: a prediction is not finite, or a native image cannot be read.
    """
    scores = {}
    for name, run in test_set.scored_runs(configurations):
        images = []
        for image in predict(run, test_set.ids[name]):
            images.append(score_image(image, run.rule))
            on_image(name)
        scores[name] = RunScores(name, tuple(images))
    for first, second in combinations(scores.values(), 2):
        check_same_truth(first, second)
    return scores


def average_configurations(
    configurations: Iterable[Configuration], scores: Mapping[str, RunScores]
) -> tuple[RunScores, ...]:
    """Average the scores of each configuration over its runs."""
    return tuple(
        averaged(configuration.name, [scores[name] for name in configuration.runs if name in scores])
        for configuration in configurations
    )
