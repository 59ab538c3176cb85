"""The network that a training's configuration asks for."""

from dataclasses import fields

import torch

from nucseg.models import ModelConfig, SegmentationModel, build_model
from nucseg_pipeline.config import TrainConfig


def build_network(config: TrainConfig) -> SegmentationModel:
    """Return it new, its weights drawn from torch's random state; ConfigError where there is no such network."""
    options = {field.name: getattr(config, field.name) for field in fields(ModelConfig)}
    return build_model(config.model, ModelConfig(**options))


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError where there is no such network; nothing is drawn and no memory taken."""
    with torch.device("meta"):
        build_network(config)
