"""Stain normalisation against Beer and Lambert's law in closed form, torchstain, skimage, and real images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.color import rgb2lab
from threadpoolctl import threadpool_limits
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer

from nucseg.data import STAINS, normalise, open_dataset, stain_identity, synthetic_dataset
from nucseg.data.stain import (
    MACENKO_CONCENTRATIONS,
    MACENKO_STAINS,
    REINHARD_MEANS,
    REINHARD_STDS,
    fit_normaliser,
)
from nucseg.errors import ConfigError

BLUISH = np.array([[0.65, 0.25], [0.70, 0.87], [0.30, 0.43]])
REDDISH = np.array([[0.50, 0.30], [0.70, 0.70], [0.51, 0.65]])
"""Two laboratories: absorbance in R, G, B of their haematoxylin and their eosin."""

METHODS = ("macenko", "reinhard")


def concentrations(side_px: int = 96, *, alone: bool = True) -> Any:
    """(2, n) of haematoxylin and eosin; if `alone`, a tenth of the pixels have only the one, a tenth only the other."""
    n, rng = side_px * side_px, np.random.default_rng(0)
    amounts = np.stack([rng.uniform(0.6, 1.6, n), rng.uniform(0.7, 1.2, n)])
    if alone:
        amounts[1, : n // 10] = 0
        amounts[0, n // 10 : n // 5] = 0
    return amounts[:, rng.permutation(n)]


def seen(stains: Any, amounts: Any) -> Any:
    """The image (uint8) by Beer and Lambert's law, with the transmitted light of Macenko's code."""
    side_px = round(amounts.shape[1] ** 0.5)
    values = 240 * np.exp(-(stains / np.linalg.norm(stains, axis=0)) @ amounts) - 1
    return values.T.reshape(side_px, side_px, 3).round().clip(0, 255).astype(np.uint8)


def gap(image: Any, other: Any) -> float:
    """Mean difference of two images in grey levels."""
    return float(np.abs(image.astype(int) - other).mean())


@pytest.mark.parametrize("stains", [BLUISH, REDDISH, BLUISH * 0.5], ids=["bluish", "reddish", "any length"])
def test_macenko_keeps_concentrations_and_takes_the_colours_of_the_reference(stains) -> None:
    amounts = concentrations()
    scaled = amounts * (MACENKO_CONCENTRATIONS / np.percentile(amounts, 99, axis=1))[:, np.newaxis]
    expected = 240 * np.exp(-MACENKO_STAINS @ scaled) - 1

    found = normalise(seen(stains, amounts), "macenko")

    assert found.unchanged == ""
    assert np.abs(found.image.reshape(-1, 3).T - expected).mean() < 1.0
    density = -np.log((found.image.reshape(-1, 3).T + 1) / 240)
    for stain in (0, 1):  # where it is alone, what is absorbed is in the proportions of the reference
        alone = density[:, amounts[1 - stain] == 0].mean(axis=1)
        cosine = MACENKO_STAINS[:, stain] @ alone / np.linalg.norm(MACENKO_STAINS[:, stain]) / np.linalg.norm(alone)
        assert np.degrees(np.arccos(min(cosine, 1))) < 1


@pytest.mark.parametrize("method", METHODS)
def test_tissue_from_two_laboratories_becomes_similar(method) -> None:
    bluish, reddish = (seen(stains, concentrations()) for stains in (BLUISH, REDDISH))

    after = gap(normalise(bluish, method).image, normalise(reddish, method).image)

    assert gap(bluish, reddish) > 15
    assert after < gap(bluish, reddish) / 5


def test_the_references_of_macenko_are_those_that_torchstain_ships() -> None:
    reference = NumpyMacenkoNormalizer()

    assert np.array_equal(MACENKO_STAINS, reference.HERef)
    assert np.array_equal(MACENKO_CONCENTRATIONS, reference.maxCRef)


def test_macenko_equals_torchstain_up_to_its_rounding() -> None:
    image = seen(BLUISH, concentrations())
    theirs = NumpyMacenkoNormalizer().normalize(image, stains=False)[0]  # adds 1 to a level, and rounds down

    assert np.abs(normalise(image, "macenko").image - theirs.astype(int)).max() <= 1


def test_reinhard_equals_torchstain_up_to_its_rounding() -> None:
    image = seen(BLUISH, concentrations())
    reference = NumpyReinhardNormalizer()
    reference.target_means, reference.target_stds = REINHARD_MEANS, REINHARD_STDS

    assert np.abs(normalise(image, "reinhard").image - reference.normalize(image).astype(int)).max() <= 1


def test_reinhard_gives_tissue_the_means_and_deviations_of_the_target() -> None:
    found = normalise(seen(REDDISH, concentrations(alone=False) / 2), "reinhard").image

    assert 0 < found.min() <= found.max() < 255  # nothing was cut off
    lab = rgb2lab(found).reshape(-1, 3)
    assert lab.mean(axis=0) == pytest.approx(REINHARD_MEANS, abs=0.05)
    assert lab.std(axis=0) == pytest.approx(REINHARD_STDS, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_white_stays_white_and_does_not_change_the_tissue(method) -> None:
    image = seen(BLUISH, concentrations())
    alone = normalise(image, method).image
    with_glass = np.concatenate([image, np.full((24, 96, 3), 240, np.uint8), np.full((24, 96, 3), 255, np.uint8)])

    found = normalise(with_glass, method).image

    assert np.array_equal(found[96:], with_glass[96:])
    assert gap(found[:96], alone) < 2


def test_there_is_no_edge_between_glass_and_tissue() -> None:
    image = seen(BLUISH, concentrations())
    ramp = np.linspace(255, 150, 96).round().astype(np.uint8)
    image[:4] = ramp[:, np.newaxis]

    for method in METHODS:
        steps = np.abs(np.diff(normalise(image, method).image[1].astype(int), axis=0))
        assert steps.max() <= 8, method


def one_pixel_of_tissue() -> Any:
    image = np.full((32, 32, 3), 250, np.uint8)
    image[16, 16] = (90, 40, 120)
    return image


def one_stain() -> Any:
    amounts = concentrations()
    amounts[1] = 0
    return seen(BLUISH, amounts)


DEGENERATE = {
    "white": np.full((64, 64, 3), 255, np.uint8),
    "black": np.zeros((64, 64, 3), np.uint8),
    "one colour": np.full((64, 64, 3), (120, 60, 140), np.uint8),
    "two colours": np.kron(np.eye(2, dtype=np.uint8)[..., np.newaxis], np.full((32, 32, 3), 99, np.uint8)),
    "gray": np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8).repeat(3, axis=2),
    "1 x 1": np.full((1, 1, 3), (120, 60, 140), np.uint8),
    "one pixel of tissue": one_pixel_of_tissue(),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", DEGENERATE)
def test_an_image_without_an_estimate_is_returned_unchanged_with_the_reason(what, method) -> None:
    found = normalise(DEGENERATE[what], method)

    assert np.array_equal(found.image, DEGENERATE[what])
    assert found.unchanged in ("too little tissue", "no two stains", "too little stain", "one colour")


def test_macenko_does_not_take_rounding_errors_for_a_second_stain() -> None:
    assert normalise(one_stain(), "macenko").unchanged == "no two stains"


def test_macenko_does_not_amplify_traces_of_a_stain() -> None:
    """Tissue on half a percent of the image: the 99th percentile of the concentrations is that of glass."""
    image = np.full((200, 200, 3), 236, np.uint8)
    image[:14, :14] = seen(BLUISH, concentrations())[:14, :14]

    assert normalise(image, "macenko").unchanged == "too little stain"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.4])
@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (20, 140, 60)], ids=["black", "gray", "pen"])
def test_what_is_not_tissue_does_not_steer_the_estimate(method: str, share: float, colour: Any) -> None:
    """TIAToolbox #289 and CLAM #242: 1 % of black pixels are the 99th percentile that all others are scaled by."""
    partly, glass = (synthetic_dataset(1, side_px=256).entries[0].read_image()[0] for _ in range(2))
    partly[:, : round(256 * share)] = colour
    glass[:, : round(256 * share)] = 245
    tissue = slice(round(256 * share) + 8, None)

    found = normalise(partly, method)

    assert found.unchanged == ""
    assert gap(found.image[:, tissue], normalise(glass, method).image[:, tissue]) < 1.5  # by the rim of the artefact
    assert (found.image[:, : round(256 * share)] == colour).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_any_image_can_be_normalised(method, seed) -> None:
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, 256, (37, 53, 3)) // (1 + seed) + 40 * seed).astype(np.uint8)  # from noise to few colours

    found = normalise(image, method).image  # a NaN on its way to uint8 would warn

    assert (found.shape, found.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_a_large_image_is_normalised_in_one_piece(method) -> None:
    tile = seen(BLUISH, concentrations(200))
    large = np.concatenate([np.concatenate([tile, tile[:, ::-1]], axis=1)] * 3)  # 600 x 400: in several blocks

    found = normalise(large, method).image

    assert np.array_equal(found, np.concatenate([found[:200]] * 3))
    assert np.array_equal(found[:, :200], found[:, :199:-1])
    assert gap(found[:200, :200], normalise(tile, method).image) < 1.5  # estimated on every second pixel


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_do_not_depend_on_the_number_of_threads(method) -> None:
    image = seen(BLUISH, concentrations(300))
    with threadpool_limits(1):
        alone = normalise(image, method).image
    with threadpool_limits(4):
        threaded = normalise(image, method).image

    assert np.array_equal(alone, threaded)


def test_images_are_not_changed_without_normalisation() -> None:
    image = seen(BLUISH, concentrations())

    assert normalise(image, "none").image is image
    assert stain_identity("none") == {"stain": "none"}  # as stores that know of no other have it


def test_every_normalisation_has_its_own_identity(monkeypatch) -> None:
    before = [stain_identity(stain) for stain in STAINS]
    monkeypatch.setattr("nucseg.data.stain.REINHARD_MEANS", REINHARD_MEANS + 0.1)
    monkeypatch.setattr("nucseg.data.stain.MACENKO_CONCENTRATIONS", MACENKO_CONCENTRATIONS + 0.001)
    after = [stain_identity(stain) for stain in STAINS]

    assert [identity["stain"] for identity in before] == list(STAINS)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, False]


