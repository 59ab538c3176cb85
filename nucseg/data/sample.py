"""What every data set is turned into: samples, entries that read them, and the data set that lists the entries."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucseg.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One image with its nuclei, at native size.

    Shapes:
        image      (H, W, 3)  uint8, RGB
        instances  (H, W)     int32, 0 = background, every other value one nucleus
        ignore     (H, W)     bool, True where nobody can tell: in no loss and in no metric
    """

    id: str
    """Stable and unique within the data set."""
    group: str
    """Patient, slide or source image: what a grouped split keeps together."""
    stratum: str
    """Organ or cohort: what a stratified split spreads evenly."""
    mpp: float | None
    """Microns a pixel, None where the data set does not say."""
    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Entry(ABC):
    """One image of a data set that is known by name and read on demand.

    Digests are the 32 bytes of a SHA-256 over contents, never over names or times. Every method raises DataError,
    naming the file, where something cannot be read or decoded.
    """

    id: str
    group: str
    stratum: str
    mpp: float | None = None

    @abstractmethod
    def digests(self) -> tuple[bytes, bytes]:
        """Digest of the image and of its masks, without decoding them."""

    @abstractmethod
    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Image (H, W, 3) and the digest of the very bytes that were decoded."""

    @abstractmethod
    def read(self) -> tuple[Sample, bytes, bytes]:
        """Sample, image digest and mask digest, both of the very bytes that were decoded."""


@dataclass(frozen=True)
class DataSet:
    """Entries in the order that the data set's protocol counts them in; nothing is decoded until it is read."""

    name: str
    source: str
    """Absolute folder it was found in; empty where it is drawn, not read."""
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    """What a reader of a report on this data set has to know."""
    n_left_out: int = 0
    """Images that were found and are not used; the notes say why."""

    def __post_init__(self) -> None:
        if not self.entries:
            raise DataError(
                f"The data set {self.name} has no images{f' in {self.source}' if self.source else ''}. Put some there."
            )
        repeated = [id_ for id_, count in Counter(entry.id for entry in self.entries).items() if count > 1]
        if repeated:
            raise DataError(
                f"{len(repeated)} ids of the data set {self.name} stand for more than one image, the first is "
                f"{repeated[0]!r}. Ids are made of folder and file name: rename one of the files."
            )
