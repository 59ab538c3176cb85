"""Segmentation networks: from an image, and its embedding if guided, to logits of background and nucleus."""

import torch

from nucseg.errors import ConfigError, known
from nucseg.models.base import INSTANCE_HEADS, ModelConfig, Outputs, SegmentationModel
from nucseg.models.blocks import ACTIVATIONS
from nucseg.models.costs import Costs, count_costs
from nucseg.models.ddunet import DDUNet
from nucseg.models.eunet3plus import EUNet3Plus
from nucseg.models.fusion import FUSIONS
from nucseg.models.unet import UNet
from nucseg.models.unet3plus import UNet3Plus

__all__ = [
    "ACTIVATIONS",
    "FUSIONS",
    "INSTANCE_HEADS",
    "MODELS",
    "Costs",
    "DDUNet",
    "EUNet3Plus",
    "ModelConfig",
    "Outputs",
    "SegmentationModel",
    "UNet",
    "UNet3Plus",
    "build_model",
    "count_costs",
]

MODELS: dict[str, type[SegmentationModel]] = {
    "unet": UNet,
    "ddunet": DDUNet,
    "unet3plus": UNet3Plus,
    "eunet3plus": EUNet3Plus,
}
"""The architectures by name."""


def build_model(name: str, config: ModelConfig | None = None) -> SegmentationModel:
    """Return a new network with weights drawn from torch's random state, by default with the papers' configuration.

    Raises:
        ConfigError: there is no such architecture or fusion; the message lists the known ones.
    """
    if name not in MODELS:
        raise ConfigError(f"Model {name!r} is not known. {known(name, MODELS)}")
    model = MODELS[name](config or ModelConfig())
    # convolutions use the memory layout of their weights: channels last takes 0.6 of the time per step on a CPU, and
    # tensor cores prefer it too; torch's type stubs lack this overload
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
