"""Black, unscanned and pen against areas drawn by hand, also compressed; and which images look like H&E."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.color import hed2rgb

from nucseg.data import open_dataset, synthetic_dataset
from nucseg.data.tissue import ARTEFACT_RIM_PX, Tissue, artefacts, is_dense

SIDE_PX = 256
Y, X = np.mgrid[:SIDE_PX, :SIDE_PX]
STROKE = np.abs(Y - X / 2 - 60 + 15 * np.sin(X / 25)) < 9

AREAS: dict[str, tuple[Any, Any]] = {
    "three columns": (X < 3, 0),
    "one row": (Y < 1, 0),
    "a corner, as after a rotation": (X + Y < 90, 0),
    "a frame": ((np.minimum(X, Y) < 20) | (np.maximum(X, Y) > 235), 0),
    "all but a disc": ((X - 128) ** 2 + (Y - 128) ** 2 > 100**2, 0),
    "a gray half": (X < 128, 128),
    "green pen": (STROKE, (20, 140, 60)),
    "blue pen": (STROKE, (40, 60, 180)),
    "red pen": (STROKE, (200, 30, 45)),
    "black pen": (STROKE, (32, 30, 36)),
}


def tissue_image() -> Any:
    return synthetic_dataset(1, side_px=SIDE_PX).entries[0].read_image()[0]


def drawn(where: Any, colour: Any) -> Any:
    image = tissue_image()
    image[where] = colour
    return image


def as_jpeg(image: Any, quality: int) -> Any:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("what", AREAS)
def test_an_area_without_tissue_is_found_up_to_its_rim(what: str) -> None:
    """CLAM #242 (black around a scan), HistoQC's pens."""
    where, colour = AREAS[what]
    found = artefacts(drawn(where, colour))

    padded = np.pad(where, ARTEFACT_RIM_PX)
    reach = range(2 * ARTEFACT_RIM_PX + 1)
    around = np.any([padded[y : y + SIDE_PX, x : x + SIDE_PX] for y in reach for x in reach], axis=0)
    assert np.array_equal(found, around)


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("what", [what for what in AREAS if what != "one row"])
def test_an_area_without_tissue_is_found_after_jpeg(what: str, quality: int) -> None:
    where, colour = AREAS[what]
    found = artefacts(as_jpeg(drawn(where, colour), quality), 0.25)

    assert found[where].mean() > 0.95
    assert found[~where].mean() < 0.15


def test_dark_nuclei_and_specks_of_pigment_are_tissue() -> None:
    image = tissue_image()
    image[(Y - 60) ** 2 + (X - 60) ** 2 < 20**2] = (40, 20, 60)
    image[150:155, 100:104] = (8, 6, 7)
    image[200:210, 180:200] = (50, 47, 52)

    assert not artefacts(image).any()


def test_a_speck_of_pigment_stays_tissue_at_a_higher_magnification() -> None:
    image = tissue_image()
    image[100:109, 100:110] = (8, 6, 7)

    assert [bool(artefacts(image, mpp).any()) for mpp in (0.5, 0.25, 0.125, None)] == [True, True, False, False]


def test_slightly_green_glass_is_no_pen() -> None:
    image = tissue_image()
    image[:, 128:] = np.random.default_rng(0).normal((215, 240, 238), 2, (SIDE_PX, 128, 3)).round()

    assert not artefacts(image).any()


def test_dark_gray_is_left_in_an_image_that_is_gray_itself() -> None:
    gray = np.asarray(Image.fromarray(tissue_image()).convert("L"))
    dark = gray // 2 + 18  # above black
    image = np.repeat(dark[..., np.newaxis], 3, axis=-1)

    assert (dark <= 64).sum() > 2000
    assert not artefacts(image).any()


@pytest.mark.parametrize("level", [3, 9, 14, 40])
def test_black_with_the_noise_of_a_camera_is_no_tissue(level: int) -> None:
    where = Y > 100
    found = artefacts(drawn(where, np.random.default_rng(0).normal(level, 1, (where.sum(), 3)).clip(0).round()))

    assert found[where].mean() > 0.99
    assert found[~where].mean() < 0.1


@pytest.mark.parametrize("quality", [95, 60])
def test_a_black_pen_on_glass_is_no_tissue(quality: int) -> None:
    glass = np.full((SIDE_PX, SIDE_PX, 3), 240, np.uint8)
    glass[STROKE] = (32, 30, 36)

    assert Tissue.of(as_jpeg(glass, quality)).share < 0.005


def test_a_smooth_gray_image_is_not_taken_for_unscanned() -> None:
    noise = np.random.default_rng(0).normal(0, 1, Y.shape)  # of a camera
    smooth = np.repeat(
        (100 + 80 * np.sin(Y / 60) * np.cos(X / 90) + noise).astype(np.uint8)[..., np.newaxis], 3, axis=-1
    )

    assert Tissue.of(smooth).n_artefact_px == 0
    assert Tissue.of(smooth).caution == "it is gray"


