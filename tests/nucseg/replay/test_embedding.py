"""Replayed embeddings against cases in which the right answer is known."""

import math

import pytest
import torch
from torch import Tensor

from nucseg.errors import ConfigError, DataError
from nucseg.replay import Motions, Replay, d4, fit_mixing, position_pattern
from nucseg.replay.coordinate_maps import identity_map, pooled, warped


def dyadic(shape: tuple[int, ...], seed: int) -> Tensor:
    """Multiples of 1/64 below 1: their sums and differences are exact in float32."""
    return torch.randint(-63, 64, shape, generator=torch.Generator().manual_seed(seed)) / 64


def random(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shifted(cells: float, grid: int = 8, side: int = 32) -> Tensor:
    """The map by which every pixel gets the content so many cells to its right: (1, side, side, 3)."""
    maps = identity_map(side)[None].clone()
    maps[..., 0] += 2 * cells / grid
    outside = maps[..., 0] > 1
    maps[outside] = 0
    return maps


@pytest.mark.parametrize("element", d4.ELEMENTS)
def test_a_fixed_pattern_and_a_part_that_moves_are_separated_exactly(element: int) -> None:
    pattern, moving = dyadic((16, 8, 8), 0), dyadic((3, 16, 8, 8), 1)
    motions = Motions.of_elements([element] * 3)
    true = pattern + d4.apply(moving, element)

    assert torch.equal(Replay(pattern)(pattern + moving, motions), true)
    if element:
        assert not torch.equal(Replay()(pattern + moving, motions), true)


def test_a_shift_by_whole_cells_leaves_the_pattern_alone_and_what_came_in() -> None:
    pattern, moving = dyadic((16, 8, 8), 0), dyadic((1, 16, 8, 8), 1)

    moved = Replay(pattern)(pattern + moving, Motions.of_maps(shifted(2)))

    torch.testing.assert_close(moved[0, :, :, :6], pattern[:, :, :6] + moving[0, :, :, 2:])
    assert torch.equal(moved[0, :, :, 6:], pattern[:, :, 6:])


def test_a_map_of_a_rotation_and_a_shift_moves_by_the_one_then_by_the_other() -> None:
    pattern, moving = dyadic((16, 8, 8), 0), dyadic((1, 16, 8, 8), 1)
    both = d4.apply(identity_map(32).movedim(-1, 0), 5).movedim(0, -1)[None]
    both = warped_map(both, shifted(2))

    moved = Replay(pattern)(pattern + moving, Motions.of_maps(both))

    rotated = torch.rot90(moving[0], 1, (-2, -1))
    torch.testing.assert_close(moved[0, :, :, :6], pattern[:, :, :6] + rotated[:, :, 2:])


def warped_map(first: Tensor, second: Tensor) -> Tensor:
    """The map of a first motion and then a second, by moving an image of coordinates through both."""
    places, inside = warped(first[..., :2].movedim(-1, 1), second)
    return torch.cat([places.movedim(1, -1), inside[..., None].float()], dim=-1)


def test_exact_views_are_not_rotated_again_but_shifted() -> None:
    pattern, moving = dyadic((16, 8, 8), 0), dyadic((2, 16, 8, 8), 1)
    shift = Motions.of_maps(torch.cat([identity_map(32)[None], shifted(2)]))
    motions = Motions((3, 6), shift.mapped, shift.maps)

    moved = Replay(pattern)(pattern + moving, motions, views=True)

    assert torch.equal(moved[0], (pattern + moving)[0])
    torch.testing.assert_close(moved[1, :, :, :6], pattern[:, :, :6] + moving[1, :, :, 2:])


@pytest.mark.parametrize("element", d4.ELEMENTS)
def test_without_a_pattern_the_whole_embedding_moves(element: int) -> None:
    embeddings = random(2, 16, 8, 8)

    moved = Replay()(embeddings, Motions.of_elements([element] * 2))

    assert torch.equal(moved, d4.apply(embeddings, element))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_does_not_move_keeps_every_bit(dtype: torch.dtype) -> None:
    embeddings = random(3, 16, 8, 8).to(dtype)
    replay = Replay(position_pattern([embeddings]), random(8, 16, 16))

    moved = replay(embeddings, Motions.of_elements([0, 5, 0]))

    assert moved.dtype == torch.float32
    assert torch.equal(moved[[0, 2]], embeddings[[0, 2]].float())


def test_replaying_leaves_its_input_alone() -> None:
    embeddings = random(8, 16, 8, 8)
    before = embeddings.clone()

    for motions in (Motions.of_elements(list(d4.ELEMENTS)), Motions.of_elements([0] * 8)):
        Replay(position_pattern([embeddings]))(embeddings, motions).zero_()

    assert torch.equal(embeddings, before)


def test_each_row_moves_by_its_own_motion() -> None:
    embeddings = random(8, 16, 8, 8)
    replay = Replay(position_pattern([embeddings]), random(8, 16, 16))

    moved = replay(embeddings, Motions.of_elements(list(d4.ELEMENTS)))

    for row, element in enumerate(d4.ELEMENTS):
        alone = replay(embeddings[row : row + 1], Motions.of_elements([element]))
        torch.testing.assert_close(moved[row], alone[0])


def permuting_encoder(image: Tensor) -> Tensor:
    """(1, H, H) -> (16, H, H): linear mixtures of four channels that see edges rising in four directions.

    A quarter turn of the image rotates the map and permutes the directions, so the mixing is known.
    """
    directions = torch.stack([image - image.roll(step, axis) for axis in (-1, -2) for step in (1, -1)], dim=-3)
    mix = random(16, 4, seed=5)
    return torch.einsum("oc,...chw->...ohw", mix, directions.flatten(-4, -3))


def test_channels_that_a_rotation_permutes_are_learned_from_exact_views() -> None:
    pattern = random(16, 8, 8, seed=3)

    def encode(image: Tensor) -> Tensor:
        return permuting_encoder(image) + pattern

    def orbit(seed: int) -> Tensor:
        image = random(1, 8, 8, seed=seed)
        return torch.stack([encode(d4.apply(image, element)) for element in d4.ELEMENTS])

    learned = Replay(pattern, fit_mixing([orbit(seed) for seed in range(4)], pattern))
    unseen = orbit(99)
    motions = Motions.of_elements(list(d4.ELEMENTS))
    unmoved = unseen[0].expand(8, -1, -1, -1)

    def error(replay: Replay) -> float:
        difference = replay(unmoved, motions)[1:] - unseen[1:]
        return float(difference.square().mean() / (unseen[1:] - pattern).square().mean())

    assert error(learned) < 1e-3
    assert error(Replay(pattern)) > 0.5


def test_an_encoder_whose_embeddings_only_move_gets_the_identity() -> None:
    pattern = random(16, 8, 8)
    orbits = [pattern + torch.stack([d4.apply(random(16, 8, 8, seed=s), e) for e in d4.ELEMENTS]) for s in range(3)]

    mixing = fit_mixing(orbits, pattern)

    torch.testing.assert_close(mixing, torch.eye(16).expand(8, -1, -1), atol=5e-3, rtol=0)


def test_the_mixing_is_the_ridge_regression_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    orbits, pattern = [random(8, 6, 4, 4, seed=seed) for seed in range(2)], random(6, 4, 4, seed=9)
    inputs, outputs = [], []
    for orbit in orbits:
        for first in d4.ELEMENTS:
            inputs.append(d4.apply(orbit[first] - pattern, 5).flatten(1).T)
            outputs.append((orbit[d4.compose(first, 5)] - pattern).flatten(1).T)
    x, y = torch.cat(inputs).double(), torch.cat(outputs).double()
    penalty = 1e-3 * float((x * x).sum(0).mean())

    theirs = linear_model.Ridge(alpha=penalty, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_

    torch.testing.assert_close(fit_mixing(orbits, pattern)[5], torch.tensor(theirs).float(), atol=1e-5, rtol=1e-4)


def test_the_mixing_acts_before_the_small_rest_of_a_motion() -> None:
    embeddings, mixing = random(1, 16, 8, 8), random(8, 16, 16, seed=1)
    angle = math.radians(10)
    places = identity_map(32)[..., :2] @ torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    tilted = torch.cat([places, torch.ones(32, 32, 1)], dim=-1)[None]
    motions = Motions((3,), (0,), tilted)

    moved = Replay(None, mixing)(embeddings, motions)

    mixed = torch.einsum("oc,chw->ohw", mixing[3], torch.rot90(embeddings[0], 2, (-2, -1)))
    torch.testing.assert_close(moved, warped(mixed[None], pooled(tilted, 8))[0])


def test_without_exact_views_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match=r"there are none.*--views d4"):
        fit_mixing([], torch.zeros(4, 2, 2))
    with pytest.raises(DataError, match="contains NaN or infinite values"):
        fit_mixing([torch.full((8, 4, 2, 2), torch.nan)], torch.zeros(4, 2, 2))


def test_shapes_that_do_not_match_are_refused() -> None:
    embeddings, turn = random(2, 16, 8, 8), Motions.of_elements([1, 1])
    with pytest.raises(ConfigError, match=r"\(16, 4, 4\).*\(16, 8, 8\)"):
        Replay(torch.zeros(16, 4, 4))(embeddings, turn)
    with pytest.raises(ConfigError, match=r"\(8, 4, 4\).*16 channels"):
        Replay(None, torch.zeros(8, 4, 4))(embeddings, turn)
    with pytest.raises(ConfigError, match=r"Expected 2 motions, one per embedding, got 1"):
        Replay()(embeddings, Motions.of_elements([1]))
    with pytest.raises(ConfigError, match=r"Expected 2 motions, one per sample, got 3"):
        Motions.of_elements([1, 2, 3]).apply_d4(embeddings)
    with pytest.raises(ConfigError, match=r"maps of side 32, but the samples have side 8"):
        Motions.of_maps(shifted(1).expand(2, -1, -1, -1)).apply(embeddings)
