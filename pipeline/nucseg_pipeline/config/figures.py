"""Configuration of `figures`."""

from dataclasses import dataclass
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_choice, check_dataset, check_device, check_names
from nucseg_pipeline.config.fields import convert_fields

FILE_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """What the figures are made of, and where they go."""

    runs: tuple[Path, ...]
    """Folders of finished runs."""
    names: tuple[str, ...] = ()
    """Names of the runs in the figures, one for each run, in their order. Default: the names of their folders."""
    images: tuple[str, ...] = ()
    """Ids of the test images to show. Default: chosen by the Dice of the first run or configuration."""
    n_images: int = 3
    """Number of images to choose: the median, the worst and the best, then others at random."""
    dataset: str | None = None
    """Data set in the cache whose images are shown; the runs need not be trained on it. Default: the test set of the
    runs."""
    cache: str | None = None
    """Folder or URL of the cache. Default: the one that each run was trained from."""
    out: Path | None = None
    """Folder of the figures. Default: figures/NAMES."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    format: str = "png"
    """File format: png, pdf or svg."""

    def __post_init__(self) -> None:
        convert_fields(self)
        if not self.runs or len({run.resolve() for run in self.runs}) < len(self.runs):
            named = ", ".join(map(str, self.runs)) or "none"
            raise ConfigError(f"Figures need at least one run, and each run only once; got {named}.")
        check_names(self.names, self.runs)
        if len(set(self.images)) < len(self.images):
            raise ConfigError(f"Each image is shown once, got {', '.join(self.images)}.")
        check_at_least(self, 1, ("n_images",))
        check_choice(self, "format", FILE_FORMATS)
        if self.dataset is not None:
            check_dataset(self.dataset)
        check_device(self.device)
