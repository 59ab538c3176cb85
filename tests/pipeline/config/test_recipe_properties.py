"""Any configuration is equal after being written and read; any value in any field is accepted or refused."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg.toml import parse_toml
from nucseg_pipeline.config import AblateConfig, EmbedConfig, ReportConfig, TrainConfig
from nucseg_pipeline.config.recipe import STAGES, checked, resolve, to_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
COUNT = st.integers(1, 2**62)
SHARE = st.floats(0, 1, exclude_max=True)
RELAXED = settings(max_examples=80, deadline=None)

CONFIGS = st.one_of(
    st.builds(
        EmbedConfig,
        dataset=st.just("mine"),
        cache=TEXT,
        encoder=TEXT,
        format=TEXT,
        batch_size=st.none() | COUNT,
        source=st.none() | TEXT.map(Path),
        weights=st.none() | TEXT.map(Path),
        limit=st.none() | COUNT,
    ),
    st.builds(
        TrainConfig,
        dataset=st.just("a@b"),
        cache=TEXT,
        encoder=TEXT,
        model=TEXT,
        fusion=TEXT,
        width=COUNT,
        dropout=SHARE,
        learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
        weights=st.none() | TEXT.map(Path),
        format=st.none() | TEXT,
        threads=st.none() | st.integers(1, 1000),
        seed=st.integers(0, 2**32 - 1),
        deep_supervision=st.booleans(),
        fold=st.integers(0, 2**62),
        run=st.none() | TEXT.map(Path),
    ),
    st.builds(ReportConfig, runs=TEXT.map(lambda name: (Path(name),)), baseline=TEXT, out=st.none() | TEXT.map(Path)),
)

JSON = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(st.integers() | TEXT, max_size=2)


@RELAXED
@given(CONFIGS)
def test_a_configuration_comes_back_from_its_recipe(config: Any) -> None:
    (table,) = [name for name, stage in STAGES.items() if isinstance(config, stage)]

    tables = parse_toml(to_toml(config).encode(), "The recipe")

    assert resolve(type(config), tables[table], {}) == config


@RELAXED
@given(CONFIGS, st.data())
def test_any_value_in_any_field_is_taken_as_it_is_or_refused(config: Any, data: st.DataObject) -> None:
    given_ = {name: value for name, value in asdict(config).items() if value is not None}
    name = data.draw(st.sampled_from(sorted(field.name for field in fields(config))) | TEXT)
    value = data.draw(JSON)

    try:
        changed = resolve(type(config), {**given_, name: value}, {})
    except ConfigError as error:
        message = str(error)
        assert message
        return
    found = getattr(changed, name)
    assert (
        str(found) in (str(value), f"('{value}',)", str(Path(str(value)))) or found == value or isinstance(found, tuple)
    )


@pytest.mark.parametrize("stage", [EmbedConfig, TrainConfig, ReportConfig, AblateConfig])
@given(name=TEXT)
@RELAXED
def test_a_key_that_no_stage_knows_is_named(stage: type[Any], name: str) -> None:
    if name not in {field.name for field in fields(stage)}:
        with pytest.raises(ConfigError, match="Unknown key"):
            checked(stage, {name: 1}, "the options")
