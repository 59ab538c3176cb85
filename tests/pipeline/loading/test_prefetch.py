"""Work done ahead keeps its order, its bounds and its errors."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nucseg_pipeline.loading.prefetch import prefetch


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_what_is_made_comes_in_order(depth: int) -> None:
    assert list(prefetch(lambda item: item * item, range(20), depth=depth)) == [item * item for item in range(20)]
    assert list(prefetch(str, [], depth=depth)) == []


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_is_made_than_was_allowed_and_all_of_that(depth: int) -> None:
    made: list[int] = []
    coming = prefetch(lambda item: made.append(item), range(50), depth=depth)
    for used in range(10):
        next(coming)
        wait_until(lambda: len(made) == used + 1 + depth)  # noqa: B023 - called in this turn of the loop
        time.sleep(0.002)
        assert len(made) == used + 1 + depth


def test_items_are_asked_for_as_they_are_needed() -> None:
    asked: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            asked.append(len(asked))
            yield asked[-1]

    coming = prefetch(lambda item: item, endless(), depth=2)
    assert [next(coming), next(coming)] == [0, 1]
    assert asked == [0, 1, 2, 3]
    coming.close()


def test_an_error_comes_in_its_turn_and_ends_it() -> None:
    coming = prefetch(lambda item: 6 // item, [3, 2, 0, 1], depth=3)

    assert [next(coming), next(coming)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(coming)
    assert list(coming) == []


def test_what_nobody_wants_any_more_is_not_made() -> None:
    made: list[int] = []
    go_on = threading.Event()

    def make(item: int) -> None:
        if item:
            go_on.wait(10)
        made.append(item)

    coming = prefetch(make, range(50), depth=20)
    next(coming)
    threading.Timer(0.05, go_on.set).start()
    coming.close()  # waits for the one that is under way

    assert made == [0, 1]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
