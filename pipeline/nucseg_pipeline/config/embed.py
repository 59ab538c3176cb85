"""What stage one is told to do."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.data import STAINS, dataset_names
from nucseg.data.official_splits import plain_name, stain_of
from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_dataset, check_device, check_filled
from nucseg_pipeline.config.places import default_cache


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What stage one needs to turn a data set into cached embeddings."""

    dataset: str
    """Name of the data set, with `@` and the stain where it is normalised; also the name of its store."""
    source: Path | None = None
    """Folder the data set lies in; None takes the one that the store remembers."""
    encoder: str = "vit_b"
    """vit_b, vit_l, vit_h, student, student:FILE, onnx:FILE, random, or none for images and masks alone."""
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
    workers: int | None = None
    """Processes on this machine that encode, each with its own GPU or share of the cores; None encodes in this one."""
    scheduler: str | None = None
    """Address or scheduler file of a Dask cluster whose workers encode; None leaves it to this machine."""
    limit: int | None = None
    """Stop after the first so many images; None takes all."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL that holds the stores."""

    def __post_init__(self) -> None:
        check_dataset(self.dataset)
        dataset, stain = _with_stain(self.dataset, self.stain)
        object.__setattr__(self, "dataset", dataset)
        object.__setattr__(self, "stain", stain)
        check_device(self.device)
        check_at_least(self, 1, ("batch_size", "threads", "limit", "view_images", "workers"))
        check_filled(self, ("encoder", "format", "precision", "views", "cache", "scheduler"))
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError(
                "workers are processes on this machine, and scheduler is a cluster elsewhere: ask for one of them. How "
                "many workers a cluster has is said where it is started."
            )
        if self.encoder == "none" and self.views != "identity":
            raise ConfigError(
                f"views {self.views} are to be embedded, and encoder none embeds nothing. Name an encoder, or leave "
                "the views out."
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
