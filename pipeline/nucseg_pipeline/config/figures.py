"""What the figures are made of."""

from dataclasses import dataclass
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_choice, check_dataset, check_device, check_names


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """What the figures are made of, and where they go."""

    runs: tuple[Path, ...]
    """Folders of the runs; at least one."""
    names: tuple[str, ...] = ()
    """What the runs are called in the figures, in their order; empty takes the names of their folders."""
    images: tuple[str, ...] = ()
    """Ids of the test images to show; empty chooses `n_images` by the Dice of the first run or configuration."""
    n_images: int = 3
    """How many are chosen: the median, the worst and the best, then others by chance."""
    dataset: str | None = None
    """Data set whose images are shown; None takes the test part of the runs."""
    cache: str | None = None
    """Where the stores are now, if they were moved; None takes the places the runs were trained from."""
    out: Path | None = None
    """Folder of the figures; None makes one in ./figures named after the runs."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    format: str = "png"
    """png, pdf or svg."""

    def __post_init__(self) -> None:
        if not self.runs or len({run.resolve() for run in self.runs}) < len(self.runs):
            named = ", ".join(map(str, self.runs)) or "none"
            raise ConfigError(f"Figures are made of one or more runs, each named once, got {named}.")
        check_names(self.names, self.runs)
        if len(set(self.images)) < len(self.images):
            raise ConfigError(f"Each image is shown once, got {', '.join(self.images)}.")
        check_at_least(self, 1, ("n_images",))
        check_choice(self, "format", ("png", "pdf", "svg"))
        if self.dataset is not None:
            check_dataset(self.dataset)
        check_device(self.device)
