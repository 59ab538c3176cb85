"""Nuclei segmentation in H&E histology, guided by cached embeddings of a frozen SAM encoder.

    import nucseg

    nucseg.embed(nucseg.EmbedConfig(dataset="nuinsseg"), progress=print)
    nucseg.train(nucseg.TrainConfig(dataset="nuinsseg"))

The stages, their configurations and the store are imported when they are first used, so that `import nucseg` takes
milliseconds. They live in `nucseg_pipeline` and `nucseg_cache`. The subpackages of nucseg are the science: arrays and
tensors in, arrays and tensors out; they write no files and do not know the stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nucseg_cache import Store as Store
    from nucseg_pipeline.config import DistillConfig as DistillConfig
    from nucseg_pipeline.config import EmbedConfig as EmbedConfig
    from nucseg_pipeline.config import PredictConfig as PredictConfig
    from nucseg_pipeline.config import ReportConfig as ReportConfig
    from nucseg_pipeline.config import TrainConfig as TrainConfig
    from nucseg_pipeline.datasets.stores import open_store as open_store
    from nucseg_pipeline.distill.stage import distill as distill
    from nucseg_pipeline.embed.stage import embed as embed
    from nucseg_pipeline.predict.predictor import Predictor as Predictor
    from nucseg_pipeline.predict.stage import predict as predict
    from nucseg_pipeline.report.stage import report as report
    from nucseg_pipeline.runs.run import Run as Run
    from nucseg_pipeline.train.stage import train as train

_MODULES = {
    "nucseg_cache": ("Store",),
    "nucseg_pipeline.config": ("DistillConfig", "EmbedConfig", "PredictConfig", "ReportConfig", "TrainConfig"),
    "nucseg_pipeline.datasets.stores": ("open_store",),
    "nucseg_pipeline.distill.stage": ("distill",),
    "nucseg_pipeline.embed.stage": ("embed",),
    "nucseg_pipeline.predict.predictor": ("Predictor",),
    "nucseg_pipeline.predict.stage": ("predict",),
    "nucseg_pipeline.report.stage": ("report",),
    "nucseg_pipeline.runs.run": ("Run",),
    "nucseg_pipeline.train.stage": ("train",),
}
"""Module -> names imported from it on first use. Type checkers read the same names from the imports above."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for names in _MODULES.values() for name in names)})
