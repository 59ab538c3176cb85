"""Build the network of a training configuration."""

from dataclasses import fields

import torch

from nucseg.models import ModelConfig, SegmentationModel, build_model
from nucseg_pipeline.config import TrainConfig


def build_network(config: TrainConfig) -> SegmentationModel:
    """Return a new network with weights drawn from torch's random state; ConfigError if there is no such network."""
    options = {field.name: getattr(config, field.name) for field in fields(ModelConfig)}
    return build_model(config.model, ModelConfig(**options))


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError if there is no such network, without drawing weights or using memory."""
    with torch.device("meta"):
        build_network(config)
