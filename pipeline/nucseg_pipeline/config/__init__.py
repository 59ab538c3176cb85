"""Configurations: one frozen dataclass per stage, checked when it is created.

The options of the command line are made from these dataclasses: name, type, default, and the docstring under each
field, whose last sentence may describe a default that is not a plain value ("Default: ...").
"""

from nucseg_pipeline.config.ablate import AblateConfig
from nucseg_pipeline.config.distill import DistillConfig, Record
from nucseg_pipeline.config.embed import EmbedConfig
from nucseg_pipeline.config.fidelity import FidelityConfig
from nucseg_pipeline.config.figures import FiguresConfig
from nucseg_pipeline.config.places import default_cache, store_location
from nucseg_pipeline.config.predict import PredictConfig
from nucseg_pipeline.config.report import ReportConfig
from nucseg_pipeline.config.train import TrainConfig

__all__ = [
    "AblateConfig",
    "DistillConfig",
    "EmbedConfig",
    "FidelityConfig",
    "FiguresConfig",
    "PredictConfig",
    "Record",
    "ReportConfig",
    "TrainConfig",
    "default_cache",
    "store_location",
]
