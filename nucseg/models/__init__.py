"""The networks: an image, and for guided ones its embedding, to logits of background and nucleus."""

from collections.abc import Callable

import torch

from nucseg.errors import ConfigError
from nucseg.models.base import ModelConfig, SegmentationModel
from nucseg.models.eunet3plus import EUNet3Plus
from nucseg.models.fusion import FUSIONS

__all__ = ["FUSIONS", "MODELS", "EUNet3Plus", "ModelConfig", "SegmentationModel", "build_model"]

MODELS: dict[str, Callable[[ModelConfig], SegmentationModel]] = {
    "eunet3plus": EUNet3Plus,
}
"""The architectures by name."""


def build_model(
    name: str, *, width: int = 32, fusion: str = "xgfb", dropout: float = 0.3, deep_supervision: bool = False
) -> SegmentationModel:
    """Return a new network, its weights drawn from torch's random state. The options are those of `ModelConfig`.

    Raises:
        ConfigError: no such architecture or fusion (the message lists the known ones), or an impossible option.
    """
    if name not in MODELS:
        raise ConfigError(f"no model is called {name!r}. Known: {', '.join(MODELS)}.")
    config = ModelConfig(width=width, fusion=fusion, dropout=dropout, deep_supervision=deep_supervision)
    model = MODELS[name](config)
    # convolutions follow the layout of their weights: on a CPU a step takes about 0.6 of the time in this one, and
    # tensor cores prefer it too. Only the overloads that torch declares lack it.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
