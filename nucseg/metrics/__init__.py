"""Scores of a segmentation against the ground truth, and their uncertainty."""

from nucseg.metrics.boundaries import boundary_f1, hausdorff95
from nucseg.metrics.calibration import (
    Reliability,
    brier,
    calibration_errors,
    calibration_interval,
    count_reliability,
    expected_calibration_error,
    reliability_row,
)
from nucseg.metrics.comparison import PairedDifference, check_same_images, holm, paired_difference, paired_differences
from nucseg.metrics.instances import Overlaps, PanopticQuality, aji, matched, overlaps, panoptic_quality
from nucseg.metrics.overlap import PixelCounts, count_pixels, dice, dice_weighted, iou, iou_weighted, miou, total
from nucseg.metrics.sizes import SizeBin, recall_by_size, size_edges
from nucseg.metrics.statistics import (
    Interval,
    Resampling,
    Spread,
    mean_interval,
    mean_intervals,
    percentile_interval,
    pooled_interval,
    resampled_sums,
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
    "calibration_errors",
    "calibration_interval",
    "check_same_images",
    "count_pixels",
    "count_reliability",
    "dice",
    "dice_weighted",
    "expected_calibration_error",
    "hausdorff95",
    "holm",
    "iou",
    "iou_weighted",
    "matched",
    "mean_interval",
    "mean_intervals",
    "miou",
    "overlaps",
    "paired_difference",
    "paired_differences",
    "panoptic_quality",
    "percentile_interval",
    "pooled_interval",
    "recall_by_size",
    "reliability_row",
    "resampled_sums",
    "size_edges",
    "spread",
    "summed_interval",
    "total",
]
