"""What a store does must not grow with its rows where it need not."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_cache import BLOCK_ROWS, Key, SampleRow, Store, StoreExists
from nucseg_cache.chunk_files import ChunkFiles

MakeSample, MakeEmbedding = Callable[..., SampleRow], Callable[..., np.ndarray]


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many chunks were read of each array, counted from the test's start."""
    counted: Counter[str] = Counter()
    chunk = ChunkFiles.chunk

    def counting(self: ChunkFiles, index: int) -> Any:
        counted[Path(self._folder).parent.name] += 1
        return chunk(self, index)

    monkeypatch.setattr(ChunkFiles, "chunk", counting)
    return counted


def test_block_after_block_is_embedded_without_reading_the_records_of_all(
    two_blocks: Store, sample: MakeSample, key: Key, embedding: MakeEmbedding, chunks_read: Counter[str]
) -> None:
    two_blocks.append([sample(number % 200, id=f"more {number}") for number in range(BLOCK_ROWS * 4)])
    embeddings = two_blocks.embeddings(key)
    embeddings.write([0], embedding(0)[None])
    assert len(embeddings.missing()) == two_blocks.n_rows - 1
    chunks_read.clear()

    for block in embeddings.blocks():
        missing = embeddings.missing(block, sizes=True)
        assert missing == [row for row in block if row]
        with embeddings.claim(block) as owned:
            assert owned
            embeddings.write(missing[:1], embedding(1)[None])

    assert len(embeddings.blocks()) == 6
    # one of records and one of sizes for each block; all at once would be six of each, each time
    assert chunks_read["record"] == 6
    assert chunks_read["stored"] <= 6
    there = Store.open(two_blocks.location).embeddings(key).embedded_rows()
    assert [info.row for info in there] == [0, 1, 64, 128, 192, 256, 320]


def test_what_was_written_is_known_without_reading_it_again_and_what_failed_is_not_believed(
    embedded: Store, key: Key, embedding: MakeEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = embedded.embeddings(key)
    assert embeddings.missing() == []
    embeddings.clear([1])
    embeddings.write([1], embedding(7)[None])
    np.testing.assert_array_equal(embeddings.read([0, 1]), np.stack([embedding(0), embedding(7)]))

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("nucseg_cache.embedding_arrays.write_rows", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            embeddings.clear([2])

    np.testing.assert_array_equal(embeddings.read([2])[0], embedding(2))


def test_many_ids_are_told_apart_at_once(store: Store, sample: MakeSample) -> None:
    rows = [sample(0, id=f"image {number}") for number in range(3, 20_000)]
    begun = time.perf_counter()

    with pytest.raises(StoreExists, match=r"given them twice: \['image 2', 'image 77'\]"):
        store.append([*rows, sample(0, id="image 77"), sample(0, id="image 2")])

    assert time.perf_counter() - begun < 2  # comparing each with each takes minutes


def test_rows_mended_out_of_order_are_in_order(store: Store, sample: MakeSample, files: Any) -> None:
    files["samples/id/c/0"] = b""
    damaged = Store.open(store.location, mode="r+")
    for row in (2, 0, 1):
        damaged.replace(row, sample(row))

    assert [info.row for info in damaged.table] == [0, 1, 2]
    damaged.append([sample(3)])
    assert [info.row for info in damaged.table] == [0, 1, 2, 3]


def test_the_bytes_of_all_samples_are_those_of_their_files(store: Store, files: Any) -> None:
    pixels = tuple(f"samples/{name}/c/" for name in ("image", "instances", "ignore"))
    expected = sum(len(content) for name, content in files.items() if name.startswith(pixels))

    assert Store.open(store.location).file_bytes() == expected
