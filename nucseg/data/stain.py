"""Stain normalisation: change the colours of an H&E image from any laboratory to those of one fixed reference.

`white` only brings the glass to white, which removes the illumination and keeps the stains; the others change both. The
target is a constant rather than estimated from a data set, so that adding images changes no other image, and data
sets normalised in the same way can be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt

from nucseg.data.tissue import DENSITY, GLASS, LIGHT, MIN_TISSUE_PX, Image, Mask, artefacts, highest, is_dense, lowest
from nucseg.errors import ConfigError

STAINS = ("none", "white", "macenko", "reinhard")
"""Methods of stain normalisation."""

MACENKO_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
"""(3, 2): absorbance in R, G, B of haematoxylin and of eosin, as in the published reference code and in torchstain."""

MACENKO_CONCENTRATIONS = np.array([1.9705, 1.0308])
"""99th percentile of the concentration of haematoxylin and of eosin, from the same source."""

REINHARD_MEANS = np.array([52.5, 22.8, -11.8])
"""Means of tissue in CIELAB (D65). These and REINHARD_STDS were measured on five images of CryoNuSeg (five organs, from
TCGA) normalised with Macenko's reference, and averaged over images, so that both methods have a similar target."""

REINHARD_STDS = np.array([16.8, 6.2, 5.3])
"""Standard deviations of tissue in CIELAB."""

WHITE = LIGHT
"""Grey level that glass gets in each channel with `white`: Macenko's transmitted light."""

GLASS_PERCENTILE = 95
"""Percentile of each channel over the least dense pixels that `white` takes for the colour of glass."""

_VERSION = "1"  # of the arithmetic below; increase when the same image without artefacts gets other colours
_MIN_DEGREES, _MIN_ABSORBANCE = 5.0, -0.1  # stains with a smaller angle turn camera noise into colour
_MIN_LAB_STD = 0.5  # rounding to 8 bits alone causes about 0.3
_LEAST_DENSE = 0.02  # share of the pixels among which glass is looked for
_MIN_GLASS, _MAX_GLASS_CHROMA, _MAX_GLASS_STD = 180, 25, 5  # beyond these, the least dense pixels are tissue
_SAMPLED_PX, _BLOCK_PX = 1 << 17, 1 << 16

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Normalised:
    """An image in the colours of the reference, or unchanged."""

    image: Image
    """(H, W, 3), RGB."""
    unchanged: str = ""
    """Why the image was not changed; empty if it was normalised."""


def stain_identity(stain: str) -> dict[str, str]:
    """Method, version and target of a normalisation, for a store's `preparation`.

    Raises ConfigError for an unknown stain.
    """
    _check(stain)
    if stain == "none":
        return {"stain": stain}
    targets = {
        "white": (np.array([WHITE, GLASS_PERCENTILE]),),
        "macenko": (*MACENKO_STAINS.T, MACENKO_CONCENTRATIONS),
        "reinhard": (REINHARD_MEANS, REINHARD_STDS),
    }
    target = "; ".join(" ".join(map(str, values.tolist())) for values in targets[stain])
    return {"stain": stain, "stain_version": _VERSION, "stain_target": target}


@dataclass(frozen=True, eq=False)
class Normaliser:
    """A fitted normalisation that can be applied to all parts of an image."""

    change: Callable[[Image], _Floats] | None
    unchanged: str = ""
    """Why nothing could be estimated; images are then returned unchanged."""

    def __call__(self, image: Image) -> Image:
        """Change an image (H, W, 3) to the colours of the reference."""
        return image if self.change is None else _in_blocks(image, self.change)


def fit_normaliser(image: Image, stain: str, excluded: Mask | None = None) -> Normaliser:
    """Fit a normalisation to an image (H, W, 3) or a sample of it, see `normalise`.

    `excluded` are its artefacts (H, W) if they are known. Raises ConfigError for an unknown stain.
    """
    _check(stain)
    if stain == "none":
        return Normaliser(None)
    if stain == "white":
        return _white(image, artefacts(image) if excluded is None else excluded)
    fit = _macenko if stain == "macenko" else _reinhard
    return fit(_sampled(image, artefacts(image) if excluded is None else excluded))


