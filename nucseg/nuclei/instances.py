"""Probability map -> nuclei: threshold, then a watershed on the distance to the border.

The distance is that of each foreground pixel from the background or, if the network has a distance head, the predicted
one, which also decreases where two nuclei touch.

The four parameters of the rule are chosen on validation images: first the threshold, by foreground Dice, then the
watershed's parameters for that threshold, by panoptic quality (which, unlike AJI, penalises small false nuclei).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.segmentation import watershed

from nucseg.errors import ConfigError
from nucseg.metrics.instances import InstanceMap, overlaps, panoptic_quality
from nucseg.metrics.overlap import Mask, PixelCounts, dice

Probability = NDArray[np.float32]
Distance = NDArray[np.float64]

THRESHOLDS = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.2, 0.8, 0.15, 0.85, 0.1, 0.9)
"""Thresholds tried by `choose_rule`. The first of equally good candidates wins, here and below."""
SMOOTHINGS_PX = (1.0, 0.5, 2.0)
"""Smoothings of the distance map tried by `choose_rule`."""
MIN_DISTANCES_PX = (4, 2, 7)
"""Distances between centres tried by `choose_rule`."""
MIN_AREAS_PX = (10, 0, 25)
"""Smallest areas tried by `choose_rule`."""
MAX_IMAGES = 40
"""Maximum number of images on which `choose_rule` tries the watershed, evenly spaced over those given."""


@dataclass(frozen=True, kw_only=True)
class InstanceRule:
    """How a probability map becomes nuclei; lengths and areas in pixels of that map."""

    threshold: float = 0.5
    """A pixel with this nucleus probability or more is foreground."""
    smoothing_px: float = 1.0
    """Standard deviation of the Gaussian that smooths the distance map before its peaks are found."""
    min_distance_px: int = 4
    """Centres are further apart than this."""
    min_area_px: int = 10
    """Smaller nuclei are dropped from the instance map."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"The threshold must lie between 0 and 1, got {self.threshold}.")
        if self.smoothing_px < 0 or self.min_distance_px < 1 or self.min_area_px < 0:
            raise ConfigError(
                f"smoothing_px and min_area_px must not be negative and min_distance_px at least 1, got {self}."
            )

    def scaled(self, factor: float) -> InstanceRule:
        """Adapt the rule to a map with `factor` times as many pixels along each side."""
        return replace(
            self,
            smoothing_px=self.smoothing_px * factor,
            min_distance_px=max(1, round(self.min_distance_px * factor)),
            min_area_px=round(self.min_area_px * factor**2),
        )


def foreground(probability: Probability, rule: InstanceRule) -> Mask:
    """Threshold a (H, W) map of nucleus probability."""
    return probability >= rule.threshold


def separate(probability: Probability, rule: InstanceRule, distance: NDArray[np.float32] | None = None) -> InstanceMap:
    """Turn a (H, W) map of nucleus probability into a (H, W) instance map, labels 1 to n, 0 = background.

    Args:
        probability: nucleus probability.
        rule: threshold and watershed parameters.
        distance: (H, W) predicted by a distance head, see `distance_map`; None uses the Euclidean distance of each
            foreground pixel from the background.
    """
    mask = foreground(probability, rule)
    return _drop_small(_split(mask, _landscape(mask, distance), rule), rule.min_area_px)


def distance_map(instances: InstanceMap) -> NDArray[np.float32]:
    """Distance of each pixel to the border of its nucleus: (H, W), 0 outside, 1 where a nucleus is deepest.

    This is the Euclidean distance to the nearest pixel of the background or another nucleus, divided by the largest
    distance in the nucleus. (Naylor et al. 2019 do not divide, so that large nuclei have larger distances.) The area
    beyond the image's edge counts as part of the nucleus.
    """
    result = np.zeros(instances.shape, np.float32)
    for label_, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = instances[around] == label_
        distance = ndimage.distance_transform_edt(inside)
        # a nucleus that fills the whole image has no border
        result[around][inside] = distance[inside] / distance.max() if not inside.all() else 1
    return result


