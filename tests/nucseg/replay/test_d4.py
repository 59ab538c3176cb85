"""The group's laws, and its elements against another library's."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg.replay import d4

elements = st.sampled_from(d4.ELEMENTS)
# a busy machine is no reason to fail
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
IN_ALBUMENTATIONS = {0: "e", 1: "h", 2: "v", 3: "r180", 4: "t", 5: "r90", 6: "r270", 7: "hvt"}


def numbered_square(side: int = 5) -> torch.Tensor:
    return torch.arange(2 * side * side).view(2, side, side)


@pytest.fixture(scope="module")
def albumentations_d4() -> Callable[..., object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for its version
        module: ModuleType = pytest.importorskip("albumentations.augmentations.geometric.functional")
    return module.d4


@pytest.mark.parametrize("element", d4.ELEMENTS)
@pytest.mark.parametrize("side", [1, 4, 5])
def test_each_element_is_the_one_of_albumentations(
    albumentations_d4: Callable[..., object], element: int, side: int
) -> None:
    square = numbered_square(side)

    theirs = albumentations_d4(square.movedim(0, -1).numpy(), IN_ALBUMENTATIONS[element])

    assert torch.equal(d4.apply(square, element), torch.tensor(theirs.copy()).movedim(-1, 0))


@unhurried
@given(st.lists(elements, max_size=6))
def test_any_chain_is_the_one_element_that_compose_names(chain: list[int]) -> None:
    square = numbered_square()
    moved, whole = square, 0
    for element in chain:
        moved, whole = d4.apply(moved, element), d4.compose(whole, element)

    assert torch.equal(moved, d4.apply(square, whole))


@unhurried
@given(elements)
def test_the_inverse_undoes_from_both_sides(element: int) -> None:
    square = numbered_square()

    assert torch.equal(d4.apply(d4.apply(square, element), d4.inverse(element)), square)
    assert d4.compose(element, d4.inverse(element)) == d4.compose(d4.inverse(element), element) == 0


@unhurried
@given(elements, elements, elements)
def test_composition_is_associative(a: int, b: int, c: int) -> None:
    assert d4.compose(d4.compose(a, b), c) == d4.compose(a, d4.compose(b, c))


def test_the_eight_elements_are_eight_and_order_matters() -> None:
    images = {tuple(d4.apply(numbered_square(), element).flatten().tolist()) for element in d4.ELEMENTS}

    assert len(images) == 8
    assert d4.compose(1, 4) != d4.compose(4, 1)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float32])
@unhurried
@given(elements)
def test_values_are_moved_bit_for_bit(dtype: torch.dtype, element: int) -> None:
    bits = torch.randint(0, 2, (3, 6, 6), generator=torch.Generator().manual_seed(0))
    x = (bits * torch.tensor(1 / 3 if dtype.is_floating_point else 1)).to(dtype)

    moved = d4.apply(x, element)

    assert moved.dtype == dtype
    assert torch.equal(moved.flatten(1).sort().values, x.flatten(1).sort().values)


@pytest.mark.parametrize("element", d4.ELEMENTS)
def test_pooling_to_the_embeddings_grid_and_moving_commute(element: int) -> None:
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    pool = torch.nn.AvgPool2d(4)

    torch.testing.assert_close(pool(d4.apply(image, element)), d4.apply(pool(image), element))


@pytest.mark.parametrize("shape", [(2, 4, 5), (3,), ()])
@pytest.mark.parametrize("element", [0, 1, 4])
def test_what_is_not_square_is_refused(shape: tuple[int, ...], element: int) -> None:
    with pytest.raises(ConfigError, match="Pad to a square"):
        d4.apply(torch.zeros(shape), element)


@pytest.mark.parametrize("element", [-1, 8])
def test_there_is_no_ninth_element(element: int) -> None:
    for use in (
        lambda: d4.apply(numbered_square(), element),
        lambda: d4.compose(0, element),
        lambda: d4.compose(element, 0),
        lambda: d4.inverse(element),
    ):
        with pytest.raises(ConfigError, match=f"0 to 7, got {element}"):
            use()


def test_every_element_is_drawn_about_as_often() -> None:
    drawn = torch.tensor([d4.draw(3, epoch, f"image {i}") for epoch in range(80) for i in range(100)])
    counts = torch.bincount(drawn, minlength=8).double()

    # chi-squared with 7 degrees of freedom: 24.3 is passed once in a thousand
    assert ((counts - 1000) ** 2 / 1000).sum() < 24.3


def test_seed_epoch_and_sample_each_change_the_draw() -> None:
    base = [d4.draw(0, 0, f"image {i}") for i in range(200)]
    for other in (
        [d4.draw(1, 0, f"image {i}") for i in range(200)],
        [d4.draw(0, 1, f"image {i}") for i in range(200)],
        [d4.draw(0, 0, f"Image {i}") for i in range(200)],
    ):
        same = sum(a == b for a, b in zip(base, other, strict=True))
        assert same == pytest.approx(200 / 8, abs=20)


def test_numbers_and_ids_that_run_together_are_kept_apart() -> None:
    assert [d4.draw(1, 11, f"{i}") for i in range(50)] != [d4.draw(11, 1, f"{i}") for i in range(50)]


def test_draws_are_the_same_in_every_process_and_release() -> None:
    assert [d4.draw(0, epoch, "human brain/01") for epoch in range(12)] == [2, 5, 0, 4, 6, 7, 3, 5, 2, 3, 2, 5]
