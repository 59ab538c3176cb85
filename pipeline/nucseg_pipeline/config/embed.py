"""Configuration of stage one, `embed`."""

from dataclasses import dataclass, field
from pathlib import Path

from nucseg.errors import ConfigError, suggestion
from nucseg_pipeline.config.checks import check_at_least, check_dataset, check_device, check_filled
from nucseg_pipeline.config.fields import convert_fields
from nucseg_pipeline.config.places import default_cache


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What stage one needs to turn a data set into cached embeddings."""

    dataset: str
    """nuinsseg, cryonuseg, conic, dsb2018, synthetic, or a name of your choice for a folder of images/ and masks/. Also
    the name of its store. DATASET@STAIN stands for --dataset DATASET --stain STAIN."""
    source: Path | None = None
    """Folder of the data set. Default: where the store was made from, $NUCSEG_DATA/DATASET or ./data/DATASET."""
    encoder: str = "vit_b"
    """vit_b, vit_l, vit_h, student (small, comes with the package), student:FILE, onnx:FILE, random, or none to store
    images and masks only."""
    weights: Path | None = None
    """Checkpoint of the encoder. Default: looked for in $NUCSEG_WEIGHTS and the user's cache folder."""
    format: str = "f16"
    """Storage format of the embeddings: f16, f32 (exact), i8 (half the size of f16) or i6 (a third)."""
    views: str = "identity"
    """Further views of each image to embed: identity (none), d4 (the seven other orientations), crops, glass (a
    part is covered by glass or black), or the variants of a view recipe: stain, papers, laboratories or a file."""
    view_images: int | None = None
    """Number of images to embed these views of, chosen by their ids; 16 are enough for train --replay learned.
    Default: all images."""
    stain: str | None = None
    """Stain normalisation of the images before anything else: none, white (only brings glass to white), macenko or
    reinhard. The store is then called DATASET@STAIN. Default: as in the data set's name."""
    convert: str | None = None
    """How images that are not 8-bit RGB or gray are read: none refuses them; full-range maps the range of the integers'
    type, and floats from 0 to 1, to 8 bits, and CMYK to RGB. Recorded in the store and applied by predict, too.
    Default: as in the store, else none."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    precision: str = "auto"
    """Number format of the encoder's arithmetic: float32, bfloat16, float16, or auto (bfloat16 on CUDA, float32
    elsewhere)."""
    batch_size: int | None = None
    """Images per batch. Default: chosen by device and free memory."""
    threads: int | None = None
    """CPU threads, per worker where there are several. Default: chosen by PyTorch."""
    workers: int | None = None
    """Encode in this many processes on this machine, each with its own GPU or share of the cores. Default: none, this
    process encodes."""
    scheduler: str | None = None
    """Encode on a Dask cluster, given by the address of its scheduler (tcp://HOST:PORT, tls://...) or a scheduler file.
    Default: none, this machine encodes."""
    limit: int | None = None
    """Embed only this many images, the first ones. Default: all images."""
    cache: str = field(default_factory=default_cache)
    """Folder or URL of the cache. Default: $NUCSEG_CACHE, or nucseg in the user's cache folder."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_dataset(self.dataset)
        dataset, stain = _with_stain(self.dataset, self.stain)
        object.__setattr__(self, "dataset", dataset)
        object.__setattr__(self, "stain", stain)
        if self.convert is not None:
            from nucseg.data.conversion import check_conversion  # loads numpy, which help does without

            check_conversion(self.convert)
        check_device(self.device)
        check_at_least(self, 1, ("batch_size", "threads", "limit", "view_images", "workers"))
        check_filled(self, ("encoder", "format", "precision", "views", "cache", "scheduler"))
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError(
                "workers starts processes on this machine and scheduler names a cluster elsewhere: give only one of "
                "them. The number of workers of a cluster is set where the cluster is started."
            )
        if self.encoder == "none" and self.views != "identity":
            raise ConfigError(
                f"views {self.views} are to be embedded, but encoder none embeds nothing. Name an encoder, or leave "
                "out views."
            )


def _with_stain(dataset: str, stain: str | None) -> tuple[str, str]:
    """The data set's name with the stain, and the stain, from what either of them says."""
    # loads numpy, which the command line's help does without
    from nucseg.data import STAINS, dataset_names
    from nucseg.data.official_splits import plain_name, stain_of

    plain, named = plain_name(dataset), stain_of(dataset)
    before, at, last = plain.rpartition("@")
    if at and (last in STAINS or before in dataset_names() or suggestion(last, STAINS)):
        names = [f"{before}@{stain}" for stain in STAINS[1:]]
        raise ConfigError(
            f"What follows the @ in dataset {dataset!r} must be one stain normalisation: {', '.join(names[:-1])} or "
            f"{names[-1]}; {before} alone is not normalised. {suggestion(dataset, names)}".rstrip()
        )
    wanted = named if stain is None else stain
    if wanted not in STAINS:
        near = suggestion(stain, STAINS)
        raise ConfigError(f"stain must be {', '.join(STAINS[:-1])} or {STAINS[-1]}, got {stain!r}. {near}".rstrip())
    if named not in ("none", wanted):
        raise ConfigError(
            f"dataset {dataset} asks for the stain {named}, but stain is {wanted}. Use --dataset {plain} "
            f"--stain {wanted}, or --dataset {dataset} without --stain."
        )
    return (plain if wanted == "none" else f"{plain}@{wanted}"), wanted
