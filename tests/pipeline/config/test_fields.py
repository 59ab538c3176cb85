"""Configurations take values as Python programs have them: paths as strings, lists, numbers of NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.config import EmbedConfig, FiguresConfig, PredictConfig, ReportConfig, TrainConfig


def test_a_path_may_be_a_string_and_a_tuple_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert EmbedConfig(dataset="mine", source="my-slides") == EmbedConfig(dataset="mine", source=Path("my-slides"))  # type: ignore[arg-type]
    assert ReportConfig(runs=["a", Path("b")]).runs == (Path("a"), Path("b"))  # type: ignore[arg-type, list-item]
    assert PredictConfig(images=("a.png",), run="~/runs/a", out="out").run == Path("/home/me/runs/a")  # type: ignore[arg-type]
    assert TrainConfig(dataset="mine", cache=Path("cache")).cache == "cache"  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    config = TrainConfig(dataset="mine", seed=np.int64(3), learning_rate=np.float32(0.5), dropout=0)

    assert (config.seed, config.learning_rate, config.dropout) == (3, 0.5, 0.0)
    assert [type(value) for value in (config.seed, config.learning_rate, config.dropout)] == [int, float, float]


@pytest.mark.parametrize(
    ("stage", "wanted", "message"),
    [
        (ReportConfig, {"runs": "runs/a"}, "runs must be a list of paths, got 'runs/a'"),
        (FiguresConfig, {"runs": ("a",), "images": "1"}, "images must be a list of strings, got '1'"),
        (TrainConfig, {"dataset": "mine", "epochs": "3"}, "epochs must be a whole number, got '3'"),
        (TrainConfig, {"dataset": "mine", "epochs": True}, "epochs must be a whole number, got True"),
        (TrainConfig, {"dataset": None}, "dataset must be a string, got None"),
        (EmbedConfig, {"dataset": "mine", "source": 3}, "source must be a path, got 3"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(
    stage: type, wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**wanted)
