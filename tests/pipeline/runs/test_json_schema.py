"""What JSON files of a run may hold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg.data.splits import Split
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.runs.json_schema import misfit
from nucseg_pipeline.runs.provenance import RunProvenance

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@dataclass
class Some:
    text: str = ""
    count: int = 0
    share: float = 0.0
    names: tuple[str, ...] = ()
    digests: Mapping[str, Sequence[str]] | None = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 3),
        ("text", None),
        ("text", ["a"]),
        ("count", 1.0),
        ("count", True),
        ("count", "1"),
        ("count", None),
        ("share", "x"),
        ("share", True),
        ("share", float("nan")),
        ("share", float("inf")),
        ("share", 10**400),
        ("names", "abc"),
        ("names", [1]),
        ("names", {"a": 1}),
        ("names", None),
    ],
)
def test_a_value_that_its_field_cannot_hold_is_named(name: str, value: object) -> None:
    hints = {key: hint for key, hint in Some.__annotations__.items() if key != "digests"}
    kind = dataclass(type("Plain", (), {"__annotations__": hints}))

    assert misfit({name: value}, kind).startswith(f"{name} in the file must be ")


@pytest.mark.parametrize(
    "sound",
    [
        Split(train=("a",), validation=("b",), test=("c",), protocol="p", notes=("n",)),
        InstanceRule(),
        RunProvenance(
            store="s",
            dataset="d",
            source="x",
            preparation={"a": "b"},
            embedding={},
            embedding_hash="",
            samples={"id": ["0", "1"]},
            versions={},
            views={"v": {"k": "w"}},
            learned_from=["a"],
            split="0",
            configuration="1",
            code="2",
            native_px=3,
            mpp=0.5,
        ),
    ],
)
def test_what_was_written_is_fit_when_it_is_read(sound: Split | InstanceRule | RunProvenance) -> None:
    assert misfit(json.loads(json.dumps(asdict(sound))), type(sound)) == ""


@given(st.sampled_from([Split, InstanceRule, RunProvenance]), st.data())
def test_whatever_passes_has_the_types_that_it_should(kind: type, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(kind.__dataclass_fields__)))
    value = data.draw(JSON)

    if not misfit({name: value}, kind):
        json.dumps(value, allow_nan=False)
        hint = str(kind.__dataclass_fields__[name].type)
        expected = (
            dict
            if "Mapping" in hint
            else list
            if "Sequence" in hint or "tuple" in hint
            else str
            if hint in ("str", str(str))
            else (int, float)
        )
        assert isinstance(value, expected)
