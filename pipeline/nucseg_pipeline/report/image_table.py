"""The table of all images: rows of HTML, and every score as JSON for the script of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from nucseg_pipeline.evaluation.scores import IMAGE_METRICS, LOWER_IS_BETTER, ImageScores, RunScores
from nucseg_pipeline.report.image_layers import ImageLayers, PredictionLayers

PAGE_ROWS = 100
N_PREDICTED = "n_predicted"
N_PREDICTED_WORDS = ("Nuclei found", "number of predicted nuclei")
DIGITS = 5
"""Decimals of a score in the JSON; per_image.csv has all digits."""


@dataclass(frozen=True)
class ImageRow:
    """One image and its Dice for each configuration."""

    image: ImageScores
    dice: tuple[float, ...]
    differences: tuple[float, ...]
    """Differences from the baseline, for each of the other configurations."""
    picture: int | None
    """Position among the images that are drawn; None if it is not."""


def image_rows(columns: Sequence[RunScores], baseline: str, pictures: Sequence[ImageLayers]) -> list[ImageRow]:
    """The rows of the table, in the order of the images."""
    dice = {column.name: column.values("dice") for column in columns}
    positions = {picture.id: position for position, picture in enumerate(pictures)}
    return [
        ImageRow(
            image,
            tuple(values[image.id] for values in dice.values()),
            tuple(v[image.id] - dice[baseline][image.id] for name, v in dice.items() if name != baseline),
            positions.get(image.id),
        )
        for image in columns[0].images
    ]


def image_data(
    columns: Sequence[RunScores], baseline: str, pictures: Sequence[ImageLayers], words: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Everything that the script shows of images, in JSON types: columns of scores, one entry for each image."""
    images = columns[0].images
    positions = {picture.id: position for position, picture in enumerate(pictures)}
    by_id = [{image.id: image for image in column.images} for column in columns]
    names = [column.name for column in columns]
    return {
        "configurations": names,
        "baseline": names.index(baseline) if len(names) > 1 else None,
        "pageRows": PAGE_ROWS,
        "metrics": [*(_metric(key, *words[key]) for key in IMAGE_METRICS), _metric(N_PREDICTED, *N_PREDICTED_WORDS)],
        "ids": [image.id for image in images],
        "strata": [image.stratum for image in images],
        "nuclei": [image.n_true for image in images],
        "pictureOf": [positions.get(image.id) for image in images],
        "values": {
            **{
                key: [[_rounded(own[image.id].values[key]) for image in images] for own in by_id]
                for key in IMAGE_METRICS
            },
            N_PREDICTED: [[_rounded(own[image.id].n_predicted) for image in images] for own in by_id],
        },
        "pictures": [_picture(picture) for picture in pictures],
    }


def _metric(key: str, name: str, meaning: str) -> dict[str, Any]:
    decimals = {"hd95": 1, N_PREDICTED: 0}.get(key, 3)
    return {"key": key, "name": name, "meaning": meaning, "decimals": decimals, "less": key in LOWER_IS_BETTER}


def _picture(picture: ImageLayers) -> dict[str, Any]:
    return {
        "why": picture.why,
        "width": picture.width,
        "height": picture.height,
        "predictions": [_prediction(prediction) for prediction in picture.predictions],
    }


def _prediction(prediction: PredictionLayers) -> dict[str, Any]:
    effect = prediction.guidance
    return {
        "name": prediction.name,
        "run": prediction.run,
        "dice": _rounded(prediction.scores.values["dice"]),
        "aji": _rounded(prediction.scores.values["aji"]),
        "nuclei": _rounded(prediction.scores.n_predicted),
        "embedding": bool(prediction.embedding),
        "guidance": effect
        and {
            "against": effect.against,
            "helped": effect.helped_px,
            "harmed": effect.harmed_px,
            "gained": effect.n_gained,
            "lost": effect.n_lost,
        },
    }


def _rounded(value: float) -> float | None:
    """A number as JSON can hold it; None if it is not finite."""
    return round(float(value), DIGITS) if isfinite(value) else None
