"""What can be fetched: the address, size and digest of each data set and of the weights, or the steps by hand.

Digests are those that the publisher states or that micro-sam pins; where there is none, none is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nucseg.data import Release, release_named
from nucseg.encoders.architectures import ARCHITECTURES
from nucseg.encoders.weights import weights_folders
from nucseg.errors import ConfigError, known
from nucseg.paths import home_expanded
from nucseg_pipeline.datasets.locate import FOLDER, SYNTHETIC, known_places

_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Item:
    """A data set or weights that can be fetched."""

    name: str
    """As on the command line."""
    title: str
    licence: str
    file_name: str
    """The publisher's name of the file, or of the files that the user has downloaded by hand."""
    url: str = ""
    """Address of the file; empty if a record states it, or an account is needed."""
    record: str = ""
    """API address of the Zenodo record that states the file's address and digest; empty if there is none."""
    digest: str = ""
    """Of the file, `algorithm:hexadecimal`; empty if none is known beforehand."""
    about_bytes: int = 0
    """Approximate size of the file, for display only."""
    steps: tuple[str, ...] = ()
    """What the user has to do, if an account is needed."""
    release: Release | None = None
    """The published data set; None for weights."""
    max_unpacked_bytes: int = 0
    """An archive that would unpack to more is not the published one."""

    @property
    def needs_account(self) -> bool:
        """Whether the user has to download it by hand."""
        return not (self.url or self.record)

    @property
    def address(self) -> str:
        """Where the user can download it."""
        return self.url or (self.release.home if self.release else "")

    @property
    def target(self) -> Path:
        """Where it is put: the first place in which the stages look for it."""
        return self._places[0]

    def find(self) -> Path | None:
        """Where the stages find it now, not verified; None if they find nothing or an empty folder."""
        first = next((place for place in self._places if place.exists()), None)
        return None if first is None or _is_empty_folder(first) else first

    @property
    def _places(self) -> list[Path]:
        """Where the stages look for it, in their order."""
        if self.release is not None:
            return [home_expanded(place).absolute() for place in known_places(self.name)]
        return [folder.absolute() / self.file_name for folder in weights_folders()]


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _dataset(name: str, **more: object) -> Item:
    release = release_named(name)
    return Item(name=name, title=release.title, licence=release.licence, release=release, **more)  # type: ignore[arg-type]


def _weights(name: str, title: str, about_bytes: int) -> Item:
    published = ARCHITECTURES[name]
    return Item(
        name=name,
        title=title,
        licence="Apache-2.0",
        file_name=published.file_name,
        url=published.url,
        digest=f"xxh128:{published.file_digest}",
        about_bytes=about_bytes,
    )


CATALOGUE: dict[str, Item] = {
    item.name: item
    for item in (
        _dataset(
            "nuinsseg",
            file_name="NuInsSeg.zip",
            record="https://zenodo.org/api/records/10518968",
            about_bytes=int(1.6 * _GB),
            max_unpacked_bytes=30 * _GB,
        ),
        _dataset(
            "cryonuseg",
            file_name="archive.zip",
            steps=(
                "Log in at https://www.kaggle.com (free account) and open {address}",
                "Press Download, and do not unpack the .zip.",
                "Run `nucseg fetch cryonuseg --from archive.zip` (the file as your browser named it), which checks it "
                "and unpacks it to {target}",
            ),
            max_unpacked_bytes=10 * _GB,
        ),
        _dataset(
            "conic",
            file_name="images.npy, labels.npy, patch_info.csv",
            steps=(
                "Join the challenge at {address} (free account) and open its page Data.",
                "Download the training patches: images.npy, labels.npy and patch_info.csv, in one folder or one .zip.",
                "Run `nucseg fetch conic --from FOLDER` (or the .zip), which checks them and puts them in {target}",
            ),
            max_unpacked_bytes=10 * _GB,
        ),
        _dataset(
            "dsb2018",
            file_name="stage1_train.zip",
            url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
            about_bytes=int(0.08 * _GB),
            max_unpacked_bytes=2 * _GB,
        ),
        _weights("vit_b", "SAM ViT-B (Kirillov et al. 2023)", 375 * 10**6),
        _weights("vit_l", "SAM ViT-L (Kirillov et al. 2023)", 1250 * 10**6),
        _weights("vit_h", "SAM ViT-H (Kirillov et al. 2023)", 2565 * 10**6),
    )
}
"""By name, in the order of display."""


def item_named(name: str) -> Item:
    """The item of that name. Raises ConfigError for any other name."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name == SYNTHETIC:
        raise ConfigError("The data set synthetic is generated, not fetched: `nucseg embed --dataset synthetic`.")
    if name == FOLDER:
        raise ConfigError("A folder of your own is not fetched. Name it: `nucseg embed --dataset MINE --source DIR`.")
    raise ConfigError(f"Nothing that can be fetched is called {name!r}. {known(name, CATALOGUE)}")
