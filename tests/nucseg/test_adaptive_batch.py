"""Where memory runs out, less is tried at once, nothing is lost or done out of turn; other errors stay as they are."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nucseg.adaptive_batch import AdaptiveBatcher, lacks_memory
from nucseg.errors import OutOfMemory

TIB = 1 << 40


class Room:
    """Doubles numbers, so many at once as there is room for, and remembers how many it was asked for."""

    def __init__(self, for_how_many: int) -> None:
        self.for_how_many, self.asked = for_how_many, list[int]()

    def __call__(self, part: Sequence[int]) -> list[int]:
        self.asked.append(len(part))
        if len(part) > self.for_how_many:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB\nand more")
        return [2 * number for number in part]


@pytest.mark.parametrize(
    ("n_items", "size", "room", "asked"),
    [
        (10, 4, 9, [4, 4, 2]),
        (10, 16, 9, [10, 5, 5]),
        (10, 16, 3, [10, 5, 2, 2, 2, 2, 2]),
        (5, 5, 1, [5, 2, 1, 1, 1, 1, 1]),
        (0, 4, 1, []),
    ],
)
def test_all_is_made_in_turn_with_half_as_much_at_once_until_it_fits(
    n_items: int, size: int, room: int, asked: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    make = Room(room)
    with caplog.at_level(logging.WARNING):
        made = list(AdaptiveBatcher(size).parts(range(n_items), make))

    assert [number for _, part in made for number in part] == [2 * number for number in range(n_items)]
    assert [number for part, _ in made for number in part] == list(range(n_items))
    assert make.asked == asked
    assert len(caplog.records) == sum(n > room for n in asked)


def test_the_size_that_fits_is_kept_and_told(caplog: pytest.LogCaptureFixture) -> None:
    at_once, make = AdaptiveBatcher(8), Room(2)

    for items in (range(5), range(4)):
        list(at_once.parts(items, make))

    assert make.asked == [5, 2, 2, 1, 2, 2]
    assert at_once.size == 2
    assert caplog.messages == ["No memory for 5 images at once; going on with 2."]


def test_not_even_one_is_an_error_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(OutOfMemory, match=r"even one image \(CUDA out of memory\. Tried to allocate 8 GiB\).*cpu"):
        list(AdaptiveBatcher(2).parts([1, 2], Room(0)))


def test_another_error_is_not_tried_again() -> None:
    make = Room(9)

    def failing(part: Sequence[int]) -> list[int]:
        make(part)
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(AdaptiveBatcher(2).parts([1, 2], failing))
    assert make.asked == [2]


def test_what_torch_and_numpy_really_say_is_understood() -> None:
    for allocate in (lambda: torch.empty(1024 * TIB), lambda: np.empty(1024 * TIB)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert lacks_memory(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 9.05 GB)",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 42949",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "could not create a primitive",  # oneDNN, on a CPU
    ],
)
def test_what_other_devices_say_is_understood(said: str) -> None:
    assert lacks_memory(RuntimeError(said))


@pytest.mark.parametrize("error", [RuntimeError("The size of tensor a must match"), KeyboardInterrupt(), OSError("x")])
def test_other_errors_are_told_apart(error: BaseException) -> None:
    assert not lacks_memory(error)
