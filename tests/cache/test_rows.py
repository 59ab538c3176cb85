"""The digest of a row's description is that of its JSON, as the README says."""

import json
import struct
from dataclasses import asdict

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_cache import RowInfo
from nucseg_cache.rows import description_digest

ESCAPED = st.sampled_from(['"', "\\", "\0", "\x1f", "\x7f", "\u2028", "é", "🔬", "\n\t"])
TEXTS = ESCAPED | st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
DIGESTS = st.binary(min_size=32, max_size=32)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        RowInfo,
        row=st.integers(0, 10**9),
        id=TEXTS,
        group=TEXTS,
        stratum=TEXTS,
        mpp=NUMBERS,
        size=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)),
        image_digest=DIGESTS,
        mask_digest=DIGESTS,
        present=st.booleans(),
    )
)
def test_the_digest_covers_the_json_of_all_fields(info) -> None:
    described = asdict(info) | {
        "mpp": "" if info.mpp is None else struct.pack("<d", info.mpp).hex(),
        "image_digest": info.image_digest.hex(),
        "mask_digest": info.mask_digest.hex(),
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert description_digest(info) == xxhash.xxh3_128_digest(text.encode())


def test_numpy_scalars_have_the_digest_of_python_numbers() -> None:
    plain = RowInfo(1, "a", "b", "c", 0.25, (3, 4), bytes(32), bytes(32))
    numpys = RowInfo(np.int64(1), "a", "b", "c", np.float32(0.25), (np.int64(3), np.int32(4)), bytes(32), bytes(32))

    assert description_digest(plain) == description_digest(numpys)
