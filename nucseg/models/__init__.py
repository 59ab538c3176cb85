"""The networks: an image, and for guided ones its embedding, to logits of background and nucleus."""

import torch

from nucseg.errors import ConfigError
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
    """Return a new network, its weights drawn from torch's random state; without a configuration the papers'.

    Raises:
        ConfigError: no such architecture or fusion; the message lists the known ones.
    """
    if name not in MODELS:
        raise ConfigError(f"no model is called {name!r}. Known: {', '.join(MODELS)}.")
    model = MODELS[name](config or ModelConfig())
    # convolutions follow the layout of their weights: on a CPU a step takes about 0.6 of the time in this one, and
    # tensor cores prefer it too. Only the overloads that torch declares lack it.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
