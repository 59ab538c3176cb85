"""Scores of a run, or of repeated runs, per image and over all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from nucseg import metrics
from nucseg.errors import DataError
from nucseg.metrics import Interval, PixelCounts, Reliability, Resampling, SizeBin
from nucseg.nuclei.instances import InstanceRule, foreground
from nucseg_pipeline.evaluation.scored_images import ScoredImage

PIXEL_SCORES = {
    "dice": metrics.dice,
    "iou": metrics.iou,
    "miou": metrics.miou,
    "dice_weighted": metrics.dice_weighted,
    "iou_weighted": metrics.iou_weighted,
}
POOLED_SCORES = {"dice_pooled": metrics.dice, "iou_pooled": metrics.iou}
INSTANCE_SCORES = ("aji", "pq", "dq", "sq")
BOUNDARY_SCORES = ("hd95", "boundary_f1")

IMAGE_METRICS = (*PIXEL_SCORES, *INSTANCE_SCORES, *BOUNDARY_SCORES, "brier")
METRICS = (
    *("dice", "iou", "miou", "dice_pooled", "iou_pooled"),
    *INSTANCE_SCORES,
    *BOUNDARY_SCORES,
    *("brier", "ece"),
    *("dice_weighted", "iou_weighted"),
)
"""All metrics in the order of the tables; the class-weighted ones, which reward background, come last."""
LOWER_IS_BETTER = frozenset({"hd95", "brier", "ece"})

ALL_BACKGROUND = "all background"
"""Name of the empty prediction, which has no nuclei."""


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The true nuclei of one image, without those that lie completely in ignored pixels."""

    area_px: NDArray[np.float64]
    """(T,) area in pixels of the evaluated grid."""
    found: NDArray[np.float64]
    """(T,) 1 where a predicted nucleus matches at IoU > 0.5, else 0; over repeats, the fraction that found it."""


@dataclass(frozen=True)
class ImageScores:
    """Scores of the prediction for one image."""

    id: str
    group: str
    stratum: str
    image_digest: str
    """Hexadecimal digest of the file content, as that of the masks."""
    mask_digest: str
    diagonal_px: float
    """Diagonal of the image on the evaluated grid: the 95 % Hausdorff distance where one of the masks is empty."""
    counts: PixelCounts
    """Over repeats, those of the first."""
    n_true: int
    """True nuclei, without those that lie completely in ignored pixels."""
    n_predicted: float
    """Predicted nuclei, counted likewise; over repeats, the mean."""
    values: Mapping[str, float]
    """One value for each of `IMAGE_METRICS`."""
    reliability: Reliability = field(compare=False)
    nuclei: Nuclei = field(compare=False)

    @property
    def is_one_empty(self) -> bool:
        """Whether exactly one of truth and prediction has no nucleus pixel."""
        return (self.counts.tp + self.counts.fn == 0) != (self.counts.tp + self.counts.fp == 0)


@dataclass(frozen=True)
class RunScores:
    """Scores on some images of one run, of averaged repeats, or of the empty prediction."""

    name: str
    images: tuple[ImageScores, ...]
    """Each image once; over repeats, averaged."""
    repeats: tuple[RunScores, ...] = field(default=(), repr=False)
    """The runs that were averaged; empty for a single run."""

    @property
    def groups(self) -> dict[str, str]:
        """Group of each image id; an image without a group is a group of its own."""
        return {image.id: image.group or image.id for image in self.images}

    @property
    def n_groups(self) -> int:
        """Number of groups that the images come from."""
        return len(set(self.groups.values()))

    @property
    def predictions(self) -> tuple[ImageScores, ...]:
        """Every prediction; over repeats, an image appears as often as it was predicted."""
        return tuple(image for run in self.repeats or (self,) for image in run.images)

    @property
    def n_one_empty(self) -> int:
        """Predictions where exactly one mask is empty: hd95 is the image's diagonal there."""
        return sum(image.is_one_empty for image in self.predictions)

    @property
    def reliability(self) -> Reliability:
        """Calibration over all pixels of all predictions."""
        return reduce(add, (image.reliability for image in self.predictions))

    @property
    def layers(self) -> tuple[tuple[ImageScores, ...], ...]:
        """Sets of predictions that cover every image once, in the order of `images`.

        There are as many sets as predictions of the image that was predicted most often. Predictions of other images
        are repeated in turn, so that every image has the same weight in pooled scores.
        """
        by_id: dict[str, list[ImageScores]] = {}
        for image in self.predictions:
            by_id.setdefault(image.id, []).append(image)
        most = max(map(len, by_id.values()))
        return tuple(
            tuple(by_id[image.id][layer % len(by_id[image.id])] for image in self.images) for layer in range(most)
        )

    def values(self, metric: str) -> dict[str, float]:
        """The values of one of `IMAGE_METRICS` by image id."""
        return {image.id: image.values[metric] for image in self.images}

    def all_background(self) -> RunScores:
        """Scores of an empty prediction on the same images."""
        return RunScores(ALL_BACKGROUND, tuple(map(_empty_prediction, self.images)))

    def intervals(self, draws: Resampling) -> dict[str, Interval]:
        """Every one of `METRICS` over the images, with its bootstrap interval; all share one resampling.

        Pooled scores are computed for each of `layers` and averaged: over repeats, the mean of their pooled scores.
        """
        layers = self.layers
        tables = [
            np.array([[image.values[name] for name in IMAGE_METRICS] + [1.0] for image in self.images]),
            *(np.array([astuple(image.counts) for image in layer]) for layer in layers),
            *(np.array([metrics.reliability_row(image.reliability) for image in layer]) for layer in layers),
        ]
        columns = np.hstack(tables).astype(np.float64)
        resampled, n_groups = metrics.resampled_sums(columns, list(self.groups.values()), draws)
        own, others = (_scores(sums, len(layers)) for sums in (columns.sum(axis=0, keepdims=True), resampled))
        n_images = len(self.images)
        return {
            name: metrics.percentile_interval(float(own[name][0]), others[name], n_images, n_groups) for name in METRICS
        }

    def recall_by_size(self, draws: Resampling) -> tuple[SizeBin, ...]:
        """Recall of true nuclei by quartiles of their area; empty without nuclei."""
        areas = [image.nuclei.area_px for image in self.images]
        found = [image.nuclei.found for image in self.images]
        return metrics.recall_by_size(areas, found, metrics.size_edges(areas), list(self.groups.values()), draws)


