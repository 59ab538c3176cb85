"""Process items in batches that shrink when memory runs out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from nucseg.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = re.compile(
    "out of memory|DefaultCPUAllocator|_ALLOC_FAILED|(can't|cannot|failed to) allocate memory|bad allocation|bad_alloc|"
    "can't start new thread|failed to map segment|could not (create a primitive|create a memory object)$",
    re.IGNORECASE,
)
"""The messages of torch on CUDA, on Apple's GPUs and on a CPU, where it has no exception of its own for this; of cuBLAS
and cuDNN through torch; of ONNX Runtime, Python and the loader of libraries; and of oneDNN, which reports any failed
allocation during the set-up of a layer in the last words."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, of any library, means that the device or the machine is out of memory."""
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and bool(_OUT_OF_MEMORY.search(str(error))))


class AdaptiveBatcher:
    """Batches of at most `size` items. When memory runs out, the size is halved for good, with a warning."""

    def __init__(self, size: int) -> None:
        self.size = size

    def batches(
        self, items: Sequence[Item], process: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Process items batch by batch, in their order.

        Args:
            items: what to process.
            process: is given a batch; may raise whatever its library raises when memory runs out.

        Yields:
            A batch and its result.

        Raises:
            OutOfMemory: not even one item fits.
        """
        first = 0
        while first < len(items):
            batch = items[first : first + self.size]
            try:
                result = process(batch)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                # halve after leaving the handler: the error keeps the tensors of the failed batch alive
                why = reason(error)
            else:
                yield batch, result
                first += len(batch)
                continue
            self._halve(len(batch), why)

    def _halve(self, failed_size: int, why: str) -> None:
        if failed_size == 1:
            raise OutOfMemory(
                f"There is no memory for even one image ({why}). Close other programs that use it, choose a smaller "
                "encoder or network, or use --device cpu."
            )
        self.size = failed_size // 2
        logger.warning("Out of memory with %d images at once; continuing with %d.", failed_size, self.size)


def reason(error: BaseException) -> str:
    """The first line of an error's message, or its type if there is none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
