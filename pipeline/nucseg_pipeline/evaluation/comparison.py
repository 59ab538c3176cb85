"""Scores of several configurations compared: with a baseline, image by image, and by stratum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nucseg.errors import ConfigError
from nucseg.metrics import PairedDifference, Resampling, holm, paired_differences
from nucseg_pipeline.evaluation.scores import IMAGE_METRICS, LOWER_IS_BETTER, RunScores


@dataclass(frozen=True)
class Comparison:
    """A configuration compared with the baseline on the same images."""

    name: str
    baseline: str
    differences: Mapping[str, PairedDifference]
    """Configuration minus baseline, for each of `IMAGE_METRICS`."""
    holm_p: Mapping[str, float] = field(default_factory=dict)
    """Metric -> p value after Holm's correction for the number of configurations compared with the baseline."""


@dataclass(frozen=True)
class Stratum:
    """The images of one organ or cohort."""

    name: str
    n_images: int
    means: Mapping[str, Mapping[str, float]]
    """Name of the configuration -> metric -> mean over these images."""


def compare(baseline: RunScores, other: RunScores, draws: Resampling) -> Comparison:
    """Compare a configuration with the baseline, image by image."""
    check_same_truth(baseline, other)
    first, second = ({name: run.values(name) for name in IMAGE_METRICS} for run in (baseline, other))
    differences = paired_differences(first, second, baseline.groups, draws, lower_is_better=LOWER_IS_BETTER)
    return Comparison(name=other.name, baseline=baseline.name, differences=differences)


def compare_all(baseline: RunScores, others: Sequence[RunScores], draws: Resampling) -> tuple[Comparison, ...]:
    """Compare several configurations with the baseline; p values are Holm-corrected for their number, per metric."""
    comparisons = [compare(baseline, other, draws) for other in others]
    corrected = {name: holm([c.differences[name].wilcoxon_p for c in comparisons]) for name in IMAGE_METRICS}
    return tuple(
        replace(comparison, holm_p={name: p_values[position] for name, p_values in corrected.items()})
        for position, comparison in enumerate(comparisons)
    )


def check_same_truth(first: RunScores, second: RunScores) -> None:
    """Refuse two runs that were scored on different images, or against different masks, under the same id.

    Raises:
        ConfigError: how many images differ.
    """
    digests = {image.id: (image.image_digest, image.mask_digest) for image in first.images}
    changed = [
        image.id
        for image in second.images
        if image.id in digests and digests[image.id] != (image.image_digest, image.mask_digest)
    ]
    if changed:
        raise ConfigError(
            f"{first.name} and {second.name} were scored on different images or masks under the same id, "
            f"{len(changed)} of {len(digests)} (such as {changed[0]}): their stores differ. "
            "Embed both from the same copy of the data set and train again, or make a report on each of them."
        )


def by_stratum(runs: Sequence[RunScores], metrics: Sequence[str] = ("dice", "aji", "pq")) -> tuple[Stratum, ...]:
    """Average over the images of each stratum, sorted by name."""
    ids = defaultdict(list)
    for image in runs[0].images:
        ids[image.stratum].append(image.id)
    values = {run.name: {metric: run.values(metric) for metric in metrics} for run in runs}
    return tuple(
        Stratum(
            name=stratum,
            n_images=len(members),
            means={
                name: {
                    metric: float(np.mean([column[image_id] for image_id in members]))
                    for metric, column in columns.items()
                }
                for name, columns in values.items()
            },
        )
        for stratum, members in sorted(ids.items())
    )
