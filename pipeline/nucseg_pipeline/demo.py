"""The demonstration: all stages on synthetic images, offline, and the commands that they correspond to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nucseg_pipeline.config import EmbedConfig, ReportConfig, TrainConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.config.recipe import load_recipe, resolve

DATASET, ENCODER, RECIPE = "synthetic", "student", "demo"

QUICK_IMAGES, QUICK_TRAINING = 15, {"epochs": 1, "width": 2}
"""Changes made by `--quick`."""


@dataclass(frozen=True)
class Demo:
    """The configurations of the stages in order, and the corresponding commands."""

    embed: EmbedConfig
    trainings: tuple[TrainConfig, ...]
    report: ReportConfig
    folder: Path

    @property
    def embed_command(self) -> str:
        """The command line of the embed stage."""
        return command(self.embed)

    def train_command(self, training: TrainConfig) -> str:
        """The command line of one training."""
        of_recipe = [name for name, value in load_recipe(RECIPE, "train").items() if value == getattr(training, name)]
        return command(training, without=(*of_recipe, "resume"), recipe=RECIPE)

    @property
    def report_command(self) -> str:
        """The command line of the report stage."""
        return command(self.report)


def demonstration(folder: Path, *, quick: bool = False) -> Demo:
    """Configure the demonstration in a folder; existing embeddings and runs there are kept and resumed.

    Args:
        folder: gets cache, runs and report.
        quick: use few images and one epoch, to check that all stages run.
    """
    cache = str(folder / "cache")
    given = {**load_recipe(RECIPE, "train"), **(QUICK_TRAINING if quick else {})}
    fusions = {"guided": "xgfb", "unguided": "none"}
    runs = {name: folder / "runs" / name for name in fusions}
    trainings = tuple(
        resolve(
            TrainConfig, given, {"cache": cache, "fusion": fusion, "run": runs[name], "resume": runs[name].exists()}
        )
        for name, fusion in fusions.items()
    )
    return Demo(
        embed=resolve(
            EmbedConfig,
            {},
            {"dataset": DATASET, "encoder": ENCODER, "cache": cache, "limit": QUICK_IMAGES if quick else None},
        ),
        trainings=trainings,
        report=ReportConfig(runs=tuple(runs.values()), out=folder / "report", baseline="unguided"),
        folder=folder,
    )
