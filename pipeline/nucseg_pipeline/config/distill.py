"""What the distillation of a student is told to do."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from nucseg.encoders.student import SIZES
from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import (
    check_at_least,
    check_choice,
    check_dataset,
    check_device,
    check_filled,
    check_seed,
)
from nucseg_pipeline.config.places import default_cache
from nucseg_pipeline.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is needed to teach a small encoder the embeddings of a large one."""

    dataset: tuple[str, ...]
    """Names of the data sets, that is of their stores in the cache."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""
    teacher: str = "vit_b"
    """The encoder whose embeddings are learned: vit_b, vit_l, vit_h or onnx:FILE."""
    weights: Path | None = None
    """Its checkpoint, asked for by its digest; None takes any."""
    precision: str = "auto"
    """Precision the embeddings were computed in; auto takes any."""
    format: str | None = None
    """Storage format of the embeddings; None takes any."""
    views: tuple[str, ...] = ()
    """What is shown beside the images as they are: d4, recipes of `nucseg embed --views`, or identity for nothing;
    empty shows all views."""
    size: str = "large"
    """small, medium or large."""
    split: str = "official"
    """Protocol that divides the images: the training part is learned, the test part measures what came of it."""
    fold: int = 0
    """Which fold of the protocol is the test part, counted from 0."""
    seed: int = 0
    """Seed of the split, the weights and the order."""
    epochs: int = 30
    """Passes over all views of the training part."""
    batch_size: int = 16
    """Images a step, counted over all processes."""
    learning_rate: float = 2e-3
    """AdamW's learning rate at its highest: it rises over the first twentieth, then falls to 0 along a cosine."""
    mixed_precision: str = "no"
    """no or bf16."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    out: Path | None = None
    """Folder of the student; None makes one in ./students named after the data sets and the size."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(_plain(view) for view in self.views))
        for name in self.dataset:
            check_dataset(name)
        if not self.dataset or len(set(self.dataset)) < len(self.dataset):
            raise ConfigError(f"dataset names each data set once, and at least one; got {list(self.dataset)}.")
        check_choice(self, "size", tuple(SIZES))
        check_choice(self, "mixed_precision", ("no", "bf16"))
        check_device(self.device)
        check_at_least(self, 1, ("epochs", "batch_size", "threads"))
        check_at_least(self, 0, ("fold",))
        check_seed(self.seed)
        check_filled(self, ("teacher", "precision", "format", "split", "cache"))
        if "" in self.views or len(set(self.views)) < len(self.views):
            raise ConfigError(f"views names each kind of view once, got {list(self.views)}.")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ConfigError(f"learning_rate must be above 0 and finite, got {self.learning_rate}.")

    def training_on(self, dataset: str) -> TrainConfig:
        """A training that is guided by the same embeddings of a data set, divided in the same way."""
        return TrainConfig(
            dataset=dataset, cache=self.cache, encoder=self.teacher, weights=self.weights,
            precision=self.precision, format=self.format, split=self.split, fold=self.fold, seed=self.seed,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the student is written."""
        return self.out if self.out is not None else Path("students") / "-".join((*self.dataset, self.size))


def _plain(view: str) -> str:
    """A recipe's file as `embed` takes it, which names the views after the file."""
    return Path(view).stem if view.endswith(".toml") else view


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came of a recipe of the package when it was run for the package."""

    weights: str
    """xxh128 of the file, hexadecimal."""
    teacher: str
    """xxh128 of the teacher's file, hexadecimal."""
