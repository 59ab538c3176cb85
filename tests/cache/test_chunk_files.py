"""Reading chunk files directly returns what zarr returns, also for damaged files."""

import threading
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import blosc
from zarr.codecs import BloscCodec, Crc32cCodec

from nucseg_cache import FORMATS, BadRow, Key, Store
from nucseg_cache.chunk_files import ChunkFiles
from nucseg_cache.reading import parallel_map
from tests.cache.drawn_store import make_embeddings, make_key

SEVERAL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

VIEW = "stain-1"
"""Has images of its own, so that every kind of array of the embeddings is read."""


@pytest.fixture
def everything(store: Store) -> Store:
    """Three rows in every format, with images."""
    random = np.random.default_rng(0)
    for name in FORMATS:
        view = store.embeddings(make_key(format=name), VIEW, images=True)
        noise = random.normal(size=(3, 256, 64, 64)).astype(np.float32)
        view.write(range(3), noise, random.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8))
    return store


def cause(bad: BadRow) -> tuple[int, str, str]:
    """Row, id and reason, without the codec's message."""
    return bad.row, bad.id, bad.reason.partition(" (")[0]


def read_everything(location: str, key: Key) -> list[Any]:
    """Everything that can be read from a store, and the reasons for rows that cannot."""
    store = Store.open(location)
    embeddings = store.embeddings(key, VIEW)
    stored, bad = embeddings.try_read_stored(range(3))
    samples, bad_samples = store.try_read_samples(range(3))
    return [
        store.trusted_rows(),
        [cause(row) for row in (*store.damaged(), *bad, *bad_samples)],
        *(None if array is None else array.tobytes() for array in (stored.values, stored.scale, stored.images)),
        [(s.id, s.image.tobytes(), s.instances.tobytes(), s.ignore.tobytes()) for s in samples],
        embeddings.missing(sizes=True),
        embeddings.file_bytes(),
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_both_ways_return_the_same_bits(everything, each_way, name) -> None:
    directly, through_zarr = (read_everything(everything.location, make_key(format=name)) for _ in each_way())

    assert directly == through_zarr
    assert directly[1] == []
    assert len(directly[0]) == len(directly[-3]) == 3


def test_both_ways_report_the_same_damage(everything, each_way, files) -> None:
    key = make_key(format="i8")
    names = sorted(n for n in files if "/c/" in n and ("samples" in n or key.hash in n))
    assert len(names) == 9 + 10 + 6 + 3
    sound = {name: files[name] for name in names}
    seen = []

    @SEVERAL
    @given(st.sampled_from(names), st.integers(0, 10**7), st.integers(0, 255), st.sampled_from(["flip", "cut", "gone"]))
    def harmed(name: str, place: int, bits: int, how: str) -> None:
        content = bytearray(sound[name])
        place %= len(content)
        content[place] ^= bits
        if how == "gone":
            del files[name]
        else:
            files[name] = bytes(content[:place] if how == "cut" else content)
        directly, through_zarr = (read_everything(everything.location, key) for _ in each_way())
        files[name] = sound[name]
        assert directly == through_zarr
        seen.append(bool(directly[1]))

    harmed()
    assert sum(seen) > len(seen) / 2  # most edits were damage


FRAMES = {
    "too long": blosc.compress(bytes(2**21 + 16), b"lz4", 5),
    "too short": blosc.compress(bytes(2**21 - 16), b"lz4", 5),
    "no frame": b"no frame",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_file_with_a_right_crc_is_not_decoded_past_the_array(embedded, key, files, frame) -> None:
    """With a frame larger than its row, a decoder in C would write past the end of the caller's array."""
    name = f"embeddings/{key.hash}/identity/values/c/1/0/0/0"
    files[name] = with_crc(frame)
    out = np.ones((2, 256, 64, 64), np.float16)

    _, bad = embedded.embeddings(key).try_read([1], out=out[:1])

    assert [cause(row) for row in bad] == [(1, "image 1", "it cannot be decoded")]
    assert not out[0].any()
    assert (out[1] == 1).all()


def with_crc(frame: bytes) -> bytes:
    return frame + int(google_crc32c.value(frame)).to_bytes(4, "little")


@pytest.mark.parametrize("name", ["f16", "i6"])
def test_embeddings_are_read_into_the_callers_array(store, name, way) -> None:
    embeddings = store.embeddings(make_key(format=name))
    embeddings.write([0, 1, 2], make_embeddings(0, 1, 2))
    out = np.full((2, 256, 64, 64), 7, "float16" if name == "f16" else "float32")
    buffer = embeddings.allocate(2)

    assert embeddings.read([2, 0], out=out) is out
    assert embeddings.read_stored([2, 0], out=buffer) is buffer

    for found in (out, buffer.values * (1 if buffer.scale is None else buffer.scale[:, :, None, None])):
        np.testing.assert_array_equal(found, make_embeddings(2, 0))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 256, 64, 64), np.float16),
        np.zeros((1, 256, 64, 64), np.float32),
        np.zeros((1, 64, 64, 256), np.float16).transpose(0, 3, 1, 2),
    ],
    ids=["too many rows", "another type", "another order"],
)
def test_an_array_that_does_not_fit_is_refused(embedded, key, out) -> None:
    with pytest.raises(ValueError, match=r"out is float.* expected contiguous float16 of \(1, 256, 64, 64\)"):
        embedded.embeddings(key).read([0], out=out)


