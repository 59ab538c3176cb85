"""What can be fetched: from where, how large, held against what; and the steps where an account is needed.

Digests are those that its publisher, or who pinned it, states; where there is none, none is given.
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

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that can be fetched."""

    name: str
    """What the command line calls it."""
    title: str
    licence: str
    file_name: str
    """What is downloaded, as its publisher calls it; of what needs an account, what a person has then."""
    url: str = ""
    """Address of the file; empty where a record tells it, or an account is needed."""
    record: str = ""
    """Address of the Zenodo record that tells the file's address, size and digest; empty where there is none."""
    digest: str = ""
    """Of the file, `algorithm:hexadecimal`; empty where none is known beforehand."""
    digest_from: str = ""
    """Who states the digest."""
    about_bytes: int = 0
    """Size of the file as far as it is known before a server tells it; shown, and never relied on."""
    steps: tuple[str, ...] = ()
    """What a person has to do, where it cannot be downloaded without an account."""
    release: Release | None = None
    """Of a data set; None for weights."""
    most_unpacked_bytes: int = 0
    """More than this is not in the archive of that data set."""

    @property
    def by_hand(self) -> bool:
        """Whether a person has to download it."""
        return not (self.url or self.record)

    @property
    def address(self) -> str:
        """Where a person can download it."""
        return self.url or (self.release.home if self.release else "")

    @property
    def target(self) -> Path:
        """Where it is put: the first place in which the stages look for it."""
        return self._places[0]

    @property
    def _places(self) -> list[Path]:
        """Where the stages look for it, in their order."""
        if self.release is not None:
            return [home_expanded(place).absolute() for place in known_places(self.name)]
        return [folder.absolute() / self.file_name for folder in weights_folders()]

    def find(self) -> Path | None:
        """Where the stages find it now; not checked. None where they do not, or find an empty folder."""
        first = next((place for place in self._places if place.exists()), None)
        return None if first is None or _is_empty_folder(first) else first


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
        digest_from="as pinned by micro-sam",
        about_bytes=about_bytes,
    )


CATALOGUE: dict[str, Item] = {
    item.name: item
    for item in (
        _dataset(
            "nuinsseg",
            file_name="NuInsSeg.zip",
            record="https://zenodo.org/api/records/10518968",
            about_bytes=int(1.6 * GB),
            most_unpacked_bytes=30 * GB,
        ),
        _dataset(
            "cryonuseg",
            file_name="archive.zip",
            steps=(
                "Log in at https://www.kaggle.com (free account) and open {address}",
                "Press Download, and leave the .zip packed.",
                "Run `nucseg fetch cryonuseg --from archive.zip` (the file as your browser named it), which checks it "
                "and unpacks it to {target}",
            ),
            most_unpacked_bytes=10 * GB,
        ),
        _dataset(
            "conic",
            file_name="images.npy, labels.npy, patch_info.csv",
            steps=(
                "Join the challenge at {address} (free account) and open its page Data.",
                "Download the training patches: images.npy, labels.npy and patch_info.csv, in one folder or one .zip.",
                "Run `nucseg fetch conic --from FOLDER` (or the .zip), which checks them and puts them in {target}",
            ),
            most_unpacked_bytes=10 * GB,
        ),
        _dataset(
            "dsb2018",
            file_name="stage1_train.zip",
            url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
            about_bytes=int(0.08 * GB),
            most_unpacked_bytes=2 * GB,
        ),
        _weights("vit_b", "SAM ViT-B (Kirillov et al. 2023)", 375 * 10**6),
        _weights("vit_l", "SAM ViT-L (Kirillov et al. 2023)", 1250 * 10**6),
        _weights("vit_h", "SAM ViT-H (Kirillov et al. 2023)", 2565 * 10**6),
    )
}
"""By name, in the order in which they are shown."""


def item_named(name: str) -> Item:
    """One thing that can be fetched. Raises ConfigError for another name, with the way out."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name == SYNTHETIC:
        raise ConfigError("The data set synthetic is drawn, not fetched: `nucseg embed --dataset synthetic`.")
    if name == FOLDER:
        raise ConfigError("A folder of your own is not fetched: name it, `nucseg embed --dataset MINE --source DIR`.")
    raise ConfigError(f"Nothing that can be fetched is called {name!r}. {known(name, CATALOGUE)}")