def score_image(image: ScoredImage, rule: InstanceRule) -> ImageScores:
    """Score a prediction: pixels after the threshold, nuclei after touching ones are separated.

    Lengths and areas of the rule are in pixels of the grid that the run was trained on; they are scaled to the image's.

    Raises:
        DataError: probability or distance is not finite.
    """
    if not all(np.isfinite(values).all() for values in (image.probability, image.distance) if values is not None):
        raise DataError(
            f"The prediction of {image.id} is not finite: the training diverged or its precision overflowed. "
            "Train again with a lower learning rate or without mixed precision."
        )
    truth, predicted = image.instances > 0, foreground(image.probability, rule)
    counts = metrics.count_pixels(truth, predicted, image.ignore)
    pairs = metrics.overlaps(image.instances, image.predicted(rule), image.ignore)
    quality = metrics.panoptic_quality(pairs)
    reliability = metrics.count_reliability(image.probability, truth, image.ignore)
    return ImageScores(
        id=image.id,
        group=image.group,
        stratum=image.stratum,
        image_digest=image.image_digest.hex(),
        mask_digest=image.mask_digest.hex(),
        diagonal_px=image.diagonal_px,
        counts=counts,
        n_true=pairs.true_area.size,
        n_predicted=pairs.predicted_area.size,
        values={
            **_pixel_scores(counts),
            **{"aji": metrics.aji(pairs), "pq": quality.pq, "dq": quality.dq, "sq": quality.sq},
            "hd95": metrics.hausdorff95(truth, predicted, image.ignore, diagonal_px=image.diagonal_px),
            "boundary_f1": metrics.boundary_f1(truth, predicted, image.ignore),
            "brier": metrics.brier(reliability),
        },
        reliability=reliability,
        nuclei=Nuclei(pairs.true_area, metrics.matched(pairs).astype(np.float64)),
    )


def averaged(name: str, repeats: Sequence[RunScores]) -> RunScores:
    """Average repeats per image: each score is the mean over the runs that were scored on the image."""
    by_id: dict[str, list[ImageScores]] = {}
    for image in (image for run in repeats for image in run.images):
        by_id.setdefault(image.id, []).append(image)
    return RunScores(name, tuple(map(_average, by_id.values())), repeats=tuple(repeats) if len(repeats) > 1 else ())


def _average(images: Sequence[ImageScores]) -> ImageScores:
    if len(images) == 1:
        return images[0]
    first = images[0]
    return replace(
        first,
        n_predicted=float(np.mean([image.n_predicted for image in images])),
        values={name: float(np.mean([image.values[name] for image in images])) for name in first.values},
        nuclei=Nuclei(first.nuclei.area_px, np.mean([image.nuclei.found for image in images], axis=0)),
    )


def _scores(sums: NDArray[np.float64], n_layers: int) -> dict[str, NDArray[np.float64]]:
    """Every one of `METRICS`, (R,), from R sums over images of the columns in `RunScores.intervals`."""
    widths = [len(IMAGE_METRICS), 1, *[4] * n_layers]
    means, n_images, *counts, bins = np.split(sums, np.cumsum(widths), axis=1)
    scores = dict(zip(IMAGE_METRICS, (means / n_images).T, strict=True))
    for name, score in POOLED_SCORES.items():
        scores[name] = np.mean([[score(PixelCounts(*row)) for row in layer.tolist()] for layer in counts], axis=0)
    scores["ece"] = np.mean([metrics.calibration_errors(layer) for layer in np.hsplit(bins, n_layers)], axis=0)
    return scores


def _empty_prediction(image: ImageScores) -> ImageScores:
    """Derive the scores of an empty prediction from those of any other prediction."""
    true = image.counts
    counts = PixelCounts(tp=0, fp=0, fn=true.tp + true.fn, tn=true.fp + true.tn)
    reliability = Reliability.of_nothing(counts.fn + counts.tn, counts.fn)
    # two empty masks: every score is 1 and hd95 is 0; one empty mask: every score is 0 and hd95 is the diagonal
    instance_scores = dict.fromkeys(INSTANCE_SCORES, float(image.n_true == 0))
    return replace(
        image,
        counts=counts,
        n_predicted=0,
        values={
            **_pixel_scores(counts),
            **instance_scores,
            "hd95": image.diagonal_px if counts.fn else 0.0,
            "boundary_f1": float(counts.fn == 0),
            "brier": metrics.brier(reliability),
        },
        reliability=reliability,
        nuclei=Nuclei(image.nuclei.area_px, np.zeros_like(image.nuclei.found)),
    )


def _pixel_scores(counts: PixelCounts) -> dict[str, float]:
    return {name: score(counts) for name, score in PIXEL_SCORES.items()}
