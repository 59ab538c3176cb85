"""Configuration of stage two, `train`."""

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
    check_learning_rate,
    check_seed,
)
from nucseg_pipeline.config.fields import convert_fields
from nucseg_pipeline.config.places import default_cache

GEOMETRIES = ("none", "d4", "papers", "scale")
"""The augmentations that come with the package (`nucseg.replay.geometry_names`)."""

LOGS = ("none", "tensorboard")
MIXED_PRECISIONS = ("no", "bf16", "fp16")
PRELOADS = ("auto", "on", "off")
REPLAYS = ("corrected", "learned", "plain", "none")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What stage two needs to turn a store into a trained run."""

    dataset: str
    """Name of the data set, as it was embedded; required here or in the recipe."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL of the cache. Default: $NUCSEG_CACHE, or nucseg in the user's cache folder."""
    encoder: str = "vit_b"
    """Encoder whose cached embeddings guide the network: vit_b, vit_l, vit_h, student, student:FILE, onnx:FILE or
    random. Not used with --fusion none."""
    weights: Path | None = None
    """Checkpoint that the embeddings must come from. Default: any."""
    precision: str = "auto"
    """Precision that the embeddings must have been computed in; auto takes any."""
    format: str | None = None
    """Storage format that the embeddings must have: f16, f32, i8 or i6. Default: any."""
    model: str = "eunet3plus"
    """Architecture: unet, ddunet, unet3plus or eunet3plus."""
    fusion: str = "xgfb"
    """How the embedding enters the network: concat (concatenation), xgfb (X-Gated Fusion Block), xgfb_reference (as in
    the published code), multiscale (at three resolutions), or none to train without guidance."""
    tissue_only: bool = False
    """Guide by tissue only: the gates' means and the embedding leave out glass, black and other areas without texture,
    which otherwise change the nuclei in the rest of the image. Without effect with --fusion none."""
    width: int = 32
    """Channels at the finest level."""
    activation: str | None = None
    """Activation function: relu, leaky_relu, swish or glu. Default: glu for eunet3plus, relu for the others."""
    dropout: float = 0.3
    """Probability of dropping a channel at the bottleneck."""
    deep_supervision: bool = False
    """Add a loss at every decoder level."""
    classification_guided: bool = False
    """Add a branch that classifies whether an image contains nuclei, and suppress the output if it does not."""
    instance_head: str = "none"
    """Additional output that separates touching nuclei: none, or distance (to the border of the nucleus)."""
    split: str = "official"
    """Protocol that divides the images into training, validation and test set: official (grouped where the authors
    give none), grouped, kfold, or paper (70/15/15 at random)."""
    fold: int = 0
    """Fold of the protocol that is the test set, counted from 0."""
    seed: int = 0
    """Seed of the split, the initial weights, the order of the images, the augmentation and the dropout."""
    epochs: int = 50
    """Passes over the training set."""
    epoch_images: int | None = None
    """Maximum number of training images per epoch, a new random choice each time. Default: all."""
    validation_images: int | None = None
    """Maximum number of validation images, the same in all epochs. Default: all."""
    batch_size: int = 16
    """Images per step, over all processes."""
    learning_rate: float = 1e-4
    """Learning rate of Adam; with --schedule cosine the initial one."""
    augmentation: str = "d4"
    """How image, masks and embedding are transformed together: d4 (flips and quarter turns), papers (d4, then for every
    other image a small affine or elastic transform), scale (d4, then for every other image a factor of 0.7 to 1.4),
    none, or a file of transforms."""
    replay: str = "corrected"
    """How the embedding is transformed: corrected (the positional pattern stays in place), learned (corrected, and
    channels are mixed as fitted to exact views), plain, or none (the embedding stays as it is; for comparison only)."""
    views: str = "identity"
    """Exact views to train on, as embedded by embed --views: identity, d4 (orientations are read instead of replayed),
    or the name of a recipe: crops, glass, stain, papers, laboratories or yours (each epoch reads another variant)."""
    photometric: str = "none"
    """How the colours of the training images change, differently in each epoch, while the cached embeddings stay: none,
    stain, papers, laboratories (brightness, background, white balance, stains, blur, JPEG), or a file of transforms."""
    schedule: str = "constant"
    """Learning rate schedule: constant, or cosine (down to 0 at the last step)."""
    mixed_precision: str = "no"
    """Precision of the training: no, bf16, or fp16 (fp16 only on CUDA)."""
    device: str = "auto"
    """Device to train on: auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """Number of CPU threads. Default: chosen by PyTorch."""
    preload: str = "auto"
    """Keep the training data in memory, on the CUDA device where it fits: on, off, or auto (on where it fits in half of
    the free memory)."""
    log: str = "none"
    """Log in addition to epochs.csv: none, or tensorboard (event files in the run's folder)."""
    run: Path | None = None
    """Folder of the run. Default: runs/DATASET-MODEL-FUSION-fFOLD-sSEED."""
    resume: bool = False
    """Continue a run that was interrupted."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_dataset(self.dataset)
        object.__setattr__(self, "augmentation", _augmentation(self.augmentation))
        object.__setattr__(self, "photometric", _photometric(self.photometric))
        check_choice(self, "replay", REPLAYS)
        if self.views.endswith(".toml"):  # as `embed` takes it, which names the views after the file
            object.__setattr__(self, "views", Path(self.views).stem)
        _check_views(self)
        check_choice(self, "schedule", SCHEDULES)
        check_choice(self, "mixed_precision", MIXED_PRECISIONS)
        check_choice(self, "preload", PRELOADS)
        check_choice(self, "log", LOGS)
        check_device(self.device)
        check_at_least(self, 1, ("width", "epochs", "epoch_images", "validation_images", "batch_size", "threads"))
        check_at_least(self, 0, ("fold",))
        check_seed(self.seed)
        check_learning_rate(self.learning_rate)
        check_filled(self, ("encoder", "precision", "format", "model", "fusion", "split", "cache"))
        check_filled(self, ("activation", "instance_head"))
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}.")

    @property
    def name(self) -> str:
        """Name of the run: that of its folder, or one made from what is trained."""
        if self.run is not None:
            return self.run.resolve().name
        return f"{self.dataset}-{self.model}-{self.fusion}-f{self.fold}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.run if self.run is not None else Path("runs") / self.name


def _augmentation(name: str) -> str:
    """The augmentation as a run records it: its name, or the content of its file."""
    if name in GEOMETRIES:
        return name
    from nucseg.replay.transforms import Geometry, is_written_out  # loads torch, which those names need not

    # what a run has recorded is checked again only where it is used
    return name if is_written_out(name) else Geometry.named(name).text


def _photometric(name: str) -> str:
    """The photometric recipe as a run records it: its name, or the content of its file."""
    from nucseg.photometric.recipe import PhotometricRecipe, is_written_out, photometric_names

    return name if name in photometric_names() or is_written_out(name) else PhotometricRecipe.named(name).text


def _check_views(config: TrainConfig) -> None:
    if config.views == "identity":
        return
    if not re.fullmatch(r"\w[\w-]*", config.views):
        raise ConfigError(f"views must be identity, d4 or the name or file of a view recipe, got {config.views!r}.")
    if config.fusion == "none":
        raise ConfigError(
            f"views {config.views} are embeddings of other views of the images, but fusion none reads no embedding. "
            "Choose another --fusion, or --views identity."
        )
    if config.views == "d4" and (config.augmentation == "none" or config.replay == "none"):
        raise ConfigError(
            "views d4 are read for the orientations that the augmentation draws, but with augmentation none or replay "
            "none there are none. Use --augmentation d4, or --views identity."
        )
