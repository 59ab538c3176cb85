"""Scores of a segmentation against the truth, and how sure they are."""

from nucseg.metrics.instances import Overlaps, PanopticQuality, aji, overlaps, panoptic_quality
from nucseg.metrics.overlap import (
    PixelCounts,
    count_pixels,
    dice,
    dice_weighted,
    iou,
    iou_weighted,
    miou,
    total,
)
from nucseg.metrics.statistics import (
    Interval,
    PairedDifference,
    Resampling,
    check_same_images,
    mean_interval,
    paired_difference,
    pooled_interval,
)

__all__ = [
    "Interval",
    "Overlaps",
    "PairedDifference",
    "PanopticQuality",
    "PixelCounts",
    "Resampling",
    "aji",
    "check_same_images",
    "count_pixels",
    "dice",
    "dice_weighted",
    "iou",
    "iou_weighted",
    "mean_interval",
    "miou",
    "overlaps",
    "paired_difference",
    "panoptic_quality",
    "pooled_interval",
    "total",
]
