"""Scores of one run on its test part, image by image and over all images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.instances import InstanceRule, foreground, separate
from nucseg.metrics import (
    Interval,
    PixelCounts,
    Resampling,
    aji,
    count_pixels,
    dice,
    dice_weighted,
    iou,
    iou_weighted,
    mean_interval,
    miou,
    overlaps,
    panoptic_quality,
    pooled_interval,
)
from nucseg_cache import SampleRow

PIXEL_SCORES = {
    "dice": dice,
    "iou": iou,
    "miou": miou,
    "dice_weighted": dice_weighted,
    "iou_weighted": iou_weighted,
}
POOLED_SCORES = {"dice_pooled": dice, "iou_pooled": iou}
INSTANCE_SCORES = ("aji", "pq", "dq", "sq")

IMAGE_METRICS = (*PIXEL_SCORES, *INSTANCE_SCORES)
"""Metrics that every image has a value of."""
METRICS = ("dice", "iou", "miou", "dice_pooled", "iou_pooled", *INSTANCE_SCORES, "dice_weighted", "iou_weighted")
"""All metrics in the order of the tables; those that flatter come last."""

ALL_BACKGROUND = "all background"
"""Name of the prediction that finds nothing."""


@dataclass(frozen=True)
class ImageScores:
    """One image of the test part and what a prediction of it is worth."""

    id: str
    group: str
    stratum: str
    image_digest: str
    """Hexadecimal digest of the image's file content."""
    mask_digest: str
    """Hexadecimal digest of the masks' file content."""
    counts: PixelCounts
    n_true: int
    """True nuclei, those wholly in ignored pixels left out."""
    n_predicted: int
    """Predicted nuclei, likewise."""
    values: Mapping[str, float]
    """Score by name, one for each of `IMAGE_METRICS`."""


@dataclass(frozen=True)
class RunScores:
    """A run's scores on its test part."""

    name: str
    images: tuple[ImageScores, ...]

    @property
    def groups(self) -> dict[str, str]:
        """Group by image id; an image without one is a group of its own."""
        return {image.id: image.group or image.id for image in self.images}

    def values(self, metric: str) -> dict[str, float]:
        """One of `IMAGE_METRICS` by image id."""
        return {image.id: image.values[metric] for image in self.images}

    def finding_nothing(self) -> RunScores:
        """What a prediction of pure background would score on the same images."""
        return RunScores(ALL_BACKGROUND, tuple(map(_without_prediction, self.images)))

    def intervals(self, draws: Resampling) -> dict[str, Interval]:
        """Every one of `METRICS` over the test part, with its interval."""
        groups = list(self.groups.values())
        counts = [image.counts for image in self.images]
        return {
            name: pooled_interval(counts, POOLED_SCORES[name], groups, draws)
            if name in POOLED_SCORES
            else mean_interval(list(self.values(name).values()), groups, draws)
            for name in METRICS
        }


def score_image(sample: SampleRow, probability: NDArray[np.float32], rule: InstanceRule) -> ImageScores:
    """Score a (H, W) map of nucleus probability: overlap after the threshold, instances after the separation.

    Raises:
        DataError: the map holds something else than numbers.
    """
    if not np.isfinite(probability).all():
        raise DataError(
            f"The prediction of {sample.id} is not finite: the training diverged or its precision overflowed. "
            "Train again with a lower learning rate or without mixed precision."
        )
    counts = count_pixels(sample.instances > 0, foreground(probability, rule), sample.ignore)
    found = overlaps(sample.instances, separate(probability, rule), sample.ignore)
    quality = panoptic_quality(found)
    instance_scores = {"aji": aji(found), "pq": quality.pq, "dq": quality.dq, "sq": quality.sq}
    return ImageScores(
        id=sample.id,
        group=sample.group,
        stratum=sample.stratum,
        image_digest=sample.image_digest.hex(),
        mask_digest=sample.mask_digest.hex(),
        counts=counts,
        n_true=found.true_area.size,
        n_predicted=found.predicted_area.size,
        values=_pixel_scores(counts) | instance_scores,
    )


def _without_prediction(image: ImageScores) -> ImageScores:
    """Derive the scores of a prediction that finds nothing from those of any other prediction."""
    true = image.counts
    counts = PixelCounts(tp=0, fp=0, fn=true.tp + true.fn, tn=true.fp + true.tn)
    # of two empty instance maps every score is 1, of an empty and another one 0
    instance_scores = dict.fromkeys(INSTANCE_SCORES, float(image.n_true == 0))
    return replace(image, counts=counts, n_predicted=0, values=_pixel_scores(counts) | instance_scores)


def _pixel_scores(counts: PixelCounts) -> dict[str, float]:
    return {name: score(counts) for name, score in PIXEL_SCORES.items()}