def test_an_unknown_stain_is_refused() -> None:
    for ask in (stain_identity, lambda stain: normalise(one_stain(), stain)):
        with pytest.raises(ConfigError, match="none, white, macenko or reinhard, got 'vahadane'"):
            ask("vahadane")


@pytest.fixture(scope="module")
def real(shared: Path) -> dict[str, list[Any]]:
    """Images of two data sets with different staining and cameras."""
    folders = {"nuinsseg": "nuinsseg", "dsb2018": "dsb2018_he"}
    entries = {name: open_dataset(name, shared / "data" / folder).entries for name, folder in folders.items()}
    return {name: [entry.read_image()[0][:256, :256] for entry in listed[::16]] for name, listed in entries.items()}


@pytest.mark.shared
@pytest.mark.parametrize("method", METHODS)
def test_normalising_brings_real_data_sets_closer_together(real, method) -> None:
    before, after = {}, {}
    for name, images in real.items():
        before[name] = np.array([image.mean(axis=(0, 1)) for image in images])
        after[name] = np.array([normalise(image, method).image.mean(axis=(0, 1)) for image in images])

    def distance(means: dict[str, Any]) -> float:
        return float(np.linalg.norm(means["nuinsseg"].mean(axis=0) - means["dsb2018"].mean(axis=0)))

    def spread(means: dict[str, Any]) -> float:
        return float(np.concatenate(list(means.values())).std(axis=0).mean())

    assert distance(after) < distance(before) / 2
    assert spread(after) < spread(before) / 1.5


