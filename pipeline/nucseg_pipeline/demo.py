"""The demonstration: all stages on synthetic images, offline, and the commands that they correspond to."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from nucseg_pipeline.config import EmbedConfig, ReportConfig, TrainConfig
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
        limit = {} if self.embed.limit is None else {"limit": self.embed.limit}
        return _command("embed", dataset=DATASET, encoder=ENCODER, cache=self.embed.cache, **limit)

    def train_command(self, training: TrainConfig) -> str:
        """The command line of one training."""
        changed = {name: getattr(training, name) for name in QUICK_TRAINING} if self.embed.limit else {}
        options = {"fusion": training.fusion, "cache": training.cache, "run": training.run}
        return _command("train", recipe=RECIPE, **options, **changed)

    @property
    def report_command(self) -> str:
        """The command line of the report stage."""
        runs = " ".join(shlex.quote(str(run)) for run in self.report.runs)
        return _command(f"report {runs}", baseline=self.report.baseline, out=self.report.out)


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


def _command(name: str, **options: object) -> str:
    return f"nucseg {name} " + " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in options.items())
