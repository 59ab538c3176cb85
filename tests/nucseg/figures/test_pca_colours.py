"""Principal components as colours: checked against scikit-learn and closed forms."""

import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.figures import PrincipalColours, principal_colours, without_padding

RNG = np.random.default_rng(0)


def drawn(channels: int = 12, height: int = 9, width: int = 7) -> NDArray[np.float32]:
    """A map whose channels mix three strong sources and noise."""
    rng = np.random.default_rng(channels)
    sources = rng.normal(size=(3, height, width)) * np.array([9, 5, 2])[:, None, None]
    mixed = np.einsum("kc,khw->chw", rng.normal(size=(3, channels)), sources)
    return (mixed + rng.normal(size=mixed.shape) + 40).astype(np.float32)


def stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / (high - low), 0, 1)


def test_colours_are_the_scores_that_the_eigenvectors_of_the_covariance_give() -> None:
    features = drawn()
    cells = features.reshape(12, -1).T.astype(np.float64)
    variances, vectors = np.linalg.eigh(np.cov(cells.T))
    rgb, explained = principal_colours(features)

    np.testing.assert_allclose(explained, variances[::-1][:3] / variances.sum(), rtol=1e-6)
    for colour, vector in enumerate(vectors.T[::-1][:3]):
        signed = vector * np.sign(vector[np.abs(vector).argmax()])
        expected = stretched((cells - cells.mean(0)) @ signed)
        np.testing.assert_allclose(rgb[..., colour].ravel(), expected, atol=1e-5)


def test_the_largest_loading_is_positive_so_that_the_same_features_give_the_same_colours() -> None:
    features = drawn()
    fitted = PrincipalColours.fit([features])
    shuffled = RNG.permutation(features.reshape(12, -1), axis=1).reshape(features.shape)

    for axis in fitted.axes:
        assert axis[np.abs(axis).argmax()] > 0
    np.testing.assert_allclose(PrincipalColours.fit([shuffled]).axes, fitted.axes, atol=1e-6)


def test_one_ramp_in_all_channels_is_one_colour_and_the_others_stay_at_one_half() -> None:
    ramp = np.linspace(0, 1, 101, dtype=np.float32)[None]  # 1 % steps: the percentiles fall on cells
    rgb, explained = principal_colours(np.stack([ramp, -0.5 * ramp, 3 + 0 * ramp]))

    np.testing.assert_allclose(explained, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rgb[0, :, 0], ((np.arange(101) - 1) / 98).clip(0, 1), atol=1e-5)
    assert (rgb[..., 1:] == 0.5).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_missing_channels_are_no_components(channels: int) -> None:
    rgb, explained = principal_colours(drawn(channels))

    assert np.isfinite(rgb).all()
    assert explained.sum() == pytest.approx(1)
    assert (explained[channels:] == 0).all()
    assert (rgb[..., channels:] == 0.5).all()
    assert rgb[..., 0].std() > 0.1


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 1, 1)])
def test_constant_features_are_grey_and_explain_nothing(shape: tuple[int, ...], standardise: bool) -> None:
    rgb, explained = principal_colours(np.full(shape, 0.1, np.float32), standardise=standardise)

    assert (rgb == 0.5).all()
    assert (explained == 0).all()


def test_rounding_errors_are_not_shown_as_a_colour() -> None:
    ramp = RNG.normal(size=(1, 20, 20))
    rank_one = (np.linspace(1, 2, 8)[:, None, None] * ramp).astype(np.float32)

    rgb, explained = principal_colours(rank_one)

    assert (rgb[..., 1:] == 0.5).all()
    assert explained[0] == pytest.approx(1)


def test_a_few_extreme_cells_do_not_take_the_contrast_from_the_others() -> None:
    features = RNG.uniform(size=(1, 40, 40))
    features[0, 0, 0] = 1e4

    assert principal_colours(features)[0][..., 0].std() > 0.2


def test_a_single_different_cell_is_visible() -> None:
    features = np.zeros((2, 20, 20), np.float32)
    features[0, 3, 4] = 1

    red = principal_colours(features)[0][..., 0]

    assert red[3, 4] == 1
    assert red.sum() == 1


def test_standardising_makes_the_scale_of_a_channel_irrelevant() -> None:
    features = drawn()
    scaled = features * np.geomspace(1e-3, 1e3, 12)[:, None, None]

    as_is, both = principal_colours(scaled), [principal_colours(f, standardise=True) for f in (features, scaled)]

    np.testing.assert_allclose(both[0][0], both[1][0], atol=1e-4)
    assert as_is[1][0] > 0.9 > both[1][1][0]


def test_a_common_fit_gives_equal_cells_of_two_maps_one_colour() -> None:
    first, other = drawn(), drawn() + RNG.normal(size=(12, 9, 7)).astype(np.float32)
    other[:, 2, 3] = first[:, 5, 6]

    common = PrincipalColours.fit([first, other])
    apart = [principal_colours(features)[0] for features in (first, other)]

    np.testing.assert_array_equal(common.paint(first)[5, 6], common.paint(other)[2, 3])
    assert np.abs(apart[0][5, 6] - apart[1][2, 3]).max() > 1e-3


@pytest.mark.parametrize(("size", "kept"), [((256, 320), (51, 64)), ((320, 256), (64, 51)), ((9, 9), (64, 64))])
def test_padding_is_cut_off_and_decides_nothing(size: tuple[int, int], kept: tuple[int, int]) -> None:
    padded = np.full((3, 64, 64), 1e3)
    padded[:, : kept[0], : kept[1]] = RNG.normal(size=(3, *kept))

    covered = without_padding(padded, size)

    assert covered.shape == (3, *kept)
    assert np.abs(covered).max() < 100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_their_number(bad: float) -> None:
    features = drawn()
    features[0, 0, :2] = bad

    with pytest.raises(DataError, match=r"2 values .* not finite"):
        principal_colours(features)


@pytest.mark.parametrize("shapes", [[], [(3, 4)], [(1, 3, 4, 4)], [(3, 4, 4), (4, 4, 4)], [(3, 0, 4)], [(0, 4, 4)]])
def test_what_is_no_feature_map_is_refused_with_the_shapes(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match=r"\(C, H, W\).*" + ("none" if not shapes else str(shapes[0][-1]))):
        PrincipalColours.fit([np.zeros(shape) for shape in shapes])


def test_another_layer_is_refused() -> None:
    with pytest.raises(DataError, match=r"12 channels, .* 5"):
        PrincipalColours.fit([drawn()]).paint(drawn(5))