@pytest.mark.shared
def test_reinhards_target_is_cryonuseg_in_the_colours_of_macenkos(shared) -> None:
    found = []
    for entry in open_dataset("cryonuseg", shared / "data" / "cryonuseg").entries:
        image = normalise(entry.read_image()[0], "macenko").image
        tissue = rgb2lab(image[image.min(axis=-1) < 240 * np.exp(-0.15) - 1])
        found.append([tissue.mean(axis=0), tissue.std(axis=0)])

    assert np.mean(found, axis=0) == pytest.approx(np.array([REINHARD_MEANS, REINHARD_STDS]), abs=0.06)


@pytest.mark.parametrize("stain", ["macenko", "reinhard"])
def test_a_fitted_normalisation_changes_parts_like_the_whole(stain) -> None:
    image = synthetic_dataset(1, side_px=128).entries[0].read_image()[0]
    fitted = fit_normaliser(image, stain)
    whole = normalise(image, stain).image
    assert (whole != image).any()
    np.testing.assert_array_equal(fitted(image[:50, 30:]), whole[:50, 30:])


def lit(light: Any, *, glass: float = 0.1) -> Any:
    """Tissue under a light (R, G, B); glass, a share at the right, has the colour of the light or one level less."""
    image = seen(BLUISH, concentrations()) / 240 * light
    is_glass = slice(round(96 * (1 - glass)), None)
    image[:, is_glass] = light
    image[:, is_glass] -= np.random.default_rng(1).integers(0, 2, (96, 96, 1))[:, is_glass]
    return np.rint(image).astype(np.uint8)


