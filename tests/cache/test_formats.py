"""f16, f32, i8, i6: what is read back, the error bounds, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import Blosc
from PIL import Image

from nucseg_cache import FORMATS, EmbeddingNotFound, UnstorableEmbedding
from nucseg_cache.formats import Floats, checked, format_named
from tests.cache.drawn_store import make_embeddings, make_key

VALUES = {
    # the range of a format
    "f16": st.floats(-65504, 65504, width=32),
    "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "codes": st.floats(width=32, allow_nan=False, allow_infinity=False),
}
STEPS = {"i8": 255, "i6": 63}
"""How many values a channel can take."""
STATED = {name: storage.error_bound for name, storage in FORMATS.items()}
FEW = settings(max_examples=15, deadline=None)


def embedding_with(values: np.ndarray, channel: int) -> Floats:
    """(1, 256, 64, 64): the values in one channel, a ramp in the others."""
    rows = np.tile(np.linspace(-3, 3, 64, dtype=np.float32), (1, 256, 64, 1))
    rows[0, channel] = 0
    rows[0, channel].reshape(-1)[: values.size] = values
    return rows


@pytest.fixture(scope="module")
def real_embedding(shared: Path) -> Floats:
    """(1, 256, 64, 64) of a tissue image."""
    pytest.importorskip("onnxruntime")
    from nucseg.encoders import open_encoder

    file = next((shared / "data" / "nuinsseg").rglob("tissue images/*.png"))
    encoder = open_encoder("onnx", weights=shared / "weights" / "mobile_sam_encoder.onnx", device="cpu", threads=1)
    return encoder.encode([np.asarray(Image.open(file).convert("RGB"))])


def there_and_back(name: str, rows: Floats) -> Floats:
    return FORMATS[name].decode(FORMATS[name].encode(rows))


@FEW
@given(hnp.arrays(np.float32, 50, elements=VALUES["f32"]), st.integers(0, 255))
def test_f32_returns_every_bit(values, channel) -> None:
    rows = embedding_with(values, channel)

    np.testing.assert_array_equal(there_and_back("f32", rows).view(np.uint32), rows.view(np.uint32))


@FEW
@given(hnp.arrays(np.float32, 50, elements=VALUES["f16"]), st.integers(0, 255))
def test_f16_stays_within_its_error_bound(values, channel) -> None:
    rows = embedding_with(values, channel)

    error = np.abs(there_and_back("f16", rows).astype(np.float64) - rows)

    assert (error <= np.maximum(2.0**-11 * np.abs(rows.astype(np.float64)), 2.0**-25)).all()


def assert_within_bound(name: str, rows: np.ndarray) -> None:
    """Each value stays within the error bound that the format states."""
    share, least = map(int, re.fullmatch(r"at most 1/(\d+) of .*, or 2\*\*-(\d+) where .*", STATED[name]).groups())
    largest = np.abs(rows.astype(np.float64)).max(axis=(2, 3), keepdims=True)
    assert (
        np.abs(there_and_back(name, rows) - rows.astype(np.float64)) <= np.maximum(largest / share, 2.0**-least)
    ).all()


@FEW
@pytest.mark.parametrize("name", STEPS)
@given(values=hnp.arrays(np.float32, 50, elements=VALUES["codes"]), channel=st.integers(0, 255))
def test_codes_stay_within_their_error_bound(name, values, channel) -> None:
    assert_within_bound(name, embedding_with(values, channel))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("largest", [3.4028235e38, 2.0**-126, 1e-40, 2.0**-142, 1e-45], ids=str)
def test_the_error_bound_holds_for_the_largest_and_smallest_floats(name, largest) -> None:
    values = np.linspace(-largest, largest, 4096)

    assert_within_bound(name, embedding_with(values, 3))


@pytest.mark.parametrize(("name", "n_codes"), STEPS.items())
def test_the_error_bound_follows_from_the_number_of_codes(name, n_codes) -> None:
    values = np.linspace(-1, 1, 4096)
    rows = embedding_with(values, 0)

    back = there_and_back(name, rows)

    assert len(np.unique(back[0, 0])) == n_codes
    assert np.abs(back - rows)[0, 0].max() == pytest.approx(1 / (n_codes - 1), rel=0.01)
    share = int(re.search(r"1/(\d+)", STATED[name]).group(1))
    assert share == n_codes - 2  # one step less than in exact arithmetic, to allow for float32 rounding


@pytest.mark.parametrize(("name", "n_bytes", "error"), [("i8", 0.9 * 2**20, 2e-4), ("i6", 0.65 * 2**20, 3e-3)])
def test_size_and_error_of_a_real_embedding_are_those_of_the_readme(real_embedding, name, n_bytes, error) -> None:
    back = there_and_back(name, real_embedding)

    assert_within_bound(name, real_embedding)
    centred = real_embedding - real_embedding.mean(axis=(2, 3), keepdims=True)
    assert ((back - real_embedding) ** 2).sum() < error * (centred**2).sum()
    codec = FORMATS[name].compressor.to_dict()["configuration"]
    frame = Blosc(codec["cname"], codec["clevel"], Blosc.BITSHUFFLE, codec["blocksize"]).encode(
        FORMATS[name].encode(real_embedding).values
    )
    assert 0.9 * FORMATS[name].row_bytes < len(frame) < min(n_bytes, 1.1 * FORMATS[name].row_bytes)


@pytest.mark.parametrize("name", STEPS)
def test_half_precision_input_is_encoded_like_single_precision(name) -> None:
    rows = embedding_with(np.array([0.1, 3e-5, -2e-6], np.float16), 7).astype(np.float16)

    np.testing.assert_array_equal(there_and_back(name, rows), there_and_back(name, rows.astype(np.float32)))


@pytest.mark.parametrize("name", FORMATS)
def test_decoded_values_have_the_documented_type_and_a_channel_of_zeros_stays_zeros(name) -> None:
    rows = embedding_with(np.array([0.1, 3e-5, -2e-6]), 7)
    rows[0, 200] = 0
    stored = FORMATS[name].encode(rows)
    expected = FORMATS[name].decode(stored)
    out = np.full_like(expected, 7)

    assert (expected.shape, expected.dtype) == ((1, 256, 64, 64), np.float16 if name == "f16" else np.float32)
    assert not expected[0, 200].any()
    assert FORMATS[name].decode(stored, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("f16", 65520.0), ("f16", -1e9), ("f32", 1e39), ("i8", -1e39), ("i6", 1e39)], ids=str
)
def test_an_overflow_is_refused(name, value) -> None:
    rows = embedding_with(np.array([1.0]), 3).astype(np.float64)
    rows[0, 5, 6, 7] = value

    with pytest.raises(UnstorableEmbedding, match=r"contains .*(65504\. Use --format f32|3\.4e38)"):
        FORMATS[name].encode(rows)
    largest = np.array([65504.0, -65504.0])
    assert there_and_back("f16", embedding_with(largest, 3))[0, 3, 0, 0] == 65504


@pytest.mark.parametrize(("name", "value"), [("f16", np.nan), ("f32", np.inf), ("i8", -np.inf)])
def test_nan_and_infinity_are_refused_and_nothing_is_written(name, value, store, files) -> None:
    embeddings, before = store.embeddings(make_key(format=name)), dict(files)
    rows = np.concatenate([embedding_with(np.ones(1), 0), embedding_with(np.array([1.0, value]), 9)])

    with pytest.raises(UnstorableEmbedding, match="NaN or infinity: nothing of this batch was stored"):
        embeddings.write([0, 1], rows)

    assert dict(files) == before
    assert embeddings.missing() == [0, 1, 2]
    with pytest.raises(EmbeddingNotFound):
        embeddings.read([0])


def test_an_overflow_leaves_existing_rows_unchanged(embedded, key, files) -> None:
    before, rows = dict(files), make_embeddings(1).copy()
    rows[0, 0, 0, 0] = 1e6

    with pytest.raises(UnstorableEmbedding, match=r"1e\+06, the largest float16 is 65504\. Use --format f32"):
        embedded.embeddings(key).write([1], rows)

    assert dict(files) == before


@pytest.mark.parametrize(
    "values",
    [np.zeros((256, 64, 64), np.float32), np.zeros((1, 64, 64, 256), np.float32), np.zeros((1, 256, 64, 64), np.int8)],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_arrays_of_another_shape_or_type_are_refused(values) -> None:
    with pytest.raises(UnstorableEmbedding, match=r"floats of shape \(n, 256, 64, 64\), got"):
        checked(values)


@pytest.mark.parametrize(("rows", "n_values"), [([0, 1], 1), ([0], 2), ([1, 1], 2)])
def test_each_row_gets_exactly_one_embedding(store, key, rows, n_values) -> None:
    with pytest.raises(UnstorableEmbedding, match="expected one embedding per row"):
        store.embeddings(key).write(rows, np.ones((n_values, 256, 64, 64), np.float32))


def test_an_unknown_format_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnstorableEmbedding, match=r"'i4'\. Known: f16, f32, i8, i6"):
        format_named("i4")


@pytest.mark.parametrize("name", FORMATS)
def test_the_error_bound_is_recorded_with_the_key(store, name) -> None:
    key = make_key(format=name)
    store.embeddings(key, recorded={"torch": "2"}).write([0], np.ones((1, 256, 64, 64), np.float32))

    assert store.recorded(key) == {"torch": "2", "error": FORMATS[name].error_bound}
