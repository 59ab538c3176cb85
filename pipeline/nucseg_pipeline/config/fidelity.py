"""What is measured of replay."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_dataset, check_device, check_filled, check_seed
from nucseg_pipeline.config.places import default_cache
from nucseg_pipeline.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """What is needed to measure how far replayed embeddings are from true ones."""

    dataset: str
    """Name of the data set, that is of its store in the cache."""
    source: Path | None = None
    """Folder that the native images are read from; None takes the one that the store remembers."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""
    encoder: str = "vit_b"
    """The encoder of the embeddings: vit_b, vit_l, vit_h, student, onnx:FILE or random."""
    weights: Path | None = None
    """Its checkpoint; None looks in the known places."""
    precision: str = "auto"
    """Precision the embeddings were computed in; auto takes any, and encodes in the same."""
    format: str | None = None
    """Storage format of the embeddings; None takes any."""
    split: str = "official"
    """Protocol that divides the images: what replay learns comes from the training part, the test part is measured."""
    fold: int = 0
    """Which fold of the protocol is the test part, counted from 0."""
    seed: int = 0
    """Seed of the split, of the images that are drawn, of how they move and of the bootstrap."""
    images: int = 16
    """Test images to measure; all of them where there are fewer."""
    calibration_images: int = 8
    """Training images whose eight orientations show how turns mix the channels; 0 leaves learned replay out."""
    transforms: tuple[str, ...] = ()
    """Names of motions, or files of transforms; empty takes those of `nucseg_pipeline.fidelity.motions`."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    out: Path | None = None
    """Folder of the result; None makes one in ./fidelity named after the data set."""

    def __post_init__(self) -> None:
        check_dataset(self.dataset)
        check_device(self.device)
        check_at_least(self, 2, ("images",))
        check_at_least(self, 1, ("threads",))
        check_at_least(self, 0, ("fold", "calibration_images"))
        check_seed(self.seed)
        check_filled(self, ("encoder", "precision", "format", "split", "cache"))
        if len(set(self.transforms)) < len(self.transforms):
            raise ConfigError(f"Each motion is measured once, got {', '.join(self.transforms)}.")

    @property
    def training(self) -> TrainConfig:
        """A training that learns its replay from the same images of the same store."""
        return TrainConfig(
            dataset=self.dataset, cache=self.cache, encoder=self.encoder, weights=self.weights,
            precision=self.precision, format=self.format, split=self.split, fold=self.fold, seed=self.seed,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the result is written."""
        return self.out if self.out is not None else Path("fidelity") / self.dataset
