"""The pattern that stays in place is the mean over the rows, however many there are."""

from collections.abc import Iterator
from weakref import ReferenceType, ref

import pytest
import torch
from torch import Tensor

from nucseg.errors import DataError
from nucseg.replay import position_pattern


def make_embeddings(n_rows: int = 8, grid: int = 8) -> Tensor:
    return 0.1 * torch.randn(n_rows, 16, grid, grid, generator=torch.Generator().manual_seed(0))


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


def test_only_one_batch_is_in_memory_at_a_time() -> None:
    alive: list[ReferenceType[Tensor]] = []

    def batches() -> Iterator[Tensor]:
        for _ in range(5):
            batch = torch.ones(2, 16, 8, 8)
            alive.append(ref(batch))
            yield batch
            del batch
            assert sum(reference() is not None for reference in alive) <= 1

    assert torch.equal(position_pattern(batches()), torch.ones(16, 8, 8))


def test_no_rows_have_no_pattern() -> None:
    with pytest.raises(DataError, match="there are none"):
        position_pattern([])


def test_a_pattern_of_broken_embeddings_is_refused() -> None:
    broken = make_embeddings()
    broken[3, 2, 1, 0] = torch.nan

    with pytest.raises(DataError, match="contains NaN or infinite values"):
        position_pattern([broken])
