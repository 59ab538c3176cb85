"""What each stage is told to do: one frozen dataclass a stage, checked when it is made."""

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from nucseg.data import STAINS, dataset_names
from nucseg.data.official import plain_name, stain_of
from nucseg.errors import ConfigError

GEOMETRIES = ("none", "d4", "papers")
"""The augmentations that come with the package (`nucseg.replay.geometry_names`)."""


def default_cache() -> str:
    """Where stores lie unless told otherwise: $NUCSEG_CACHE, or the user's cache directory."""
    return os.environ.get("NUCSEG_CACHE") or platformdirs.user_cache_dir("nucseg")


def store_location(cache: str, dataset: str) -> str:
    """The store of one data set inside a cache, which may be a folder or a URL."""
    return f"{cache.rstrip('/')}/{dataset}.zarr"


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What stage one needs to turn a data set into cached embeddings."""

    dataset: str
    """Name of the data set, with `@` and the stain where it is normalised; also the name of its store."""
    source: Path | None = None
    """Folder the data set lies in; None takes the one that the store remembers."""
    encoder: str = "vit_b"
    """vit_b, vit_l, vit_h, onnx:FILE, random, or none for images and masks alone."""
    weights: Path | None = None
    """Checkpoint of the encoder; None looks in the known places."""
    format: str = "f16"
    """How an embedding is stored."""
    views: str = "identity"
    """What is embedded beside each image as it is: identity (nothing), d4 (its seven other orientations), or the name
    or file of a photometric recipe (its variants)."""
    view_images: int | None = None
    """Of how many images views are made, drawn by their ids; None makes them of all."""
    stain: str | None = None
    """Stain normalisation before anything else: none, macenko or reinhard; None takes what the name says."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    precision: str = "auto"
    """Number format of the encoder's arithmetic."""
    batch_size: int | None = None
    """Images a batch; None lets the encoder choose."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    limit: int | None = None
    """Stop after the first so many images; None takes all."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""

    def __post_init__(self) -> None:
        _check_dataset(self.dataset)
        dataset, stain = _with_stain(self.dataset, self.stain)
        object.__setattr__(self, "dataset", dataset)
        object.__setattr__(self, "stain", stain)
        _check_device(self.device)
        _check_at_least(self, 1, ("batch_size", "threads", "limit", "view_images"))
        _check_filled(self, ("encoder", "format", "precision", "views", "cache"))
        if self.encoder == "none" and self.views != "identity":
            raise ConfigError(
                f"views {self.views} are to be embedded, and encoder none embeds nothing. Name an encoder, or leave "
                "the views out."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What stage two needs to turn a store into a trained run."""

    dataset: str
    """Name of the data set, that is of its store in the cache."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""
    encoder: str = "vit_b"
    """Whose embeddings guide: vit_b, vit_l, vit_h, onnx:FILE or random. Unused with fusion none."""
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
    affine or elastic one), none, or a file of transforms, see `nucseg.replay.geometry`."""
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
    """Whether rows stay in memory: on, off, or auto (on when they fit in half of what is free)."""
    run: Path | None = None
    """Folder of the run; None makes one in ./runs named after what is trained."""
    resume: bool = False
    """Continue a run that was interrupted."""

    def __post_init__(self) -> None:
        _check_dataset(self.dataset)
        object.__setattr__(self, "augmentation", _augmentation(self.augmentation))
        _check_choice(self, "replay", ("corrected", "learned", "plain", "none"))
        _check_views(self)
        _check_choice(self, "schedule", ("constant", "cosine"))
        _check_choice(self, "mixed_precision", ("no", "bf16", "fp16"))
        _check_choice(self, "preload", ("auto", "on", "off"))
        _check_device(self.device)
        _check_at_least(self, 1, ("width", "epochs", "epoch_images", "validation_images", "batch_size", "threads"))
        _check_at_least(self, 0, ("fold",))
        _check_seed(self.seed)
        _check_filled(self, ("encoder", "precision", "format", "model", "fusion", "split", "cache"))
        _check_filled(self, ("activation", "instance_head"))
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
    """Seed of the bootstrap and of the overlays drawn by chance."""
    n_resamples: int = 10_000
    """Bootstrap resamples behind an interval."""
    n_overlays: int = 8
    """How many images are shown with their outlines."""
    cache: str | None = None
    """Where the stores are now, if they were moved; None takes the places the runs were trained from."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("A report needs at least one run. Name the folder of a trained run, as in runs/NAME.")
        folders = [run.resolve() for run in self.runs]
        doubled = sorted({str(run) for run in self.runs if folders.count(run.resolve()) > 1})
        if doubled:
            raise ConfigError(f"A run can be reported only once, but {', '.join(doubled)} is named twice.")
        _check_names(self.names, self.runs)
        for dataset in self.datasets:
            _check_dataset(dataset)
        if len(set(self.datasets)) < len(self.datasets):
            raise ConfigError(f"Each data set is scored once, got {', '.join(self.datasets)}.")
        _check_choice(self, "grid", ("256", "native"))
        if self.source is not None and (self.grid != "native" or len(self.datasets) > 1):
            raise ConfigError(
                "source is the folder that native masks of one data set are read from: it goes with grid native and at "
                f"most one data set, got grid {self.grid} and {len(self.datasets)} data sets."
            )
        _check_at_least(self, 0, ("n_overlays",))
        _check_seed(self.seed)
        _check_at_least(self, 1, ("n_resamples",))


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
        _check_names(self.names, self.runs)
        if len(set(self.images)) < len(self.images):
            raise ConfigError(f"Each image is shown once, got {', '.join(self.images)}.")
        _check_at_least(self, 1, ("n_images",))
        _check_choice(self, "format", ("png", "pdf", "svg"))
        if self.dataset is not None:
            _check_dataset(self.dataset)
        _check_device(self.device)


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
            _check_dataset(dataset)
        _check_choice(self, "grid", ("256", "native"))
        _check_device(self.device)
        _check_at_least(self, 1, ("folds", "jobs", "threads"))
        _check_filled(self, ("recipe", "encoder", "cache"))
        if self.stain is not None:
            _check_choice(self, "stain", STAINS)
        for seed in self.seeds:
            _check_seed(seed)
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.datasets)) < len(self.datasets):
            raise ConfigError("A table takes each seed and each data set once.")

    @property
    def folder(self) -> Path:
        """Where the table is written."""
        name = self.recipe.rpartition("/")[2].removesuffix(".toml") + ("-quick" if self.quick else "")
        return self.out if self.out is not None else Path("reports") / name


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
    """The encoder of the embeddings: vit_b, vit_l, vit_h, onnx:FILE or random."""
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
    """Names of motions, or files of transforms; empty takes those of `nucseg_pipeline.measuring.moves`."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    out: Path | None = None
    """Folder of the result; None makes one in ./fidelity named after the data set."""

    def __post_init__(self) -> None:
        _check_dataset(self.dataset)
        _check_device(self.device)
        _check_at_least(self, 2, ("images",))
        _check_at_least(self, 1, ("threads",))
        _check_at_least(self, 0, ("fold", "calibration_images"))
        _check_seed(self.seed)
        _check_filled(self, ("encoder", "precision", "format", "split", "cache"))
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


def _check_names(names: tuple[str, ...], runs: tuple[Path, ...]) -> None:
    if names and (len(names) != len(runs) or len(set(names)) < len(names)):
        raise ConfigError(f"Every run has a name of its own: got {len(runs)} runs and the names {', '.join(names)}.")


def _check_dataset(name: str) -> None:
    """A data set's name becomes a file name, so it must not wander through folders."""
    if not re.fullmatch(r"\w[\w.@+-]*", name):
        raise ConfigError(
            f"dataset must be a name of letters, digits and . _ @ + -, got {name!r}. "
            "A folder goes with --source, its name in the cache with --dataset."
        )