@pytest.mark.parametrize("light", [(200, 200, 200), (230, 215, 205), (250, 250, 250)])
def test_white_divides_by_the_light(light) -> None:
    reference = lit((240, 240, 240)).astype(int)

    found = normalise(lit(light), "white")

    assert found.unchanged == ""
    assert np.abs(found.image - reference).max() <= 1  # rounded twice


def test_white_estimates_glass_beside_black_and_pen() -> None:
    image = lit((220, 210, 200))
    image[:30] = 0
    image[30:60, :40] = (20, 140, 60)
    found = normalise(image, "white", 0.25).image
    assert np.abs(found[70:, -5:].astype(int) - 240).max() <= 2
    assert (found[:25] == 0).all()
    assert (found[35:55, :35] == (20, 140, 60)).all()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (DEGENERATE["black"], "too little|one colour"),
        (DEGENERATE["one colour"], "one colour"),
        (DEGENERATE["1 x 1"], "too little"),
        (DEGENERATE["two colours"], "no glass|too little"),
        (lit((240, 240, 240), glass=0) // 2, "no glass"),
        (
            np.full((64, 64, 3), (228, 198, 218), np.uint8) - np.arange(64, dtype=np.uint8)[:, None, None] // 32,
            "no glass",
        ),
        (np.random.default_rng(0).normal((225, 215, 222), 12, (64, 64, 3)).clip(0, 255).astype(np.uint8), "no glass"),
    ],
)
def test_white_leaves_an_image_without_glass(image, reason) -> None:
    found = normalise(image, "white")
    assert np.array_equal(found.image, image)
    assert found.unchanged
    assert found.unchanged.startswith(tuple(reason.split("|")))


def test_bright_specks_do_not_count_as_glass() -> None:
    image = lit((200, 200, 200), glass=0.2)
    image[:2, :2] = 255
    assert np.abs(normalise(image, "white").image[:, -5:].astype(int) - 240).max() <= 2


def test_white_fitted_to_a_whole_changes_parts_alike() -> None:
    image = lit((230, 215, 205))
    fitted = fit_normaliser(image, "white")
    np.testing.assert_array_equal(fitted(image[:20, :30]), normalise(image, "white").image[:20, :30])
