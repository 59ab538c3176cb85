"""Configuration of `distill`."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import (
    check_at_least,
    check_choice,
    check_dataset,
    check_device,
    check_filled,
    check_learning_rate,
    check_seed,
)
from nucseg_pipeline.config.fields import convert_fields
from nucseg_pipeline.config.places import default_cache
from nucseg_pipeline.config.train import TrainConfig

SIZES = ("small", "medium", "large")
"""Sizes of a student (`nucseg.encoders.student.SIZES`)."""

MIXED_PRECISIONS = ("no", "bf16")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is needed to distill a large encoder into a small one, from cached embeddings."""

    dataset: tuple[str, ...]
    """Names of the data sets, as they were embedded."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL of the cache. Default: $NUCSEG_CACHE, or nucseg in the user's cache folder."""
    teacher: str = "vit_b"
    """Encoder whose cached embeddings are the target: vit_b, vit_l, vit_h or onnx:FILE."""
    weights: Path | None = None
    """Checkpoint that the embeddings must come from. Default: any."""
    precision: str = "auto"
    """Precision that the embeddings must have been computed in; auto takes any."""
    format: str | None = None
    """Storage format that the embeddings must have: f16, f32, i8 or i6. Default: any."""
    views: tuple[str, ...] = ()
    """Views to train on besides the unchanged images: d4, crops, glass, a photometric recipe (see embed --views), or
    identity for none. Default: all views in the cache."""
    size: str = "large"
    """Size of the student: small, medium or large."""
    split: str = "official"
    """Protocol that divides the images into training, validation and test set: official, grouped, kfold or paper."""
    fold: int = 0
    """Fold of the protocol that is the test set, counted from 0."""
    seed: int = 0
    """Seed of the split, the initial weights and the order of the images."""
    epochs: int = 30
    """Passes over all views of the training set."""
    batch_size: int = 16
    """Images per step, over all processes."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW: it rises over the first twentieth of the steps, then falls to 0 along a cosine."""
    mixed_precision: str = "no"
    """no or bf16."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads. Default: chosen by PyTorch."""
    out: Path | None = None
    """Folder of the student. Default: students/DATASETS-SIZE."""

    def __post_init__(self) -> None:
        convert_fields(self)
        object.__setattr__(self, "views", tuple(_plain(view) for view in self.views))
        for name in self.dataset:
            check_dataset(name)
        if not self.dataset or len(set(self.dataset)) < len(self.dataset):
            raise ConfigError(f"dataset must name at least one data set, and each once; got {list(self.dataset)}.")
        check_choice(self, "size", SIZES)
        check_choice(self, "mixed_precision", MIXED_PRECISIONS)
        check_device(self.device)
        check_at_least(self, 1, ("epochs", "batch_size", "threads"))
        check_at_least(self, 0, ("fold",))
        check_seed(self.seed)
        check_learning_rate(self.learning_rate)
        check_filled(self, ("teacher", "precision", "format", "split", "cache"))
        if "" in self.views or len(set(self.views)) < len(self.views):
            raise ConfigError(f"views must name each kind of view once, got {list(self.views)}.")

    def training_on(self, dataset: str) -> TrainConfig:
        """A training guided by the same embeddings of a data set, with the same split."""
        return TrainConfig(
            dataset=dataset, cache=self.cache, encoder=self.teacher, weights=self.weights,
            precision=self.precision, format=self.format, split=self.split, fold=self.fold, seed=self.seed,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the student is written."""
        return self.out if self.out is not None else Path("students") / "-".join((*self.dataset, self.size))


def _plain(view: str) -> str:
    """The name of a view; for the file of a recipe the one that `embed` gives it."""
    return Path(view).stem if view.endswith(".toml") else view


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a recipe of the package produced when its result was made for the package."""

    weights: str
    """xxh128 of the student's file, hexadecimal."""
    teacher: str
    """xxh128 of the teacher's file, hexadecimal."""