def normalise(image: Image, stain: str, mpp: float | None = None) -> Normalised:
    """Change an H&E image (H, W, 3) to the colours of the reference; the same image always gives the same bytes.

    white: each channel is multiplied by the factor that brings glass to `WHITE`, and clipped at 255. The colour of
    glass is estimated from the 2 % of the pixels with the highest mean of the three channels: their `GLASS_PERCENTILE`
    in each channel. If these are darker than 180 in a channel or differ by more than 25 between channels, or if the
    pixels' surroundings of 3 x 3 have a median standard deviation of more than 5 grey levels, they are tissue: an image
    without glass is returned unchanged.

    macenko: stain vectors and concentrations are estimated by torchstain's numpy backend (Macenko et al., ISBI 2009),
    on a regular grid of pixels if the image is large. Concentrations are scaled to those of the reference and converted
    back with its stain vectors, which is one 3 x 3 matrix on optical densities. Pixels brighter than the transmitted
    light do not change, so white stays white.

    reinhard: means and standard deviations of the tissue in CIELAB become those of the target (Reinhard et al., IEEE
    CG&A 2001). Glass keeps its colour; the change is blended between glass and tissue, so that no edges appear.

    What is black, unscanned or pen (`nucseg.data.tissue.artefacts`, which uses the microns per pixel) keeps its colour
    and counts as glass in the estimate.

    If nothing can be estimated (too little tissue, no glass, one colour, one stain), the image is returned unchanged,
    with the reason. Raises ConfigError for an unknown stain.
    """
    if stain == "none":
        return Normalised(image)
    _check(stain)
    excluded = artefacts(image, mpp)
    fitted = fit_normaliser(image, stain, excluded)
    normalised = fitted(image)
    if fitted.change is not None:
        normalised[excluded] = image[excluded]
    return Normalised(normalised, fitted.unchanged)


def _check(stain: str) -> None:
    if stain not in STAINS:
        raise ConfigError(f"stain must be {', '.join(STAINS[:-1])} or {STAINS[-1]}, got {stain!r}.")


def _white(image: Image, excluded: Mask) -> Normaliser:
    """Fit to an image (H, W, 3), on a regular grid of pixels if it is large, without its artefacts (H, W)."""
    step = _step(image)
    places = np.argwhere(~excluded[::step, ::step]) * step
    pixels = image[places[:, 0], places[:, 1]]
    if len(pixels) < MIN_TISSUE_PX:
        return Normaliser(None, "too little that is neither black nor pen")
    if (pixels == pixels[0]).all():
        return Normaliser(None, "one colour")
    brightness = pixels.sum(axis=1, dtype=np.int64)
    n_least_dense = max(ceil(_LEAST_DENSE * len(pixels)), MIN_TISSUE_PX)
    least_dense = np.argsort(-brightness, kind="stable")[:n_least_dense]
    glass = np.percentile(pixels[least_dense], GLASS_PERCENTILE, axis=0, method="lower")
    is_bright_gray = glass.min() >= _MIN_GLASS and np.ptp(glass) <= _MAX_GLASS_CHROMA
    if not is_bright_gray or np.median(_stds_around(image, places[least_dense])) > _MAX_GLASS_STD:
        return Normaliser(None, "no glass")
    factors = (WHITE / glass).astype(np.float32)
    return Normaliser(lambda block: np.asarray(block * factors, np.float32))


