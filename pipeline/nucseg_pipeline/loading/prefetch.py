"""Work done ahead of its use, in another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(make: Callable[[T], R], items: Iterable[T], *, depth: int = 1) -> Iterator[R]:
    """What is made of each item, in order; the next `depth` are made while the last one is used.

    One thread makes them, one after the other: what it is given need not be safe for several.
    """
    coming: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as maker:
        try:
            for item in items:
                coming.append(maker.submit(make, item))
                if len(coming) > depth:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:  # nobody wants them any more
                future.cancel()
