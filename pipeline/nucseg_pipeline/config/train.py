"""What stage two is told to do."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

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

GEOMETRIES = ("none", "d4", "papers")
"""The augmentations that come with the package (`nucseg.replay.geometry_names`)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What stage two needs to turn a store into a trained run."""

    dataset: str
    """Name of the data set, that is of its store in the cache."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""
    encoder: str = "vit_b"
    """Whose embeddings guide: vit_b, vit_l, vit_h, student, onnx:FILE or random. Unused with fusion none."""
    weights: Path | None = None
    """Checkpoint of that encoder, asked for by its digest; None looks in the known places."""
    precision: str = "auto"
    """Precision the embeddings were computed in; auto takes any."""
    format: str | None = None
    """Storage format of the embeddings; None takes any."""
    model: str = "eunet3plus"
    """Architecture."""
    fusion: str = "xgfb"
    """How the embedding enters the network; none trains without guidance."""
    width: int = 32
    """Channels at the finest level."""
    activation: str | None = None
    """relu, leaky_relu, swish or glu; None takes the architecture's own."""
    dropout: float = 0.3
    """Probability of dropping a channel at the bottleneck."""
    deep_supervision: bool = False
    """Whether every decoder level has a loss of its own."""
    classification_guided: bool = False
    """Whether a branch that learns if there is any nucleus rules out maps of images without."""
    instance_head: str = "none"
    """none, or distance: the network also learns how deep inside its nucleus a pixel lies, to part those that touch."""
    split: str = "official"
    """Protocol that divides the images into training, validation and test parts."""
    fold: int = 0
    """Which fold of the protocol is the test part, counted from 0."""
    seed: int = 0
    """Seed of the split, the weights, the order, the augmentation and the dropout."""
    epochs: int = 50
    """Passes over the training part."""
    epoch_images: int | None = None
    """Most training images that an epoch shows, others each time; None shows all."""
    validation_images: int | None = None
    """Most validation images that epochs are compared on, always the same; None takes all."""
    batch_size: int = 16
    """Images a step, counted over all processes."""
    learning_rate: float = 1e-4
    """Adam's learning rate; with schedule cosine the first one."""
    augmentation: str = "d4"
    """How image, masks and embedding move together: d4 (flips and quarter turns), papers (then, for one in two, a small
    affine or elastic one), none, or a file of transforms, see `nucseg.replay.transforms`."""
    replay: str = "corrected"
    """How an embedding follows: corrected holds the positional pattern still, learned also mixes the channels as exact
    views show, plain moves it as it is, none leaves it (for comparison only)."""
    views: str = "identity"
    """Which exact views are read: identity, d4 (orientations are read, not replayed), or the name of a photometric
    recipe of `nucseg embed --views`, of which every epoch shows another variant."""
    schedule: str = "constant"
    """constant, or cosine: from learning_rate down to 0 at the last step."""
    mixed_precision: str = "no"
    """no, bf16 or fp16 (CUDA only)."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    preload: str = "auto"
    """Whether rows stay in memory, in that of a CUDA device where they fit: on, off, or auto (on when they fit in half
    of what is free)."""
    log: str = "none"
    """none, or tensorboard: write event files to the run's folder for TensorBoard to show."""
    run: Path | None = None
    """Folder of the run; None makes one in ./runs named after what is trained."""
    resume: bool = False
    """Continue a run that was interrupted."""

    def __post_init__(self) -> None:
        check_dataset(self.dataset)
        object.__setattr__(self, "augmentation", _augmentation(self.augmentation))
        check_choice(self, "replay", ("corrected", "learned", "plain", "none"))
        if self.views.endswith(".toml"):  # as `embed` takes it, which names the views after the file
            object.__setattr__(self, "views", Path(self.views).stem)
        _check_views(self)
        check_choice(self, "schedule", ("constant", "cosine"))
        check_choice(self, "mixed_precision", ("no", "bf16", "fp16"))
        check_choice(self, "preload", ("auto", "on", "off"))
        check_choice(self, "log", ("none", "tensorboard"))
        check_device(self.device)
        check_at_least(self, 1, ("width", "epochs", "epoch_images", "validation_images", "batch_size", "threads"))
        check_at_least(self, 0, ("fold",))
        check_seed(self.seed)
        check_filled(self, ("encoder", "precision", "format", "model", "fusion", "split", "cache"))
        check_filled(self, ("activation", "instance_head"))
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ConfigError(f"learning_rate must be above 0 and finite, got {self.learning_rate}.")

    @property
    def name(self) -> str:
        """Name of the run: its folder's, or one made of what is trained."""
        if self.run is not None:
            return self.run.resolve().name
        return f"{self.dataset}-{self.model}-{self.fusion}-f{self.fold}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.run if self.run is not None else Path("runs") / self.name


def _augmentation(name: str) -> str:
    """An augmentation as it is written down: its name, or what stands in its file."""
    if name in GEOMETRIES:
        return name
    from nucseg.replay.transforms import Geometry, is_written_out  # loads torch, which those names need not

    # what a run has written down is looked at again only where it is drawn
    return name if is_written_out(name) else Geometry.named(name).text


def _check_views(config: TrainConfig) -> None:
    if config.views == "identity":
        return
    if not re.fullmatch(r"\w[\w-]*", config.views):
        raise ConfigError(
            f"views must be identity, d4 or the name or file of a photometric recipe, got {config.views!r}."
        )
    if config.fusion == "none":
        raise ConfigError(
            f"views {config.views} are embeddings of other views of the images, and fusion none reads no embedding. "
            "Take another --fusion, or --views identity."
        )
    if config.views == "d4" and (config.augmentation == "none" or config.replay == "none"):
        raise ConfigError(
            "views d4 are read for the orientations that the augmentation draws, and with augmentation none or replay "
            "none there are none. Take --augmentation d4, or --views identity."
        )
