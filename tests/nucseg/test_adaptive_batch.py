"""When memory runs out, batches shrink and nothing is lost or reordered; other errors are passed on."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nucseg.adaptive_batch import AdaptiveBatcher, lacks_memory
from nucseg.errors import OutOfMemory

TIB = 1 << 40


class Room:
    """Doubles numbers, at most as many at once as there is room for, and records the sizes of the batches."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.sizes = capacity, list[int]()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB\nand more")
        return [2 * number for number in batch]


@pytest.mark.parametrize(
    ("n_items", "size", "capacity", "sizes"),
    [
        (10, 4, 9, [4, 4, 2]),
        (10, 16, 9, [10, 5, 5]),
        (10, 16, 3, [10, 5, 2, 2, 2, 2, 2]),
        (5, 5, 1, [5, 2, 1, 1, 1, 1, 1]),
        (0, 4, 1, []),
    ],
)
def test_items_are_processed_in_order_in_batches_halved_until_they_fit(
    n_items: int, size: int, capacity: int, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    double = Room(capacity)
    with caplog.at_level(logging.WARNING):
        batches = list(AdaptiveBatcher(size).batches(range(n_items), double))

    assert [number for _, doubled in batches for number in doubled] == [2 * number for number in range(n_items)]
    assert [number for batch, _ in batches for number in batch] == list(range(n_items))
    assert double.sizes == sizes
    assert len(caplog.records) == sum(n > capacity for n in sizes)


def test_the_size_that_fits_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    batcher, double = AdaptiveBatcher(8), Room(2)

    for items in (range(5), range(4)):
        list(batcher.batches(items, double))

    assert double.sizes == [5, 2, 2, 1, 2, 2]
    assert batcher.size == 2
    assert caplog.messages == ["Out of memory with 5 images at once; continuing with 2."]


def test_not_even_one_is_an_error_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(OutOfMemory, match=r"even one image \(CUDA out of memory\. Tried to allocate 8 GiB\).*cpu"):
        list(AdaptiveBatcher(2).batches([1, 2], Room(0)))


def test_other_errors_are_raised_without_another_try() -> None:
    double = Room(9)

    def failing(batch: Sequence[int]) -> list[int]:
        double(batch)
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(AdaptiveBatcher(2).batches([1, 2], failing))
    assert double.sizes == [2]


def test_the_real_errors_of_torch_and_numpy_are_recognised() -> None:
    for allocate in (lambda: torch.empty(1024 * TIB), lambda: np.empty(1024 * TIB)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert lacks_memory(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 9.05 GB)",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 42949",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "could not create a primitive",  # oneDNN, on a CPU
    ],
)
def test_the_messages_of_other_devices_are_recognised(message: str) -> None:
    assert lacks_memory(RuntimeError(message))


@pytest.mark.parametrize("error", [RuntimeError("The size of tensor a must match"), KeyboardInterrupt(), OSError("x")])
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not lacks_memory(error)
