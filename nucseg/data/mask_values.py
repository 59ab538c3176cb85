"""Find the numbers of a mask in the palette or the channels that show it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nucseg.errors import DataError

_BLACK, _WHITE, _OPAQUE = (0, 0, 0), (255, 255, 255), 255

Colours = Sequence[tuple[int, ...]]
"""The entries (R, G, B, A) of a palette."""


def picture_colours(picture: Image.Image) -> Colours:
    """The palette of a picture of mode P; entries that are missing are black, as decoders show them."""
    strip = Image.frombytes("P", (256, 1), bytes(range(256)))
    strip.putpalette(((picture.getpalette("RGB") or []) + [0] * 768)[:768])
    if "transparency" in picture.info:
        strip.info["transparency"] = picture.info["transparency"]
    return [tuple(colour) for colour in np.array(strip.convert("RGBA"))[0].tolist()]


def tiff_colours(palette: npt.NDArray[np.uint8]) -> Colours:
    """The palette of a TIFF, (N, 3)."""
    return [(*colour, _OPAQUE) for colour in palette.tolist()]


def palette_values(indices: npt.NDArray[np.uint8], colours: Colours, file: Path) -> npt.NDArray[np.uint8]:
    """The indices (H, W) of a palette image, with 0 for the background.

    The indices are the ids: colours only serve the display, and may repeat. But some programs sort the palette, so that
    index 0 is not the background. If a transparent entry is used, that is the background. Otherwise it is index 0 if it
    is black; if it is not, an entry that is black, or white on more than half of the image, takes its place if it
    covers more. The two indices are then exchanged. Raises DataError if the areas are too similar to decide.
    """
    background = _background(np.bincount(indices.ravel(), minlength=256), colours, file)
    exchanged = np.arange(256, dtype=np.uint8)
    exchanged[[0, background]] = background, 0
    return np.asarray(exchanged[indices])


def webp_chunks(data: bytes) -> set[bytes]:
    """The kinds of chunks in a WebP file, none for another: `VP8 ` has a lossy image, `VP8L` one without loss."""
    kinds, position = set(), 12
    while data[8:12] == b"WEBP" and position + 8 <= len(data):
        kinds.add(data[position : position + 4])
        n_bytes = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + n_bytes + n_bytes % 2
    return kinds


def one_channel(values: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
    """The channel (H, W) with the mask, of an image (H, W, C): gray or RGB of equal channels, with or without alpha.

    If the visible colour is the same everywhere, an alpha channel that varies is the mask; otherwise pixels that are
    transparent are background. Raises DataError for colours, and if both colours and transparency take several values.
    """
    if values.shape[-1] in (2, 4) and np.ptp(values[..., -1]):
        values = _without_alpha(values[..., :-1], values[..., -1], file)
    colours = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    if values.shape[-1] > 4 or (colours != colours[..., :1]).any():
        raise DataError(
            f"{file} is a colour image, but a mask has one channel. Save the instance map itself as gray integers, not "
            "a coloured rendering of it."
        )
    return colours[..., 0]


def _background(counts: npt.NDArray[np.intp], colours: Colours, file: Path) -> int:
    used = np.flatnonzero(counts).tolist()
    shown = {index: colours[index][:3] for index in used if colours[index][3]}
    clear = [index for index in used if index not in shown]
    if len(clear) == 1:
        return int(clear[0])
    if clear or len(set(shown.values())) < len(used) or shown.get(0) == _BLACK:
        return 0
    rivals = [index for index, colour in shown.items() if index == 0 or colour == _BLACK]
    rivals += [index for index in shown if index and shown[index] == _WHITE and 2 * counts[index] > counts.sum()]
    rivals.sort(key=lambda index: -counts[index])
    if len(rivals) > 1 and counts[rivals[0]] < 2 * counts[rivals[1]]:
        raise DataError(
            f"{file} has a palette whose first entry {shown.get(0)} and another one, {shown[rivals[0]]}, cover similar "
            "areas, so that it is not clear which one is the background. Save the mask as gray, with 0 for the "
            "background."
        )
    return int(rivals[0]) if rivals else 0


def _without_alpha(colours: npt.NDArray[Any], alpha: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
    opaque = alpha > 0
    if (colours[opaque] == colours[opaque][0]).all():
        return alpha[..., np.newaxis]
    if len(np.unique(alpha)) > 2 or alpha.min() > 0:
        raise DataError(
            f"{file} has colours and an alpha channel that both take several values, so that it is not clear which one "
            "is the mask. Save the mask alone, as gray."
        )
    return np.where(opaque[..., np.newaxis], colours, 0)
