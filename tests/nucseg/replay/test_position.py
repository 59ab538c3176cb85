"""Replayed embeddings against a case in which the right answer is known."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nucseg.errors import ConfigError, DataError
from nucseg.replay import d4, position_pattern, replay, replay_batch


def make_embeddings(n_rows: int = 8, grid: int = 8) -> Tensor:
    return 0.1 * torch.randn(n_rows, 16, grid, grid, generator=torch.Generator().manual_seed(0))


def dyadic(shape: tuple[int, ...], seed: int) -> Tensor:
    """Multiples of 1/64 below 1: sums and differences of them are exact in float32."""
    return torch.randint(-63, 64, shape, generator=torch.Generator().manual_seed(seed)) / 64


@pytest.mark.parametrize("element", d4.ELEMENTS)
def test_a_fixed_pattern_and_a_part_that_moves_are_told_apart_exactly(element: int) -> None:
    pattern, moving = dyadic((16, 8, 8), 0), dyadic((3, 16, 8, 8), 1)
    true = pattern + d4.apply(moving, element)

    assert torch.equal(replay(pattern + moving, element, pattern), true)
    if element:
        assert not torch.equal(replay(pattern + moving, element, None), true)


@pytest.mark.parametrize("element", d4.ELEMENTS)
def test_without_a_pattern_the_whole_embedding_moves(element: int) -> None:
    embedding = make_embeddings()

    assert torch.equal(replay(embedding, element, None), d4.apply(embedding, element))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_identity_changes_no_bit(dtype: torch.dtype) -> None:
    embedding = make_embeddings().to(dtype)
    pattern = position_pattern([embedding])

    assert torch.equal(replay(embedding, 0, pattern), embedding.float())


def test_half_precision_embeddings_are_replayed_in_float32() -> None:
    stored = make_embeddings().half()
    pattern = position_pattern([stored])

    moved = replay(stored, 5, pattern)

    assert moved.dtype == torch.float32
    assert torch.equal(moved, replay(stored.float(), 5, pattern))


def test_each_row_of_a_batch_moves_by_its_own_element() -> None:
    embeddings = make_embeddings()
    pattern = position_pattern([embeddings])

    moved = replay_batch(embeddings, list(d4.ELEMENTS), pattern)

    for row, element in enumerate(d4.ELEMENTS):
        assert torch.equal(moved[row], replay(embeddings[row], element, pattern))
    assert torch.equal(moved[5], torch.rot90(embeddings[5] - pattern, 1, (-2, -1)) + pattern)


def test_replaying_a_batch_leaves_its_input_alone() -> None:
    embeddings = make_embeddings()
    before = embeddings.clone()

    replay_batch(embeddings, list(d4.ELEMENTS), position_pattern([embeddings])).zero_()

    assert torch.equal(embeddings, before)


def test_the_pattern_is_the_mean_however_the_rows_are_batched() -> None:
    rows = make_embeddings(n_rows=11).half()
    mean = torch.tensor(rows.numpy().astype("float64").mean(axis=0)).float()

    for size in (1, 3, 11):
        pattern = position_pattern(rows.split(size))
        assert pattern.dtype == torch.float32
        torch.testing.assert_close(pattern, mean, rtol=1e-6, atol=0)


def test_small_differences_survive_many_rows() -> None:
    # float32 sums of 20,000 values near 100 would be off by more than the differences of cells
    row = 100 + torch.arange(4.0).view(1, 1, 2, 2) / 4096

    assert torch.equal(position_pattern(row for _ in range(20_000)), row[0])


def test_only_one_batch_is_held_at_a_time() -> None:
    def batches() -> Iterator[Tensor]:
        for _ in range(5):
            yield torch.ones(2, 16, 8, 8)

    assert torch.equal(position_pattern(batches()), torch.ones(16, 8, 8))


def test_no_rows_have_no_pattern() -> None:
    with pytest.raises(DataError, match="there are none"):
        position_pattern([])


def test_a_pattern_of_broken_embeddings_is_refused() -> None:
    broken = make_embeddings()
    broken[3, 2, 1, 0] = torch.nan

    with pytest.raises(DataError, match="not finite"):
        position_pattern([broken])


def test_a_pattern_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(16, 4, 4\).*\(16, 8, 8\)"):
        replay(make_embeddings(), 1, torch.zeros(16, 4, 4))


def test_a_batch_needs_one_element_for_each_row() -> None:
    with pytest.raises(ConfigError, match=r"8 embeddings.*got 2"):
        replay_batch(make_embeddings(), [0, 1], None)