def _with_stain(dataset: str, stain: str | None) -> tuple[str, str]:
    """The data set's name with the stain, and the stain, from what either of them says."""
    plain, named = plain_name(dataset), stain_of(dataset)
    before, at, last = plain.rpartition("@")
    if at and (last in STAINS or before in dataset_names()):
        raise ConfigError(
            f"What follows the @ in dataset {dataset!r} is one way to normalise its stain: "
            f"{' or '.join(f'{before}@{known}' for known in STAINS[1:])}; {before} alone is not normalised."
        )
    wanted = named if stain is None else stain
    if wanted not in STAINS:
        raise ConfigError(f"stain must be {', '.join(STAINS[:-1])} or {STAINS[-1]}, got {stain!r}.")
    if named not in ("none", wanted):
        raise ConfigError(
            f"dataset {dataset} asks for the stain {named}, and stain is {wanted}. Take --dataset {plain} "
            f"--stain {wanted}, or --dataset {dataset} without --stain."
        )
    return (plain if wanted == "none" else f"{plain}@{wanted}"), wanted


def _augmentation(name: str) -> str:
    """An augmentation as it is written down: its name, or what stands in its file."""
    if name in GEOMETRIES:
        return name
    from nucseg.replay import Geometry  # loads torch and albumentations, which what comes with the package need not

    return Geometry.named(name).text


def _check_views(config: TrainConfig) -> None:
    if config.views == "identity":
        return
    if not re.fullmatch(r"\w[\w-]*", config.views):
        raise ConfigError(f"views must be identity, d4 or the name of a photometric recipe, got {config.views!r}.")
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


def _check_device(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"device must be auto, cpu, mps, cuda or cuda:N, got {name!r}.")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be at least 0 and below 2**32, got {seed}.")


def _check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, got {value!r}.")


def _check_at_least(config: Any, minimum: int, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}.")


def _check_filled(config: Any, names: Iterable[str]) -> None:
    for name in names:
        if getattr(config, name) == "":
            raise ConfigError(f"{name} is empty. Leave it out to take the default.")
