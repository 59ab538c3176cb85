"""The common form of all data sets: samples, entries that read them, and the data set that lists the entries."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nucseg.data.masks import MaskFacts
from nucseg.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One image with its nuclei, at native size.

    Shapes:
        image      (H, W, 3)  uint8, RGB
        instances  (H, W)     int32, 0 = background, every other value one nucleus
        ignore     (H, W)     bool, True where the truth is unknown: excluded from losses and metrics
    """

    id: str
    """Stable and unique within the data set."""
    group: str
    """Patient, slide or source image; grouped splits keep a group together."""
    stratum: str
    """Organ or cohort; stratified splits spread a stratum evenly."""
    mpp: float | None
    """Microns per pixel; None if the data set does not give it."""
    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    mask_facts: MaskFacts = field(default_factory=MaskFacts)
    """What was found in the mask; not stored."""


@dataclass(frozen=True, kw_only=True)
class Entry(ABC):
    """One image of a data set, read on demand.

    Digests are 32 bytes of SHA-256 over contents, never over names or times. Every method raises DataError, with the
    name of the file, if something cannot be read or decoded.
    """

    id: str
    group: str
    stratum: str
    mpp: float | None = None

    @abstractmethod
    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the image and of its masks, without decoding them."""

    @abstractmethod
    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Image (H, W, 3) and the digest of exactly the bytes that were decoded."""

    @abstractmethod
    def read(self) -> tuple[Sample, bytes, bytes]:
        """Sample, image digest and mask digest, both of exactly the bytes that were decoded."""

    def read_mask_facts(self) -> MaskFacts:
        """What was found in the masks; quicker than `read` where the image need not be decoded for this."""
        return self.read()[0].mask_facts

    def _sample(
        self,
        image: npt.NDArray[np.uint8],
        instances: npt.NDArray[np.int32],
        ignore: npt.NDArray[np.bool_],
        mask_facts: MaskFacts | None = None,
    ) -> Sample:
        return Sample(
            id=self.id,
            group=self.group,
            stratum=self.stratum,
            mpp=self.mpp,
            image=image,
            instances=instances,
            ignore=ignore,
            mask_facts=mask_facts or MaskFacts(),
        )


@dataclass(frozen=True)
class DataSet:
    """Entries in the order that the data set's split protocol assumes; nothing is decoded until it is read."""

    name: str
    source: str
    """Absolute path of its folder; empty if it is generated."""
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    """Remarks for the readers of a report."""
    n_left_out: int = 0
    """Images that were found but are not used; the notes say why."""

    def __post_init__(self) -> None:
        if not self.entries:
            raise DataError(
                f"The data set {self.name} has no images{f' in {self.source}' if self.source else ''}. Add some."
            )
        repeated = [id_ for id_, count in Counter(entry.id for entry in self.entries).items() if count > 1]
        if repeated:
            raise DataError(
                f"{len(repeated)} ids of the data set {self.name} belong to more than one image; the first is "
                f"{repeated[0]!r}. Ids consist of folder and file name: rename one of the files."
            )
