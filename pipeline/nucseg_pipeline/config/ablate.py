"""What a table is made of."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.data import STAINS
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


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What is needed to make a table of the papers, or one of one's own, from the cache."""

    recipe: str
    """Name or file of the table's recipe."""
    quick: bool = False
    """Small networks on one fold, an orientation: at most 4 minutes each on two cores, unless a row says otherwise."""
    datasets: tuple[str, ...] = ()
    """Data sets of the table; empty takes the recipe's."""
    stain: str | None = None
    """Stain normalisation of the rows that name none; None takes none."""
    encoder: str | None = None
    """Encoder of the rows that name none; None takes vit_b."""
    weights: Path | None = None
    """Checkpoint of that encoder; None looks in the known places."""
    folds: int | None = None
    """The first so many folds of each data set's protocol; None takes the recipe's, or one with quick."""
    seeds: tuple[int, ...] = ()
    """Seeds; empty takes the recipe's."""
    grid: str = "256"
    """The grid of the metrics: 256 or native."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""
    runs: Path = Path("runs")
    """Folder of the runs' folders; runs of the same configuration are shared by all tables in it."""
    out: Path | None = None
    """Folder of the table; None makes one in ./reports named after the recipe."""
    jobs: int = 1
    """Trainings at once."""
    threads: int | None = None
    """CPU threads of each; None shares the cores among the jobs."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""

    def __post_init__(self) -> None:
        for dataset in self.datasets:
            check_dataset(dataset)
        check_choice(self, "grid", ("256", "native"))
        check_device(self.device)
        check_at_least(self, 1, ("folds", "jobs", "threads"))
        check_filled(self, ("recipe", "encoder", "cache"))
        if self.stain is not None:
            check_choice(self, "stain", STAINS)
        for seed in self.seeds:
            check_seed(seed)
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.datasets)) < len(self.datasets):
            raise ConfigError("A table takes each seed and each data set once.")

    @property
    def folder(self) -> Path:
        """Where the table is written."""
        name = self.recipe.rpartition("/")[2].removesuffix(".toml") + ("-quick" if self.quick else "")
        return self.out if self.out is not None else Path("reports") / name
