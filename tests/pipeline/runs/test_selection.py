"""The commands that messages give as advice do what the message says."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nucseg.errors import ConfigError
from nucseg_cache import EmbeddingNotFound, Store, StoreNotFound
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.runs.selection import Selection
from tests.pipeline.conftest import export_encoder


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], EmbedConfig]:
    """The configuration that the command in a message runs `embed` with."""

    def advised(error: Exception) -> EmbedConfig:
        seen: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr("nucseg_pipeline.embed.stage.embed", lambda config, *rest: seen.append(config) or 1 / 0)
            (line,) = re.findall(r"`nucseg (embed .*?)`", str(error))
            CliRunner().invoke(app, shlex.split(line))
        return seen[0]

    return advised


def test_a_store_that_is_not_there_is_made_with_what_was_asked_for(
    tmp_path: Path, advised: Callable[[Exception], EmbedConfig]
) -> None:
    config = TrainConfig(
        dataset="mine@macenko",
        cache=str(tmp_path / "my cache"),
        encoder="vit_l",
        weights=tmp_path / "a'b.pth",
        format="i8",
    )

    with pytest.raises(StoreNotFound) as caught:
        Selection.open(config)

    assert advised(caught.value) == EmbedConfig(
        dataset="mine@macenko", cache=config.cache, encoder="vit_l", weights=config.weights, format="i8"
    )


def test_embeddings_that_are_not_there_are_added_to_the_same_store(
    cache: Path, tmp_path: Path, advised: Callable[[Exception], EmbedConfig]
) -> None:
    encoder = export_encoder(tmp_path)

    with pytest.raises(EmbeddingNotFound) as caught:
        Selection.open(TrainConfig(dataset="synthetic", cache=str(cache), encoder=encoder, format="f32"))

    assert advised(caught.value) == EmbedConfig(dataset="synthetic", cache=str(cache), encoder=encoder, format="f32")


def test_missing_rows_and_views_are_embedded_under_the_same_key(
    cache: Path, advised: Callable[[Exception], EmbedConfig]
) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    store.embeddings(store.keys()[0]).clear([2])
    made = {"dataset": "synthetic", "cache": str(cache), "encoder": "random", "precision": "float32"}
    training = TrainConfig(dataset="synthetic", cache=str(cache), encoder="random", replay="learned")
    selection = Selection.open(training)

    with pytest.raises(ConfigError, match=r"1 of 12 images .*image \[2\]") as caught:
        selection.embeddings(selection.present_ids)
    assert advised(caught.value) == EmbedConfig(**made)
    with pytest.raises(ConfigError, match="replay learned needs exact views") as caught:
        selection.mixing_images(selection.present_ids)
    assert advised(caught.value) == EmbedConfig(**made, views="d4", view_images=16)
