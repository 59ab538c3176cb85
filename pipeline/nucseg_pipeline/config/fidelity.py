"""Configuration of `fidelity`."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_dataset, check_device, check_filled, check_seed
from nucseg_pipeline.config.fields import convert_fields
from nucseg_pipeline.config.places import default_cache
from nucseg_pipeline.config.train import TrainConfig

NONE = "none"
"""The value of `transforms` and `photometric` that measures nothing of that kind."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """What is needed to measure how far embeddings from the cache are from those of moved and recoloured images."""

    dataset: str
    """Name of the data set, as it was embedded."""
    source: Path | None = None
    """Folder of the native images. Default: where the store was made from."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL of the cache. Default: $NUCSEG_CACHE, or nucseg in the user's cache folder."""
    encoder: str = "vit_b"
    """Encoder of the embeddings: vit_b, vit_l, vit_h, student, student:FILE, onnx:FILE or random."""
    weights: Path | None = None
    """Checkpoint of the encoder. Default: looked for in $NUCSEG_WEIGHTS and the user's cache folder."""
    precision: str = "auto"
    """Precision of the embeddings and of the encoder; auto takes that of the embeddings."""
    format: str | None = None
    """Storage format that the embeddings must have: f16, f32, i8 or i6. Default: any."""
    split: str = "official"
    """Protocol that divides the images: official, grouped, kfold or paper. Replay is fitted to the training set and
    measured on the test set."""
    fold: int = 0
    """Fold of the protocol that is the test set, counted from 0."""
    seed: int = 0
    """Seed of the split, the choice of images, their motions and colours, and the bootstrap."""
    images: int = 16
    """Number of test images to measure; all if there are fewer."""
    calibration_images: int = 8
    """Number of training images to fit the channel mixing of learned replay to; 0 leaves learned replay out."""
    transforms: tuple[str, ...] = ()
    """Motions to measure: d4, papers, scale, the name of one motion, a file of transforms, or none. Default: D4, small
    affine and elastic ones, and a few mild ones."""
    photometric: tuple[str, ...] = ()
    """Changes of colour to measure, with the cached embedding left as it is: a recipe of `train --photometric`, the
    name of one change, a file of transforms, all, or none. Default: every recipe, and one change of each kind."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads. Default: chosen by PyTorch."""
    out: Path | None = None
    """Folder of the result. Default: fidelity/DATASET."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_dataset(self.dataset)
        check_device(self.device)
        check_at_least(self, 2, ("images",))
        check_at_least(self, 1, ("threads",))
        check_at_least(self, 0, ("fold", "calibration_images"))
        check_seed(self.seed)
        check_filled(self, ("encoder", "precision", "format", "split", "cache"))
        for kind, names in (("motion", self.transforms), ("change of colour", self.photometric)):
            if len(set(names)) < len(names):
                raise ConfigError(f"Each {kind} is measured once, got {', '.join(names)}.")
            if NONE in names and len(names) > 1:
                raise ConfigError(f"`none` measures no {kind}, so it cannot be combined: got {', '.join(names)}.")
        if self.transforms == self.photometric == (NONE,):
            raise ConfigError("There is nothing to measure: --transform and --photometric are both none. Drop one.")

    @property
    def training(self) -> TrainConfig:
        """A training that fits its replay to the same images of the same store."""
        return TrainConfig(
            dataset=self.dataset, cache=self.cache, encoder=self.encoder, weights=self.weights,
            precision=self.precision, format=self.format, split=self.split, fold=self.fold, seed=self.seed,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the result is written."""
        return self.out if self.out is not None else Path("fidelity") / self.dataset
