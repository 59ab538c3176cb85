"""What stage three is told to do."""

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


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What stage three needs to turn runs into a report."""

    runs: tuple[Path, ...]
    """Folders of the runs; at least one."""
    names: tuple[str, ...] = ()
    """What the runs are called in the report, in their order; empty takes the names of their folders."""
    out: Path | None = None
    """Folder of the report; None makes one in ./reports named after the runs."""
    datasets: tuple[str, ...] = ()
    """Data sets to score on; empty takes the test part of each run. One that no run was trained on is scored whole, any
    other on the test part of the runs that were."""
    grid: str = "256"
    """The grid of the metrics: 256, that of the prepared images, or native, that of the source's own masks."""
    source: Path | None = None
    """Folder that the native masks are read from; None takes the one that the store remembers."""
    baseline: str = ""
    """Name of the run that the others are compared with; empty takes the first."""
    seed: int = 0
    """Seed of the bootstrap and of the images drawn at random."""
    n_resamples: int = 10_000
    """Bootstrap resamples behind an interval."""
    n_overlays: int = 60
    """How many images the page has pictures of, at most; each takes about 25 kB and 15 kB more a configuration."""
    cache: str | None = None
    """Where the stores are now, if they were moved; None takes the places the runs were trained from."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("A report needs at least one run. Name the folder of a trained run, as in runs/NAME.")
        folders = [run.resolve() for run in self.runs]
        doubled = sorted({str(run) for run in self.runs if folders.count(run.resolve()) > 1})
        if doubled:
            raise ConfigError(f"A run can be reported only once, but {', '.join(doubled)} is named twice.")
        check_names(self.names, self.runs)
        for dataset in self.datasets:
            check_dataset(dataset)
        if len(set(self.datasets)) < len(self.datasets):
            raise ConfigError(f"Each data set is scored once, got {', '.join(self.datasets)}.")
        check_choice(self, "grid", ("256", "native"))
        if self.source is not None and (self.grid != "native" or len(self.datasets) > 1):
            raise ConfigError(
                "source is the folder that native masks of one data set are read from: it goes with grid native and at "
                f"most one data set, got grid {self.grid} and {len(self.datasets)} data sets."
            )
        check_at_least(self, 0, ("n_overlays",))
        check_seed(self.seed)
        check_at_least(self, 1, ("n_resamples",))
        check_device(self.device)
