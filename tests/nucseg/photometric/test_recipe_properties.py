"""Photometric recipes of any content are read as written or refused with an error that names the file."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg.photometric.transforms import TRANSFORMS
from nucseg.views.recipe import MAX_VARIANTS, load_recipe

VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.lists(st.floats() | st.integers(), max_size=3)
)


def toml(value: Any) -> str:
    """A value in TOML, which differs from JSON only in these two numbers."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("NaN", "nan").replace("Infinity", "inf")


@st.composite
def recipes(draw: st.DrawFn) -> tuple[int, int, list[tuple[str, float, dict[str, list[float]]]]]:
    steps = []
    for name in draw(st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=1, max_size=3)):
        ranges = {
            parameter: sorted(draw(st.lists(st.floats(bounds.low, bounds.high), min_size=2, max_size=2)))
            for parameter, bounds in TRANSFORMS[name].parameters.items()
        }
        steps.append((name, draw(st.floats(0, 1)), ranges))
    return draw(st.integers(1, MAX_VARIANTS)), draw(st.integers(0, 2**32 - 1)), steps


def written(variants: object, seed: object, steps: Any) -> str:
    tables = [
        "\n".join(
            [
                "[[transform]]",
                f"name = {toml(name)}",
                f"p = {toml(p)}",
                *(f"{k} = {toml(v)}" for k, v in ranges.items()),
            ]
        )
        for name, p, ranges in steps
    ]
    return "\n".join([f"variants = {toml(variants)}", f"seed = {toml(seed)}", *tables, ""])


RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@RELAXED
@given(recipes())
def test_a_recipe_is_read_as_written(tmp_path, recipe) -> None:
    variants, seed, steps = recipe
    (tmp_path / "mine.toml").write_text(written(*recipe))

    read = load_recipe(str(tmp_path / "mine.toml"))

    assert (read.name, read.variants, read.seed) == ("mine", variants, seed)
    found = [(step.transform, step.p, {k: list(v) for k, v in step.parameters.items()}) for step in read.steps]
    assert found == [(TRANSFORMS[name], p, ranges) for name, p, ranges in steps]


@RELAXED
@given(recipes(), st.data())
def test_any_other_value_is_in_bounds_or_an_error_that_names_the_file(tmp_path, recipe, data) -> None:
    variants, seed, steps = recipe
    name, p, ranges = steps[0]
    place = data.draw(st.sampled_from(["variants", "seed", "p", "name", "more", *ranges]))
    value = data.draw(VALUES)
    changed = {**ranges, place: value} if place in ranges or place == "more" else ranges
    first = (value if place == "name" else name, value if place == "p" else p, changed)
    file = tmp_path / "mine.toml"
    file.write_text(written(value if place == "variants" else variants, value if place == "seed" else seed, [first]))

    try:
        read = load_recipe(str(file))
    except ConfigError as error:
        message = str(error)
        assert "mine.toml" in message
        return
    assert place != "more"
    assert 1 <= read.variants <= MAX_VARIANTS
    assert 0 <= read.steps[0].p <= 1
    for parameter, (low, high) in read.steps[0].parameters.items():
        bounds = read.steps[0].transform.parameters[parameter]
        assert bounds.low <= low <= high <= bounds.high


def test_numbers_are_written_as_in_toml() -> None:
    assert toml([float("nan"), float("-inf"), 1.5, True]) == "[nan, -inf, 1.5, true]"
    with pytest.raises(ConfigError, match="nan"):
        load_recipe("nan")