def choose_rule(
    probabilities: Sequence[Probability],
    truths: Sequence[InstanceMap],
    ignores: Sequence[Mask],
    distances: Sequence[NDArray[np.float32]] = (),
) -> InstanceRule:
    """Choose the rule on validation images; each sequence holds one (H, W) array per image.

    Pixels in `ignores` are not scored. `distances` are those of a network with a distance head, else empty.

    The threshold maximises the mean foreground Dice over all images; the watershed's parameters maximise the mean
    panoptic quality over at most `MAX_IMAGES` of them. If all candidates score alike, it is the default rule.

    Raises:
        ConfigError: there is no validation image.
    """
    if not len(probabilities):
        raise ConfigError("An instance rule is chosen on validation images, but there are none.")
    predicted: Sequence[NDArray[np.float32] | None] = distances or [None] * len(probabilities)
    images = list(zip(probabilities, truths, ignores, predicted, strict=True))
    threshold = _first_best(np.mean([_dice_by_threshold(*image[:3]) for image in images], axis=0))
    rules = [
        InstanceRule(
            threshold=THRESHOLDS[threshold], smoothing_px=smoothing, min_distance_px=distance, min_area_px=area
        )
        for smoothing, distance, area in product(SMOOTHINGS_PX, MIN_DISTANCES_PX, MIN_AREAS_PX)
    ]
    spaced: list[int] = np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).astype(int).tolist()
    qualities = [_quality_by_rule(*images[position], rules) for position in spaced]
    return rules[_first_best(np.mean(qualities, axis=0))]


def _dice_by_threshold(probability: Probability, truth: InstanceMap, ignore: Mask) -> list[float]:
    values, nucleus = probability[~ignore], truth[~ignore] > 0
    inside, outside = np.sort(values[nucleus]), np.sort(values[~nucleus])
    # the position of a threshold among the sorted values is the number of values below it
    thresholds = np.asarray(THRESHOLDS, dtype=values.dtype)
    below = zip(np.searchsorted(inside, thresholds), np.searchsorted(outside, thresholds), strict=True)
    return [
        dice(PixelCounts(tp=inside.size - int(fn), fp=outside.size - int(tn), fn=int(fn), tn=int(tn)))
        for fn, tn in below
    ]


def _quality_by_rule(
    probability: Probability,
    truth: InstanceMap,
    ignore: Mask,
    distance: NDArray[np.float32] | None,
    rules: Sequence[InstanceRule],
) -> list[float]:
    """Panoptic quality of one image for rules with one threshold, ordered with areas varying fastest."""
    mask = foreground(probability, rules[0])
    landscape = _landscape(mask, distance)
    qualities = []
    for _, alike in groupby(rules, key=lambda rule: (rule.smoothing_px, rule.min_distance_px)):
        area_rules = list(alike)
        instances = _split(mask, landscape, area_rules[0])
        for rule in area_rules:
            found = overlaps(truth, _drop_small(instances, rule.min_area_px), ignore)
            qualities.append(panoptic_quality(found).pq)
    return qualities


def _first_best(scores: Distance) -> int:
    # rounded, so that among scores equal up to the last bits the first candidate wins
    return int(scores.round(9).argmax())


def _landscape(mask: Mask, distance: NDArray[np.float32] | None) -> Distance:
    """(H, W), highest in the middle of nuclei: the predicted distance, else pixels to the background."""
    if distance is not None:
        return distance.astype(np.float64)
    measured: Distance = ndimage.distance_transform_edt(mask)
    return measured


def _split(mask: Mask, landscape: Distance, rule: InstanceRule) -> InstanceMap:
    # a network may predict less than 0, but background must stay lowest, or it would have peaks
    smoothed = np.maximum(ndimage.gaussian_filter(landscape, rule.smoothing_px), 0) * mask
    # the same connectivity in both, or pixels joined only at a corner would not be flooded from any centre
    components, n_components = label(mask, return_num=True, connectivity=1)
    centres = peak_local_max(smoothed, min_distance=rule.min_distance_px, exclude_border=False)
    # a component close to a higher peak of another component has no centre yet
    lone = np.setdiff1d(np.arange(1, n_components + 1), components[tuple(centres.T)])
    lone_centres = np.reshape(ndimage.maximum_position(smoothed, components, lone), (-1, 2)).astype(int)
    markers = np.zeros(mask.shape, dtype=np.int32)
    rows, columns = np.concatenate([centres, lone_centres]).T
    markers[rows, columns] = np.arange(1, len(rows) + 1)
    instances: InstanceMap = watershed(-smoothed, markers, mask=mask, connectivity=1)
    return instances


def _drop_small(instances: InstanceMap, min_area_px: int) -> InstanceMap:
    """Drop nuclei below the area and renumber the others from 1."""
    large = np.bincount(instances.ravel()) >= min_area_px
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    kept: InstanceMap = numbers[instances]
    return kept
