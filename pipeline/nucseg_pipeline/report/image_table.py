"""The table of all images: a row each for people, and every score as data for the page's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from nucseg_pipeline.evaluation.scores import IMAGE_METRICS, LOWER_IS_BETTER, ImageScores, RunScores
from nucseg_pipeline.report.image_layers import PredictionSheet, Sheet

PAGE_ROWS = 100
"""Rows that the script shows at a time."""
N_FOUND = "n_predicted"
"""Name of the number of nuclei found, which can be looked at like a score."""
N_FOUND_WORDS = ("Nuclei found", "number of predicted nuclei")
DIGITS = 5
"""Decimals of a score in the data; more are in per_image.csv."""


@dataclass(frozen=True)
class ImageRow:
    """One image and its Dice by each configuration."""

    image: ImageScores
    dice: tuple[float, ...]
    differences: tuple[float, ...]
    """Of the configurations other than the baseline from the baseline."""
    sheet: int | None
    """Position of its pictures; None without."""


def image_rows(columns: Sequence[RunScores], baseline: str, sheets: Sequence[Sheet]) -> list[ImageRow]:
    """List the images in their order."""
    dice = {column.name: column.values("dice") for column in columns}
    pictured = {sheet.id: position for position, sheet in enumerate(sheets)}
    return [
        ImageRow(
            image,
            tuple(values[image.id] for values in dice.values()),
            tuple(v[image.id] - dice[baseline][image.id] for name, v in dice.items() if name != baseline),
            pictured.get(image.id),
        )
        for image in columns[0].images
    ]


def image_data(
    columns: Sequence[RunScores], baseline: str, sheets: Sequence[Sheet], words: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Everything that the script shows of images, as JSON knows it: columns of scores, one entry an image."""
    images = columns[0].images
    pictured = {sheet.id: position for position, sheet in enumerate(sheets)}
    by_id = [{image.id: image for image in column.images} for column in columns]
    names = [column.name for column in columns]
    return {
        "configurations": names,
        "baseline": names.index(baseline) if len(names) > 1 else None,
        "pageRows": PAGE_ROWS,
        "metrics": [*(_metric(key, *words[key]) for key in IMAGE_METRICS), _metric(N_FOUND, *N_FOUND_WORDS)],
        "ids": [image.id for image in images],
        "strata": [image.stratum for image in images],
        "nuclei": [image.n_true for image in images],
        "sheets": [pictured.get(image.id) for image in images],
        "values": {
            **{
                key: [[_rounded(own[image.id].values[key]) for image in images] for own in by_id]
                for key in IMAGE_METRICS
            },
            N_FOUND: [[_rounded(own[image.id].n_predicted) for image in images] for own in by_id],
        },
        "pictures": [_sheet(sheet) for sheet in sheets],
    }


def _metric(key: str, name: str, meaning: str) -> dict[str, Any]:
    decimals = {"hd95": 1, N_FOUND: 0}.get(key, 3)
    return {"key": key, "name": name, "meaning": meaning, "decimals": decimals, "less": key in LOWER_IS_BETTER}


def _sheet(sheet: Sheet) -> dict[str, Any]:
    return {
        "why": sheet.why,
        "width": sheet.width,
        "height": sheet.height,
        "predictions": [_prediction(one) for one in sheet.predictions],
    }


def _prediction(one: PredictionSheet) -> dict[str, Any]:
    told = one.guidance
    return {
        "name": one.name,
        "run": one.run,
        "dice": _rounded(one.scores.values["dice"]),
        "aji": _rounded(one.scores.values["aji"]),
        "nuclei": _rounded(one.scores.n_predicted),
        "embedding": bool(one.embedding),
        "guidance": told
        and {
            "against": told.against,
            "helped": told.helped_px,
            "harmed": told.harmed_px,
            "gained": told.n_gained,
            "lost": told.n_lost,
        },
    }


def _rounded(value: float) -> float | None:
    """A number that JSON knows; null stands for what is missing."""
    return round(float(value), DIGITS) if isfinite(value) else None
