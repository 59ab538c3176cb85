"""Draw H&E-like images with known nuclei: first amounts of stain, then light by the law of Beer and Lambert.

All arithmetic is in float64 and rounded once at the end, so that other machines draw the same bytes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nucseg.data.synthetic.layout import Blob, draw_distractors, draw_holes, draw_nuclei
from nucseg.data.synthetic.tissues import Slide, Tissue

Plane = npt.NDArray[np.float64]
"""(H, W) float64."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Canvas:
    """The state of a drawing.

    Shapes:
        stains     (2, H, W)  amounts of hematoxylin and eosin
        instances  (H, W)
        ignore     (H, W)
        chromatin  (H, W)     texture of nuclei, mean 0
        yx         (2, H, W)  pixel positions, slightly warped so that no outline is a perfect ellipse
    """

    stains: Plane
    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    chromatin: Plane
    yx: Plane


def draw(tissue: Tissue, slide: Slide, side_px: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Canvas]:
    """Draw an image (side, side, 3); its instance map and ignore mask are on the canvas."""
    fibre_angle = rng.uniform(0, np.pi)
    holes = draw_holes(tissue, side_px, rng)
    canvas = _background(tissue, slide, holes, fibre_angle, side_px, rng)
    for blob in draw_distractors(side_px, rng):
        _paint(canvas, blob, slide)
    for id_, blob in enumerate(draw_nuclei(tissue, slide, holes, fibre_angle, side_px, rng), start=1):
        _paint(canvas, blob, slide, id_)
    return _exposed(canvas.stains, slide, rng), canvas


def _background(
    tissue: Tissue, slide: Slide, holes: list[Blob], fibre_angle: float, side_px: int, rng: np.random.Generator
) -> Canvas:
    texture = tissue.fibres * _streaks(fibre_angle, side_px, rng)
    texture += tissue.clumps * _clouds(side_px, 11, rng)
    texture += 0.2 * (rng.random((side_px, side_px)) - 0.5)
    stains = np.stack([1.2 * _clouds(side_px, 40, rng), 0.4 * _clouds(side_px, 90, rng)])
    stains += 1 + texture
    stains *= np.array([slide.haze, tissue.eosin * slide.strength[1]])[:, None, None]
    np.clip(stains, 0.02, None, out=stains)
    stains *= _filled(holes, side_px, rng)
    yx = 5 * np.stack([_clouds(side_px, 26, rng), _clouds(side_px, 26, rng)])
    yx[0] += np.arange(side_px)[:, None]
    yx[1] += np.arange(side_px)
    return Canvas(
        stains=stains,
        instances=np.zeros((side_px, side_px), np.int32),
        ignore=np.zeros((side_px, side_px), np.bool_),
        chromatin=0.6 * _clouds(side_px, 4, rng) / slide.blur_px,
        yx=yx,
    )


