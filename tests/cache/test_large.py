"""The cost of operations in a large store."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from nucseg_cache import BLOCK_ROWS, Store, StoreAccessError, StoreExists
from tests.cache.drawn_store import make_embedding, make_embeddings, make_sample

opened: list[str] = []
"""The files opened since the last `clear`, while a test counts them."""
is_counting = False


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if is_counting and event == "open":
        opened.append(str(arguments[0]))


@pytest.fixture
def chunks_read() -> Iterator[Callable[[str], int]]:
    """Count how often a chunk file of an array was opened for reading."""
    global is_counting
    opened.clear()
    sys.addaudithook(note_opened)  # cannot be removed
    is_counting = True
    yield lambda array: sum(f"/{array}/c/" in name and not name.endswith(".partial") for name in opened)
    is_counting = False


def test_embedding_block_by_block_does_not_read_the_records_of_all_blocks(two_blocks, key, chunks_read) -> None:
    two_blocks.append([make_sample(number % 200, id=f"more {number}") for number in range(BLOCK_ROWS * 4)])
    embeddings = two_blocks.embeddings(key)
    embeddings.write([0], make_embeddings(0))
    assert len(embeddings.missing()) == two_blocks.n_rows - 1
    opened.clear()

    for block in embeddings.blocks():
        missing = embeddings.missing(block, sizes=True)
        assert missing == [row for row in block if row]
        with embeddings.claim(block) as claimed:
            assert claimed
            embeddings.write(missing[:1], make_embeddings(1))

    assert len(embeddings.blocks()) == 6
    # `missing` reads one chunk of records per block, clearing and writing a record read it once each; reading the
    # records of all blocks each time would be 6 * 6 and more
    assert 6 <= chunks_read("record") <= 3 * 6
    assert chunks_read("stored") <= 2 * 6
    embedded = Store.open(two_blocks.location).embeddings(key).embedded_rows()
    assert [info.row for info in embedded] == [0, 1, 64, 128, 192, 256, 320]


def test_records_in_memory_follow_writes_but_not_failed_ones(embedded, key, strike) -> None:
    embeddings = embedded.embeddings(key)
    assert embeddings.missing() == []
    embeddings.clear([1])
    embeddings.write([1], make_embeddings(7))
    np.testing.assert_array_equal(embeddings.read([0, 1]), make_embeddings(0, 7))

    with pytest.raises(StoreAccessError, match="No space left on device"):
        strike(1, "full", lambda: embeddings.clear([2]))

    np.testing.assert_array_equal(embeddings.read([2])[0], make_embedding(2))


class CountedId(str):
    """An id that counts comparisons."""

    __slots__ = ()
    n_comparisons: ClassVar[Counter[str]] = Counter()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        self.n_comparisons["=="] += 1
        return str.__eq__(self, other)


def test_repeated_ids_are_found_without_comparing_all_pairs(store) -> None:
    rows = [make_sample(0, id=CountedId(f"image {number}")) for number in (*range(3, 2000), 77, 2)]

    with pytest.raises(StoreExists, match=r"twice among the new ones: \['image 2', 'image 77'\]"):
        store.append(rows)

    assert CountedId.n_comparisons["=="] < 10 * len(rows)


def test_rows_repaired_out_of_order_are_listed_in_order(store, files) -> None:
    files["samples/id/c/0"] = b""
    damaged = Store.open(store.location, mode="r+")
    for row in (2, 0, 1):
        damaged.replace(row, make_sample(row))

    assert [info.row for info in damaged.table] == [0, 1, 2]
    damaged.append([make_sample(3)])
    assert [info.row for info in damaged.table] == [0, 1, 2, 3]


def test_the_bytes_of_all_samples_are_those_of_their_files(store, files) -> None:
    pixels = tuple(f"samples/{name}/c/" for name in ("image", "instances", "ignore"))
    expected = sum(len(content) for name, content in files.items() if name.startswith(pixels))

    assert Store.open(store.location).file_bytes() == expected
