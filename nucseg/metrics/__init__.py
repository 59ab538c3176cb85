"""Scores of a segmentation against the truth, and how sure they are."""

from nucseg.metrics.boundaries import boundary_f1, hausdorff95
from nucseg.metrics.calibration import (
    Reliability,
    brier,
    calibration_interval,
    count_reliability,
    expected_calibration_error,
)
from nucseg.metrics.comparison import PairedDifference, check_same_images, paired_difference
from nucseg.metrics.instances import Overlaps, PanopticQuality, aji, matched, overlaps, panoptic_quality
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
from nucseg.metrics.sizes import SizeBin, recall_by_size, size_edges
from nucseg.metrics.statistics import (
    Interval,
    Resampling,
    Spread,
    mean_interval,
    pooled_interval,
    spread,
    summed_interval,
)

__all__ = [
    "Interval",
    "Overlaps",
    "PairedDifference",
    "PanopticQuality",
    "PixelCounts",
    "Reliability",
    "Resampling",
    "SizeBin",
    "Spread",
    "aji",
    "boundary_f1",
    "brier",
    "calibration_interval",
    "check_same_images",
    "count_pixels",
    "count_reliability",
    "dice",
    "dice_weighted",
    "expected_calibration_error",
    "hausdorff95",
    "iou",
    "iou_weighted",
    "matched",
    "mean_interval",
    "miou",
    "overlaps",
    "paired_difference",
    "panoptic_quality",
    "pooled_interval",
    "recall_by_size",
    "size_edges",
    "spread",
    "summed_interval",
    "total",
]