def test_tissue_is_what_is_denser_than_glass_and_no_artefact() -> None:
    image = np.full((100, 100, 3), 245, np.uint8)
    image[:30] = np.random.default_rng(0).normal((180, 100, 170), 8, (30, 100, 3)).round()
    image[60:] = 0

    assert is_dense(image).mean() == 0.7
    assert Tissue.of(image).share == 0.3
    assert Tissue.of(image).artefact_share == pytest.approx(0.4 + 0.01 * ARTEFACT_RIM_PX)


def test_the_sums_of_parts_are_those_of_the_image() -> None:
    image = tissue_image()
    parts = sum((Tissue.of(image[rows]) for rows in np.array_split(np.arange(SIDE_PX), 5)), Tissue())
    whole = Tissue.of(image)

    assert (parts.n_px, parts.n_tissue_px, parts.chroma) == (whole.n_px, whole.n_tissue_px, whole.chroma)
    assert parts.density == pytest.approx(whole.density)
    assert Tissue().share == Tissue().artefact_share == 0


def gray(image: Any) -> Any:
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., np.newaxis], 3, axis=-1)


def fluorescence(image: Any, channels: tuple[int, ...]) -> Any:
    """Nuclei bright on black with noise, in some of the channels."""
    darkness = 255.0 - gray(image)[..., 0]
    light = (darkness - np.percentile(darkness, 60)).clip(0) * 2
    noise = np.random.default_rng(0).normal(3, 2, image.shape)
    for channel in channels:
        noise[..., channel] += light
    return noise.clip(0, 255).astype(np.uint8)


OTHERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "gray": (gray, "gray"),
    "gray, JPEG": (lambda image: as_jpeg(gray(image), 80), "gray"),
    "inverted": (lambda image: 255 - image, "absorbed more than green|no tissue"),
    "gray fluorescence": (lambda image: fluorescence(image, (0, 1, 2)), "gray|no tissue"),
    "DAPI": (lambda image: fluorescence(image, (2,)), "bright on black|no tissue"),
    "FITC": (lambda image: fluorescence(image, (1,)), "bright on black|no tissue"),
    "TRITC": (lambda image: fluorescence(image, (0,)), "bright on black|no tissue"),
    "white": (lambda image: np.full_like(image, 244), "no tissue: 0% is black"),
    "black": (np.zeros_like, "no tissue: 100% is black"),
    "brown": (lambda image: np.uint8(255 * hed2rgb(gray(image)[..., :1] / 255 * [0, 0, 0.4])), "blue is absorbed"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_an_image_that_does_not_look_like_h_and_e_gets_a_caution(what: str) -> None:
    change, reason = OTHERS[what]

    assert Tissue.of(tissue_image()).caution == ""
    assert any(part in Tissue.of(change(tissue_image())).caution for part in reason.split("|"))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["nuinsseg", "cryonuseg", "dsb2018"])
def test_real_images_have_no_artefact_and_look_like_h_and_e_unless_they_are_changed(shared: Path, name: str) -> None:
    folder = shared / "data" / ("dsb2018_he" if name == "dsb2018" else name)
    for entry in open_dataset(name, folder).entries[::4]:
        image = entry.read_image()[0]
        found = Tissue.of(image)
        assert (found.n_artefact_px, found.caution) == (0, ""), entry.id
        again = Tissue.of(as_jpeg(image, 70))
        assert (again.n_artefact_px, again.caution) == (0, ""), entry.id
        for change in (gray, lambda image: 255 - image, lambda image: fluorescence(image, (2,))):
            assert Tissue.of(change(image)).caution, entry.id


PIGMENTED = {
    "human spleen/human_spleen_12", "human spleen/human_spleen_01", "human umbilical cord/human_umbilical_cord_09",
    "human kidney/human_kidney_08",
}  # fmt: skip
"""Images with the largest areas that look like an artefact."""


@pytest.mark.shared
@pytest.mark.parametrize("factor", [0.5, 1.25, 1.5, 2])
def test_real_images_have_no_artefact_at_another_magnification(shared: Path, factor: float) -> None:
    entries = [
        entry for entry in open_dataset("nuinsseg", shared / "data" / "nuinsseg").entries if entry.id in PIGMENTED
    ]
    assert len(entries) == len(PIGMENTED)
    for entry in entries:
        image = Image.fromarray(entry.read_image()[0])
        side = round(image.width * factor)
        for resampling in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST):
            resized = np.asarray(image.resize((side, side), resampling))
            for mpp in (0.25 / factor, None):
                assert not artefacts(resized, mpp).any(), entry.id