def test_many_threads_read_the_same_rows_right(everything) -> None:
    embeddings = everything.embeddings(make_key(format="i8"), VIEW)
    expected = embeddings.read_stored(range(3))
    wrong: list[int] = []

    def read() -> None:
        for row in (0, 1, 2, 0, 1, 2):
            found = embeddings.read_stored([row])
            if not np.array_equal(found.values[0], expected.values[row]):
                wrong.append(row)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert blosc.use_threads is False  # Blosc's own threads share one state
    assert wrong == []


def test_parallel_map_keeps_order_and_raises_errors() -> None:
    assert parallel_map(lambda number: number * 2, range(50)) == list(range(0, 100, 2))
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda number: 1 // number, [1, 2, 0])


OTHER_LAYOUTS: dict[str, dict[str, Any]] = {
    "no CRC": {"compressors": [BloscCodec()]},
    "no Blosc": {"compressors": [Crc32cCodec()]},
    "chunks across rows": {"chunks": (4, 2)},
    "names of version 2": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "names with points": {"chunk_key_encoding": {"name": "default", "separator": "."}},
}


@pytest.mark.parametrize("changed", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
def test_an_array_of_another_layout_is_read_by_zarr(tmp_path, changed) -> None:
    asked = {"shape": (8, 4), "chunks": (4, 4), "dtype": "i4", "compressors": [BloscCodec(), Crc32cCodec()]} | changed
    array = zarr.create_array(tmp_path / "a.zarr", **asked)

    assert ChunkFiles.of(array) is None


@pytest.mark.parametrize("chunk_rows", [1, 4, 16])
@pytest.mark.parametrize("where", [slice(0, 10), slice(3, 5), slice(4, 8), slice(7, 40), slice(9, 9), slice(12, 20)])
def test_rows_across_files_are_those_that_zarr_reads(tmp_path, chunk_rows, where) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(10, 3),
        chunks=(chunk_rows, 3),
        dtype="i4",
        compressors=[BloscCodec(), Crc32cCodec()],
    )
    array[:6] = np.arange(18, dtype="i4").reshape(6, 3)  # later rows have no file unless they share one

    files = ChunkFiles.of(array)

    assert files is not None
    np.testing.assert_array_equal(files.read_rows(where), array[where])
    assert files.read_rows(where).dtype == array.dtype
    for row in range(10):
        out = np.ones(3, "i4")
        files.read_row(row, out)
        np.testing.assert_array_equal(out, array[row])
