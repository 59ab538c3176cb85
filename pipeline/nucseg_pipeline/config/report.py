"""Configuration of stage three, `report`."""

from dataclasses import dataclass
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import (
    check_at_least,
    check_choice,
    check_dataset,
    check_device,
    check_names,
    check_seed,
)
from nucseg_pipeline.config.fields import convert_fields

GRIDS = ("256", "native", "tiles")
"""The prepared images; the data set's own masks; the same, with images predicted by tiles."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What stage three needs to turn runs into a report."""

    runs: tuple[Path, ...]
    """Folders of finished runs."""
    names: tuple[str, ...] = ()
    """Name of a run in the report, once per run in the order of the runs. Default: the names of their folders."""
    out: Path | None = None
    """Folder of the report. Default: reports/NAMES."""
    datasets: tuple[str, ...] = ()
    """Data set in the cache to score on. One that no run was trained on is scored on all images, others on the test
    set of the runs. Several make a table of all runs by all data sets. Default: the test set of each run."""
    grid: str = "256"
    """Grid of the metrics: 256 (the prepared images), native (the data set's own masks at their size) or tiles (these
    masks; the original images are predicted by tiles, as predict does, and embeddings of tiles are computed)."""
    source: Path | None = None
    """With --grid native or tiles: folder of the original files. Default: where the store was made from."""
    weights: Path | None = None
    """With --grid tiles: weights of the encoder of guided runs. Default: found by their digest."""
    baseline: str = ""
    """Name of the run or configuration that the others are compared with. Default: the first."""
    seed: int = 0
    """Seed of the bootstrap and of the choice of images to show."""
    n_resamples: int = 10_000
    """Bootstrap resamples per confidence interval."""
    n_images: int = 60
    """Maximum number of images to show in the report; each adds about 25 kB, and 15 kB per configuration."""
    cache: str | None = None
    """Folder or URL of the cache. Default: the one that each run was trained from."""
    device: str = "auto"
    """Device to predict on: auto, cpu, mps, cuda or cuda:N."""

    def __post_init__(self) -> None:
        convert_fields(self)
        if not self.runs:
            raise ConfigError("A report needs at least one run. Name the folder of a trained run, as in runs/NAME.")
        folders = [run.resolve() for run in self.runs]
        repeated = sorted({str(run) for run in self.runs if folders.count(run.resolve()) > 1})
        if repeated:
            raise ConfigError(f"A report takes each run once, but {', '.join(repeated)} is named twice.")
        check_names(self.names, self.runs)
        for dataset in self.datasets:
            check_dataset(dataset)
        if len(set(self.datasets)) < len(self.datasets):
            raise ConfigError(f"A report scores each data set once, got {', '.join(self.datasets)}.")
        check_choice(self, "grid", GRIDS)
        if self.source is not None and (self.grid == "256" or len(self.datasets) > 1):
            raise ConfigError(
                "source is the folder of the original files of one data set: it goes with grid native or tiles and at "
                f"most one data set, got grid {self.grid} and {len(self.datasets)} data sets."
            )
        if self.weights is not None and self.grid != "tiles":
            raise ConfigError(
                "weights are those of the encoder that embeds tiles: they go with grid tiles, got grid "
                f"{self.grid}, which reads embeddings from the cache. Leave them out."
            )
        check_at_least(self, 0, ("n_images",))
        check_seed(self.seed)
        check_at_least(self, 1, ("n_resamples",))
        check_device(self.device)
