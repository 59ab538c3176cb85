"""Going on with less at once where memory runs out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from nucseg.errors import OutOfMemory

Item = TypeVar("Item")
Made = TypeVar("Made")

logger = logging.getLogger(__name__)

_SAID = re.compile(
    "out of memory|DefaultCPUAllocator|_ALLOC_FAILED|(can't|cannot|failed to) allocate memory|bad allocation|bad_alloc|"
    "can't start new thread|failed to map segment|could not (create a primitive|create a memory object)$",
    re.IGNORECASE,
)
"""How torch says it on CUDA, on Apple's GPUs and on a CPU, where it has no exception of its own for it; how cuBLAS and
cuDNN say it through torch; how ONNX Runtime, Python, the loader of libraries and, in its words for any allocation that
fails while it sets a layer up, oneDNN do."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of any library says that memory ran out, of a device or of the machine."""
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and bool(_SAID.search(str(error))))


class AdaptiveBatcher:
    """How many items are taken at once: halved for good, with a warning, where memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def parts(
        self, items: Sequence[Item], make: Callable[[Sequence[Item]], Made]
    ) -> Iterator[tuple[Sequence[Item], Made]]:
        """Make something of items, part by part, in their order.

        Args:
            items: what is taken in parts.
            make: gets a part, and may raise whatever its library raises where memory runs out.

        Yields:
            A part, and what was made of it.

        Raises:
            OutOfMemory: not even one item fits.
        """
        first = 0
        while first < len(items):
            part = items[first : first + self.size]
            try:
                made = make(part)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                # halved once the handler is left: the error keeps the failed part's tensors alive
                failed = reason(error)
            else:
                yield part, made
                first += len(part)
                continue
            self._halve(len(part), failed)

    def _halve(self, failed_size: int, why: str) -> None:
        if failed_size == 1:
            raise OutOfMemory(
                f"There is no memory for even one image ({why}). Close what else uses it, choose a smaller encoder "
                "or network, or ask for --device cpu."
            )
        self.size = failed_size // 2
        logger.warning("No memory for %d images at once; going on with %d.", failed_size, self.size)


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
