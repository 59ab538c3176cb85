"""Score images tile by tile, as `nucseg predict` sees them, and say where images were shrunk instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod, sqrt
from pathlib import Path

from nucseg.data import Entry, Sample
from nucseg.data.conversion import conversion_of
from nucseg.data.file_entries import ImageFileEntry
from nucseg.data.official_splits import plain_name
from nucseg.data.slides import ArraySlide, Slide, open_slide
from nucseg_cache import RowInfo
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.scored_images import ScoredImage, native_entries, read_unchanged
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.predict.predictor import Predictor
from nucseg_pipeline.runs.run import Run

SHRUNK_FACTOR = 1.5
"""Images whose longest side exceeds that of the training images by more than this factor are reported as shrunk."""

METHOD_NOTE = (
    "Images are predicted at native size in tiles of the size of the training images, with the defaults of `nucseg "
    "predict`: glass, black, unscanned areas and pen are passed over."
)


class TilePredictions:
    """Predicts the original images of a test set by tiles; a function as `score_runs.PredictImages`.

    One image at a time is in memory, and one encoder. The embeddings of tiles are computed whenever an image is
    predicted, and not kept.
    """

    def __init__(
        self,
        test_set: TestSet,
        configurations: Iterable[Configuration],
        *,
        source: Path | None,
        weights: Path | None,
        device: str,
    ) -> None:
        """Find the original images and every encoder, before hours are spent on predictions.

        Args:
            test_set: the images.
            configurations: whose runs predict them.
            source: folder of the images; None is the one that they were embedded from.
            weights: weights of the encoder of guided runs; None finds them by their digest.
            device: auto, cpu, mps, cuda or cuda:N.

        Raises:
            ConfigError: an image is not in the folder, or a run's checkpoint cannot be read.
            DataError: the folder does not have the data set's layout.
            EncoderError: the weights of an encoder are not found, or are not those of the training.
        """
        self._store, self._weights, self._device = test_set.store, weights, device
        # predict normalises the stain itself, fitted to the tiles with tissue
        self._entries = native_entries(test_set.store, plain_name(test_set.store.dataset), test_set.all_ids, source)
        self._opened: tuple[Run, Predictor] | None = None
        self._assumed: set[str] = set()
        runs = [run for _, run in test_set.scored_runs(configurations)]
        for run in {run.inputs.embedding_hash: run for run in runs}.values():
            self._predictor(run)

    @property
    def notes(self) -> tuple[str, ...]:
        """How images were predicted, and for how many the magnification was not known."""
        if not self._assumed:
            return (METHOD_NOTE,)
        return (
            METHOD_NOTE,
            f"{_images(len(self._assumed))} assumed to have the magnification of the training images, because the "
            "microns per pixel of one or the other are not known.",
        )

    def __call__(self, run: Run, image_ids: Sequence[str]) -> Iterator[ScoredImage]:
        """Predict images by their ids; raises as `read_unchanged`, and ConfigError if resolutions are too far apart."""
        predictor = self._predictor(run)
        for image_id in image_ids:
            yield self._scored(predictor, self._store.info(self._store.row_of(image_id)))

    def _predictor(self, run: Run) -> Predictor:
        if self._opened is None or self._opened[0] is not run:
            self._opened = None  # frees the encoder before the next is loaded
            weights = self._weights if run.inputs.embedding else None
            self._opened = run, Predictor.open(run.folder.path, weights=weights, device=self._device)
        return self._opened[1]

    def _scored(self, predictor: Predictor, info: RowInfo) -> ScoredImage:
        entry = self._entries[info.id]
        sample = read_unchanged(entry, info)
        slide = _opened(entry, sample, conversion_of(self._store.preparation))
        try:
            prediction = predictor.prediction_for(slide, info.mpp)
            maps, instances = prediction.whole()
        finally:
            slide.close()
        if prediction.scale.warning:
            self._assumed.add(info.id)
        probability, *distance = maps
        return ScoredImage.of(
            info,
            (sample.image, sample.instances, sample.ignore),
            probability,
            distance[0] if distance else None,
            scale=sqrt(prod(prediction.tiled.network_px)),
            separated=instances,
        )


def _images(n: int, n_subject: int | None = None) -> str:
    """A number of images with the verb, which agrees with `n_subject` where that many of them are meant."""
    is_one = (n if n_subject is None else n_subject) == 1
    return f"{n} image{'' if n == 1 else 's'} {'is' if is_one else 'are'}"


def _opened(entry: Entry, sample: Sample, convert: str) -> Slide:
    """The image as predict opens its file, whose resolution and levels it uses; in memory if it has no file."""
    if isinstance(entry, ImageFileEntry):
        return open_slide(entry.image_file, None, convert)
    return ArraySlide(sample.image)


def shrunk_note(test_set: TestSet, configurations: Iterable[Configuration], by_tiles: str) -> tuple[str, ...]:
    """Say how many images are much larger than the training images; `by_tiles` is the command that does not shrink.

    Sides are compared in microns where the resolution of both is known, else in pixels.
    """
    infos = {info.id: info for info in test_set.store.table}
    names_by_note: dict[str, list[str]] = {}
    for configuration in configurations:
        run = configuration.first
        ids = {image_id for name in configuration.runs for image_id in test_set.ids.get(name, ())}
        factors = sorted(_times_larger(infos[image_id], run) for image_id in ids)
        larger = [f"{factor:.1f}" for factor in factors if factor > SHRUNK_FACTOR]
        if larger:
            times = " to ".join(dict.fromkeys((larger[0], larger[-1])))
            note = (
                f"{len(larger)} of {_images(len(factors), len(larger))} {times} times as long as the training images "
                f"(longest side {run.inputs.native_px} px). They were shrunk to the same square, so their nuclei are "
                f"smaller than in training by this factor. Score them by tiles: `{by_tiles}`."
            )
            names_by_note.setdefault(note, []).append(configuration.name)
    return tuple(f"{', '.join(names)}: {note}" for note, names in names_by_note.items())


def _times_larger(info: RowInfo, run: Run) -> float:
    """How many times as long as the longest side of the training images that of an image is."""
    factor = max(info.size) / run.inputs.native_px
    return factor * info.mpp / run.inputs.mpp if info.mpp and run.inputs.mpp else factor