def _streaks(angle: float, side_px: int, rng: np.random.Generator) -> Plane:
    """Wavy noise (side, side) that varies over 6 px across the fibres and 90 px along them."""
    extent = side_px * 3 // 2  # slightly more than the diagonal
    table = _smooth(rng.standard_normal((extent // 6 + 2, extent // 90 + 2)), extent)
    x = np.arange(side_px) - side_px / 2
    y = x[:, None]
    along = x * np.cos(angle) + (y * np.sin(angle) + extent / 2)
    across = 36 * _clouds(side_px, 80, rng)
    across += y * np.cos(angle) - x * np.sin(angle) + extent / 2
    index = across.astype(np.int64).clip(0, extent - 1) * extent
    index += along.astype(np.int64)
    return np.asarray(table.take(index))


def _filled(holes: list[Blob], side_px: int, rng: np.random.Generator) -> Plane:
    """1 in the tissue, 0 in white space (H, W)."""
    knots = np.linspace(0, side_px - 1, side_px // 8 + 2)
    coarse = np.stack(np.meshgrid(knots, knots, indexing="ij"))
    distance = np.full(coarse.shape[1:], 30.0)
    for hole in holes:
        distance = np.minimum(distance, (hole.radius(coarse) - 1) * hole.across)
    distance = _smooth(distance, side_px) + 6 * _clouds(side_px, 24, rng)
    return np.asarray(1 / (1 + np.exp(-distance.clip(-20, 20))))


def _clouds(side_px: int, cell_px: float, rng: np.random.Generator) -> Plane:
    """Smooth noise (side, side) with a standard deviation of about 0.45 that varies over about cell_px."""
    n_knots = round(side_px / cell_px) + 2
    return _smooth(rng.standard_normal((n_knots, n_knots)), side_px)


def _smooth(knots: Plane, side_px: int) -> Plane:
    """Interpolate knots to (side, side) with Gaussian weights, which prefer no direction."""
    return _weights(side_px, len(knots)) @ knots @ _weights(side_px, knots.shape[1]).T


@lru_cache(maxsize=32)
def _weights(n: int, n_knots: int) -> Plane:
    position = np.linspace(0, n_knots - 1, n)
    distance = np.abs(position[:, None] - np.arange(n_knots)) / 0.65
    weights = np.where(distance < 5, np.exp(-0.5 * distance**2), 0)  # denormal numbers would be slow
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _paint(canvas: Canvas, blob: Blob, slide: Slide, id_: int = 0) -> None:
    """Add a blob's stain; with an id, also write it into the instance map (or ignore a vague nucleus)."""
    edge_px = blob.edge_px + 1.5 * slide.blur_px
    reach = 1.3 * blob.along + edge_px + 4
    rows, columns = (slice(max(0, int(c - reach)), max(0, int(c + reach) + 1)) for c in (blob.y, blob.x))
    u, v = blob.inside(canvas.yx[:, rows, columns])
    radius = np.sqrt(u * u + v * v)
    cover = ((1 - radius) * blob.across / edge_px + 0.5).clip(0, 1)
    canvas.stains[1, rows, columns] *= 1 - 0.4 * cover
    canvas.stains[1, rows, columns] += blob.eosin * cover
    below = canvas.stains[0, rows, columns]
    amount = blob.hematoxylin * cover * _texture(blob, u, v, radius, canvas.chromatin[rows, columns])
    # sections are thin: overlapping nuclei are darker, but less than the sum
    canvas.stains[0, rows, columns] = np.maximum(below, amount) + 0.35 * np.minimum(below, amount)
    if blob.vague:
        canvas.ignore[rows, columns] |= radius < 1.3
    elif id_:
        canvas.instances[rows, columns][radius < 1] = id_


def _texture(blob: Blob, u: Plane, v: Plane, radius: Plane, chromatin: Plane) -> Plane:
    """Amount of chromatin, about 1: mottled; open nuclei have a pale centre, a dark rim and a nucleolus."""
    pale = blob.openness * (1 - radius**2).clip(0)
    nucleolus = blob.openness * np.exp(-((u - 0.2) ** 2 + (v + 0.25) ** 2) / 0.04)
    return 1 - 0.7 * pale + 0.6 * nucleolus + (0.3 + 0.9 * blob.openness) * chromatin


def _exposed(stains: Plane, slide: Slide, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Light through the stains (H, W, 3), with uneven illumination and noise."""
    side_px = stains.shape[1]
    evenness = 1 + 0.03 * _clouds(side_px, 200, rng)
    image = np.empty((side_px, side_px, 3), np.uint8)
    passed, by_eosin = np.empty((2, side_px, side_px))
    for channel, (h, e, light) in enumerate(zip(*slide.stains, slide.light, strict=True)):
        np.multiply(stains[0], -h, out=passed)
        passed -= np.multiply(stains[1], e, out=by_eosin)
        np.exp(passed, out=passed)
        passed *= evenness
        passed *= light
        passed += rng.integers(-4, 5, (side_px, side_px), dtype=np.int8)
        image[..., channel] = np.rint(passed, out=passed).clip(0, 255, out=passed)
    return image
