"""The images of a report, as layers that a page lays over one another: pixels, outlines, differences, embeddings."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from nucseg.data.prepare import under_centres
from nucseg.figures import (
    EXTRA,
    HARMED,
    HELPED,
    IGNORED,
    MISSED,
    guidance_effect,
    outline_path,
)
from nucseg_pipeline.evaluation.scored_images import ScoredImage
from nucseg_pipeline.evaluation.scores import ImageScores, RunScores

MOST_PX = 512
"""Longest side of an image on the page; larger ones are made smaller."""
WEBP_QUALITY = 82
FILLED = 178
"""Opacity of what is filled, of 255."""

InstanceMap = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of the test part that the page shows."""

    case: ScoredImage
    why: str
    """Why this one: median, worst, best, largest gain or loss, or drawn by chance."""
    instances: Mapping[str, InstanceMap]
    """Name of the configuration -> (H, W) instance map."""
    scores: Mapping[str, RunScores]
    """Name of the configuration -> scores of the run whose prediction is shown: the first one, of repeats."""
    unguided: Mapping[str, str] = field(default_factory=dict)
    """Name of a guided configuration -> the one without guidance that it is held against."""
    embeddings: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Name of a guided configuration -> (h, w, 3) its embedding as colours."""


@dataclass(frozen=True)
class GuidanceSheet:
    """What guidance changed in one image."""

    against: str
    """Name of the configuration without guidance."""
    pixels: str
    """Address of the picture that fills what is right with one of the two alone."""
    helped_px: int
    """Pixels of the evaluated grid that are right with guidance alone."""
    harmed_px: int
    n_gained: int
    """True nuclei that are found with guidance alone."""
    n_lost: int
    gained: str
    """Path around them."""
    lost: str


@dataclass(frozen=True)
class PredictionSheet:
    """What a run of one configuration finds in one image."""

    name: str
    run: str
    scores: ImageScores
    outlines: str
    """Path around the predicted nuclei."""
    differences: str
    """Address of the picture that fills what was missed, added and not counted."""
    guidance: GuidanceSheet | None
    embedding: str
    """Address of the embedding as colours; empty without guidance."""


@dataclass(frozen=True)
class Sheet:
    """One image with all its layers, which have one size."""

    id: str
    stratum: str
    why: str
    width: int
    """In pixels, the units of the paths."""
    height: int
    image: str
    """Address of the H&E image."""
    n_true: int
    truth: str
    """Path around the true nuclei."""
    predictions: tuple[PredictionSheet, ...]


def shown_image(shown: Shown) -> Sheet:
    """Draw the layers of one image: itself, its truth, and what a run of each configuration finds, with its scores."""
    case, size = shown.case, _page_size(shown.case.instances.shape)
    predictions = tuple(_prediction(shown, name, size) for name in shown.instances)
    return Sheet(
        id=case.id,
        stratum=case.stratum,
        why=shown.why,
        width=size[1],
        height=size[0],
        image=_webp(_resized_image(case.image, size)),
        n_true=predictions[0].scores.n_true,
        truth=outline_path(under_centres(case.instances, *size)),
        predictions=predictions,
    )


def _prediction(shown: Shown, name: str, size: tuple[int, int]) -> PredictionSheet:
    case, found, run = shown.case, shown.instances[name], shown.scores[name]
    fills = {
        MISSED: (case.instances > 0) & (found == 0) & ~case.ignore,
        EXTRA: (case.instances == 0) & (found > 0) & ~case.ignore,
        IGNORED: case.ignore,
    }
    return PredictionSheet(
        name=name,
        run=run.name,
        scores=next(image for image in run.images if image.id == case.id),
        outlines=outline_path(under_centres(found, *size)),
        differences=_fills(fills, size),
        guidance=_guidance(shown, name, size),
        embedding=_webp(shown.embeddings[name], lossless=True) if name in shown.embeddings else "",
    )


def _guidance(shown: Shown, name: str, size: tuple[int, int]) -> GuidanceSheet | None:
    if name not in shown.unguided:
        return None
    case, against = shown.case, shown.unguided[name]
    effect = guidance_effect(case.instances, shown.instances[name], shown.instances[against], case.ignore)
    return GuidanceSheet(
        against=against,
        pixels=_fills({HELPED: effect.helped, HARMED: effect.harmed}, size),
        helped_px=int(effect.helped.sum()),
        harmed_px=int(effect.harmed.sum()),
        n_gained=np.unique(effect.gained[effect.gained > 0]).size,
        n_lost=np.unique(effect.lost[effect.lost > 0]).size,
        gained=outline_path(under_centres(effect.gained, *size)),
        lost=outline_path(under_centres(effect.lost, *size)),
    )


def _page_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(H, W) on the page."""
    shrink = min(1.0, MOST_PX / max(shape))
    return max(1, round(shape[0] * shrink)), max(1, round(shape[1] * shrink))


def _resized_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def _fills(masks: Mapping[str, NDArray[np.bool_]], size: tuple[int, int]) -> str:
    """A picture of at most three colours on nothing, two bits a pixel."""
    codes = np.zeros(size, np.uint8)
    for code, mask in enumerate(masks.values(), start=1):
        codes[under_centres(mask, *size)] = code
    picture = Image.fromarray(codes)
    colours = [round(255 * part) for colour in ("#000000", *masks) for part in to_rgb(colour)]
    picture.putpalette(colours)
    return _address(picture, "png", bits=2, optimize=True, transparency=bytes([0, *[FILLED] * len(masks)]))


def _webp(image: NDArray[np.uint8], *, lossless: bool = False) -> str:
    how = {"lossless": True} if lossless else {"quality": WEBP_QUALITY}
    return _address(Image.fromarray(image), "webp", method=4, **how)


def _address(picture: Image.Image, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
