"""The images of a report as layers that the page draws over one another: pixels, outlines, differences, embeddings."""

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
from nucseg.figures import EXTRA, HARMED, HELPED, IGNORED, MISSED, guidance_effect, outline_path
from nucseg_pipeline.evaluation.scored_images import ScoredImage
from nucseg_pipeline.evaluation.scores import ImageScores, RunScores

MAX_PX = 512
WEBP_QUALITY = 82
FILLED = 178
"""Opacity of filled areas, 0 to 255."""

InstanceMap = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class GalleryImage:
    """A test image that the page shows."""

    image: ScoredImage
    why: str
    instances: Mapping[str, InstanceMap]
    """Name of the configuration -> (H, W) instance map."""
    scores: Mapping[str, RunScores]
    """Name of the configuration -> scores of the run whose prediction is shown; of repeats, the first."""
    unguided: Mapping[str, str] = field(default_factory=dict)
    """Name of a guided configuration -> name of the unguided one that it is compared with."""
    embeddings: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Name of a guided configuration -> its embedding as colours, (h, w, 3)."""


@dataclass(frozen=True)
class GuidanceLayers:
    """Pixels and true nuclei that are right only with guidance (helped, gained) or only without it (harmed, lost)."""

    against: str
    pixels: str
    helped_px: int
    harmed_px: int
    n_gained: int
    n_lost: int
    gained: str
    lost: str


@dataclass(frozen=True)
class PredictionLayers:
    """The prediction of one configuration for one image; outlines are SVG paths, drawings data URLs or empty."""

    name: str
    run: str
    scores: ImageScores
    outlines: str
    differences: str
    guidance: GuidanceLayers | None
    embedding: str


@dataclass(frozen=True)
class ImageLayers:
    """One image with all its layers, which have the same size in pixels, the units of the SVG paths."""

    id: str
    stratum: str
    why: str
    width: int
    height: int
    image: str
    n_true: int
    truth: str
    predictions: tuple[PredictionLayers, ...]


def image_layers(entry: GalleryImage) -> ImageLayers:
    """Draw the layers of one image: its pixels, its true nuclei, and the prediction of each configuration."""
    image, size = entry.image, _page_size(entry.image.instances.shape)
    predictions = tuple(_prediction(entry, name, size) for name in entry.instances)
    return ImageLayers(
        id=image.id,
        stratum=image.stratum,
        why=entry.why,
        width=size[1],
        height=size[0],
        image=_webp(_resized_image(image.image, size)),
        n_true=predictions[0].scores.n_true,
        truth=outline_path(under_centres(image.instances, *size)),
        predictions=predictions,
    )


def _prediction(entry: GalleryImage, name: str, size: tuple[int, int]) -> PredictionLayers:
    image, predicted, run = entry.image, entry.instances[name], entry.scores[name]
    fills = {
        MISSED: (image.instances > 0) & (predicted == 0) & ~image.ignore,
        EXTRA: (image.instances == 0) & (predicted > 0) & ~image.ignore,
        IGNORED: image.ignore,
    }
    return PredictionLayers(
        name=name,
        run=run.name,
        scores=next(scores for scores in run.images if scores.id == image.id),
        outlines=outline_path(under_centres(predicted, *size)),
        differences=_fills(fills, size),
        guidance=_guidance(entry, name, size),
        embedding=_webp(entry.embeddings[name], lossless=True) if name in entry.embeddings else "",
    )


def _guidance(entry: GalleryImage, name: str, size: tuple[int, int]) -> GuidanceLayers | None:
    if name not in entry.unguided:
        return None
    image, against = entry.image, entry.unguided[name]
    effect = guidance_effect(image.instances, entry.instances[name], entry.instances[against], image.ignore)
    return GuidanceLayers(
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
    shrink = min(1.0, MAX_PX / max(shape))
    return max(1, round(shape[0] * shrink)), max(1, round(shape[1] * shrink))


def _resized_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def _fills(masks: Mapping[str, NDArray[np.bool_]], size: tuple[int, int]) -> str:
    """Data URL of a PNG with at most three colours on a transparent ground, two bits a pixel."""
    codes = np.zeros(size, np.uint8)
    for code, mask in enumerate(masks.values(), start=1):
        codes[under_centres(mask, *size)] = code
    picture = Image.fromarray(codes)
    colours = [round(255 * part) for colour in ("#000000", *masks) for part in to_rgb(colour)]
    picture.putpalette(colours)
    return _data_url(picture, "png", bits=2, optimize=True, transparency=bytes([0, *[FILLED] * len(masks)]))


def _webp(image: NDArray[np.uint8], *, lossless: bool = False) -> str:
    how = {"lossless": True} if lossless else {"quality": WEBP_QUALITY}
    return _data_url(Image.fromarray(image), "webp", method=4, **how)


def _data_url(picture: Image.Image, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
