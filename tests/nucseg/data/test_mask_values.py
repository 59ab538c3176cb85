"""Masks in palettes and alpha channels, as programs save them."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data.images import decode_values
from nucseg.data.masks import instances_from
from nucseg.errors import DataError

FILE = Path("masks/a.png")
BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)


def nuclei(*values: int) -> np.ndarray:
    """Up to four squares with these values on a background of 0; a tenth of the image."""
    ids = np.zeros((40, 40), np.uint8)
    for number, value in enumerate(values):
        ids[3 + 10 * (number // 2) : 10 + 10 * (number // 2), 3 + 20 * (number % 2) : 9 + 20 * (number % 2)] = value
    return ids


def packed(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def palette(indices: np.ndarray, *colours: tuple[int, int, int], **options: object) -> bytes:
    picture = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    picture.putpalette([value for colour in colours for value in colour])
    return packed(picture, **options)


def exchanged(indices: np.ndarray, index: int) -> np.ndarray:
    """Index 0 and another one in each other's place."""
    lookup = np.arange(256, dtype=np.uint8)
    lookup[[0, index]] = index, 0
    return lookup[indices]


IDS = nuclei(1, 2, 3, 4)


@pytest.mark.parametrize(
    "colours",
    [
        [BLACK, RED, BLUE, (0, 9, 0), (9, 9, 9)],  # ids in colours
        [BLACK, RED, BLUE, (0, 9, 0), WHITE],
        [WHITE, RED, BLUE, (0, 9, 0), (9, 9, 9)],  # on white paper
        [WHITE, BLACK, BLUE, (0, 9, 0), (9, 9, 9)],
        [(68, 1, 84), RED, BLUE, (0, 9, 0), (9, 9, 9)],  # a map of colours without black
        [(9, 9, 9)] * 5,  # no colours at all
        [BLACK] * 5,
        [(255 - i,) * 3 for i in range(5)],  # an inverted ramp
    ],
)
def test_the_indices_of_a_palette_are_ids_if_0_is_the_background(colours) -> None:
    np.testing.assert_array_equal(decode_values(palette(IDS, *colours), FILE), IDS)


@pytest.mark.parametrize(
    ("index", "colours"),
    [
        (4, [RED, BLUE, (0, 9, 0), (9, 9, 9), BLACK]),  # sorted by another rule
        (4, [WHITE, BLUE, (0, 9, 0), (9, 9, 9), BLACK]),
        (4, [RED, BLUE, (0, 9, 0), (9, 9, 9), WHITE]),
        (2, [RED, BLUE, BLACK, (9, 9, 9), WHITE]),
    ],
)
def test_a_background_of_another_index_becomes_0(index, colours) -> None:
    stored = exchanged(IDS, index)

    np.testing.assert_array_equal(decode_values(palette(stored, *colours), FILE), IDS)


def test_a_binary_mask_that_pillow_has_quantised_keeps_its_nuclei() -> None:
    # nnU-Net issue 1678: the palette starts with white, so that the background got the index 1
    mask = Image.fromarray(nuclei(255, 255, 255, 255)).convert("RGB").quantize(2)
    assert np.array(mask)[0, 0] == 1

    instances, facts = instances_from(decode_values(packed(mask), FILE), FILE)

    assert facts.n_pieces == 4
    np.testing.assert_array_equal(instances > 0, IDS > 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_white_nuclei_on_black_are_nuclei_in_every_format(kind) -> None:
    picture = Image.frombytes("P", (40, 40), (1 - nuclei(1, 1, 1, 1)).tobytes())
    picture.putpalette([*WHITE, *BLACK])

    np.testing.assert_array_equal(decode_values(packed(picture, kind), FILE) > 0, IDS > 0)


def test_the_palette_of_a_tiff_is_read_by_the_same_rule() -> None:
    stream = io.BytesIO()
    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, 0] = 65535
    tifffile.imwrite(stream, 1 - nuclei(1, 1, 1, 1), photometric="palette", colormap=colormap)

    np.testing.assert_array_equal(decode_values(stream.getvalue(), FILE) > 0, IDS > 0)


def test_similar_areas_of_white_and_black_are_refused() -> None:
    half = np.zeros((40, 40), np.uint8)
    half[:, :18] = 1

    with pytest.raises(DataError, match="not clear which one is the background"):
        decode_values(palette(half, WHITE, BLACK), FILE)


def test_a_transparent_entry_is_the_background() -> None:
    stored = exchanged(IDS, 3)

    data = palette(stored, RED, BLUE, (0, 9, 0), (9, 9, 9), (8, 8, 8), transparency=3)

    np.testing.assert_array_equal(decode_values(data, FILE), IDS)


def with_alpha(gray: np.ndarray, alpha: np.ndarray, mode: str) -> bytes:
    return packed(Image.fromarray(np.dstack([*[gray] * (1 if mode == "LA" else 3), alpha]), mode))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("shown", [0, 255, 90])
def test_a_mask_in_the_alpha_channel_is_read_from_there(mode, shown) -> None:
    # ZeroCostDL4Mic issue 8: colours are the same everywhere, the mask is what is not transparent
    alpha = nuclei(255, 255, 255, 255)

    for gray in (np.full_like(alpha, shown), np.where(alpha > 0, shown, 255 - shown).astype(np.uint8)):
        np.testing.assert_array_equal(decode_values(with_alpha(gray, alpha, mode), FILE), alpha)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_background_among_ids(mode) -> None:
    alpha = np.where(IDS > 0, 255, 0).astype(np.uint8)

    for hidden in (0, 255):
        gray = np.where(IDS > 0, IDS, hidden).astype(np.uint8)
        np.testing.assert_array_equal(decode_values(with_alpha(gray, alpha, mode), FILE), IDS)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_an_alpha_channel_that_is_the_same_everywhere_changes_nothing(alpha) -> None:
    for mode in ("LA", "RGBA"):
        data = with_alpha(IDS, np.full_like(IDS, alpha), mode)
        np.testing.assert_array_equal(decode_values(data, FILE), IDS)


def test_a_gray_that_stands_for_transparency_is_background() -> None:
    mask = Image.fromarray(nuclei(7, 7, 7, 7) + np.uint8(9))  # 9 and 16

    values = decode_values(packed(mask, transparency=9), FILE)

    np.testing.assert_array_equal(values > 0, IDS > 0)


def test_ids_and_alpha_that_both_take_several_values_are_refused() -> None:
    alpha = np.tile(np.arange(40, dtype=np.uint8), (40, 1))

    with pytest.raises(DataError, match="not clear which one is the mask"):
        decode_values(with_alpha(IDS, alpha, "LA"), FILE)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_lossless_webp_masks_are_read(options) -> None:
    picture = Image.fromarray(np.dstack([IDS] * 3))

    np.testing.assert_array_equal(decode_values(packed(picture, "WEBP", **options), FILE), IDS)


@pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_lossy_webp_masks_are_refused(options) -> None:
    picture = Image.fromarray(np.dstack([IDS] * 3))

    with pytest.raises(DataError, match="lossy"):
        decode_values(packed(picture, "WEBP", **options), FILE)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bitmaps_give_their_values(mode) -> None:
    picture = {
        "1": Image.fromarray(IDS > 0),
        "L": Image.fromarray(IDS),
        "P": Image.open(io.BytesIO(palette(IDS, BLACK, RED, BLUE, (0, 9, 0), (9, 9, 9)))),
    }[mode]

    np.testing.assert_array_equal(decode_values(packed(picture, "BMP"), FILE), IDS > 0 if mode == "1" else IDS)
