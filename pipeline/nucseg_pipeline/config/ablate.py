"""Configuration of `ablate`."""

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
from nucseg_pipeline.config.fields import convert_fields
from nucseg_pipeline.config.places import default_cache
from nucseg_pipeline.config.report import GRIDS


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What is needed to make a table of the papers, or one of your own, from the cache."""

    recipe: str
    """Name or file of a table's recipe: models, activations, fusion, encoders, formats, instances, replay,
    student-guidance."""
    quick: bool = False
    """Train small networks on one fold, at most 4 minutes each on two cores unless a row says otherwise."""
    datasets: tuple[str, ...] = ()
    """Data sets of the table. Default: those of the recipe."""
    stain: str | None = None
    """Stain normalisation of the rows that name none: none, white, macenko or reinhard. Default: none."""
    encoder: str | None = None
    """Encoder of the rows that name none: vit_b, vit_l, vit_h, student or onnx:FILE. Default: vit_b."""
    weights: Path | None = None
    """Checkpoint of that encoder. Default: looked for in $NUCSEG_WEIGHTS and the user's cache folder."""
    folds: int | None = None
    """Number of folds of each data set's protocol, the first ones. Default: as in the recipe; 1 with --quick."""
    seeds: tuple[int, ...] = ()
    """Seeds to train each row with. Default: those of the recipe."""
    grid: str = "256"
    """Grid of the metrics: 256 (the prepared images), native (the data set's own masks at their size) or tiles (these
    masks; the original images are predicted by tiles, as predict does)."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL of the cache. Default: $NUCSEG_CACHE, or nucseg in the user's cache folder."""
    runs: Path = Path("runs")
    """Folder of the runs; tables share the runs of the same configuration in it."""
    out: Path | None = None
    """Folder of the table. Default: reports/RECIPE."""
    jobs: int = 1
    """Number of trainings that run at the same time and share the cores."""
    threads: int | None = None
    """CPU threads of each training. Default: its share of the cores."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""

    def __post_init__(self) -> None:
        convert_fields(self)
        for dataset in self.datasets:
            check_dataset(dataset)
        check_choice(self, "grid", GRIDS)
        check_device(self.device)
        check_at_least(self, 1, ("folds", "jobs", "threads"))
        check_filled(self, ("recipe", "encoder", "cache"))
        if self.stain is not None:
            from nucseg.data import STAINS  # loads numpy, which the command line's help does without

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
