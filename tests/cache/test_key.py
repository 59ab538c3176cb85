"""Keys: equality, differences and how they are printed."""

import hashlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_cache import CacheError, Key, differences, label

FIELDS = st.dictionaries(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), max_size=5)


@settings(max_examples=40, deadline=None)
@given(FIELDS, st.randoms(use_true_random=False))
def test_the_order_of_the_fields_does_not_matter(fields, random) -> None:
    fields = {**fields, "format": "f16"}
    shuffled = list(fields.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    key, other = Key(fields), Key(dict(shuffled))

    assert key == other
    assert hash(key) == hash(other)
    assert key.hash == other.hash


@settings(max_examples=40, deadline=None)
@given(FIELDS, FIELDS)
def test_keys_are_equal_exactly_when_their_fields_are(fields, other) -> None:
    fields, other = {**fields, "format": "f16"}, {**other, "format": "f16"}

    assert (Key(fields) == Key(other)) == (fields == other)
    assert (Key(fields).hash == Key(other).hash) == (fields == other)


def test_the_hash_is_the_one_the_format_describes() -> None:
    written_by_hand = '{"architecture":"vit_b","format":"f16","stain":"für Ω"}'

    found = Key({"stain": "für Ω", "format": "f16", "architecture": "vit_b"}).hash

    assert found == hashlib.sha256(written_by_hand.encode()).hexdigest()[:16]


def test_a_key_is_a_copy_that_can_be_sent_to_another_process() -> None:
    fields = {"format": "f16", "architecture": "vit_b"}
    key = Key(fields)
    fields["architecture"] = "vit_h"

    assert key.fields["architecture"] == "vit_b"
    assert pickle.loads(pickle.dumps(key)) == key
    with pytest.raises(TypeError):
        key.fields["architecture"] = "vit_h"  # type: ignore[index]


@pytest.mark.parametrize("fields", [{"format": "f16", "layer": 3}, {"format": "f16", "": "x"}, {"format": ""}])
def test_fields_must_be_named_strings_and_include_the_format(fields) -> None:
    with pytest.raises(CacheError, match="fields are non-empty strings by name"):
        Key(fields)
    with pytest.raises(CacheError, match="'format'"):
        Key({"architecture": "vit_b"})


def test_a_key_answers_requests_for_any_of_its_fields() -> None:
    key = Key({"format": "f16", "architecture": "vit_b"})

    assert key.answers({})
    assert key.answers({"architecture": "vit_b"})
    assert not key.answers({"architecture": "vit_h"})
    assert not key.answers({"precision": "float32"})


def test_differences_read_one_line_a_field_with_digests_shortened() -> None:
    cached = {"weights": "6923c33df3637b6a922d7682bfc9a86b", "precision": "bfloat16", "format": "f16"}
    asked = {"weights": "ffd1a2cd97698fac30bd929c2e6d8d8c", "precision": "float32", "format": "f16", "layer": "last"}

    assert differences(cached, asked) == [
        "layer: cached nothing, asked for last",
        "precision: cached bfloat16, asked for float32",
        "weights: cached 6923c33d, asked for ffd1a2cd",
    ]


def test_a_label_shortens_digests_and_nothing_else() -> None:
    assert label({"weights": "6923c33df3637b6a", "input": "facade"}) == "weights 6923c33d, input facade"