def _stds_around(image: Image, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The standard deviation of gray in the 3 x 3 pixels around each of the places (N, 2)."""
    rows, columns = (
        (at[:, np.newaxis] + (-1, 0, 1)).clip(0, extent - 1)
        for at, extent in zip(places.T, image.shape[:2], strict=True)
    )
    around = image[rows[:, :, np.newaxis], columns[:, np.newaxis]].mean(axis=-1)
    return np.asarray(around.std(axis=(1, 2)))


def _macenko(sample: Image) -> Normaliser:
    """Fit to sampled pixels (H, W, 3)."""
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    if (DENSITY[highest(sample)] >= GLASS).sum() < MIN_TISSUE_PX:
        return Normaliser(None, "too little tissue")
    estimate = NumpyMacenkoNormalizer()
    estimate.fit(sample, Io=LIGHT, beta=GLASS)
    # rounded, because the last bits of its sums depend on the number of threads
    stains, concentrations = estimate.HERef.round(6), estimate.maxCRef.round(6)
    cosine = stains[:, 0] @ stains[:, 1]
    if not (cosine < np.cos(np.radians(_MIN_DEGREES)) and stains.min() > _MIN_ABSORBANCE):
        return Normaliser(None, "no two stains")
    if not concentrations.min() >= GLASS:
        return Normaliser(None, "too little stain")
    matrix = MACENKO_STAINS * (MACENKO_CONCENTRATIONS / concentrations) @ np.linalg.pinv(stains)
    transposed = matrix.T.astype(np.float32)

    def in_reference(block: Image) -> _Floats:
        density = DENSITY[block]
        absorbed = np.maximum(density, 0)
        normalised = absorbed @ transposed + (density - absorbed)
        return np.asarray(LIGHT * np.exp(-normalised.clip(DENSITY[255], DENSITY[0])) - 1, np.float32)

    return Normaliser(in_reference)


def _reinhard(sample: Image) -> Normaliser:
    """Fit to sampled pixels (H, W, 3)."""
    from skimage.color import lab2rgb, rgb2lab

    tissue = sample[is_dense(sample)]
    if len(tissue) < MIN_TISSUE_PX:
        return Normaliser(None, "too little tissue")
    lab = rgb2lab(tissue.astype(np.float32) / 255)
    means, stds = (part.round(4) for part in (lab.mean(axis=0, dtype=np.float64), lab.std(axis=0, dtype=np.float64)))
    if stds.min() < _MIN_LAB_STD:
        return Normaliser(None, "one colour")
    scale = (REINHARD_STDS / stds).astype(np.float32)
    shift = (REINHARD_MEANS - means * REINHARD_STDS / stds).astype(np.float32)

    def in_reference(block: Image) -> _Floats:
        moved = rgb2lab(block.astype(np.float32) / 255) * scale + shift
        # clip colours with negative Z, as skimage does with a warning; 0.01 allows for its rounding
        moved[..., 2] = np.minimum(moved[..., 2], (moved[..., 0] + 16) * (200 / 116) - 0.01)
        share = (DENSITY[lowest(block)] / GLASS).clip(0, 1)[..., np.newaxis]
        return np.asarray(share * 255 * lab2rgb(moved) + (1 - share) * block, np.float32)

    return Normaliser(in_reference)


def _sampled(image: Image, excluded: Mask) -> Image:
    """Every n-th pixel of every n-th row, as glass where it is excluded: enough for percentiles and means.

    Macenko's percentiles are over all pixels: left out, black around the tissue would give other colours than glass.
    """
    step = _step(image)
    return np.where(excluded[::step, ::step, np.newaxis], np.uint8(LIGHT), image[::step, ::step])


def _step(image: Image) -> int:
    return ceil(sqrt(image.shape[0] * image.shape[1] / _SAMPLED_PX))


def _in_blocks(image: Image, change: Callable[[Image], _Floats]) -> Image:
    """Apply a change to a few rows at a time, because floats take many times the memory of the image."""
    changed = np.empty_like(image)
    n_rows = max(_BLOCK_PX // image.shape[1], 1)
    for first in range(0, len(image), n_rows):
        rows = slice(first, first + n_rows)
        changed[rows] = np.rint(change(image[rows])).clip(0, 255)
    return changed
