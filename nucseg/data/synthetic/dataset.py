"""The synthetic data set: its images and their digests."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucseg.data.release import Release
from nucseg.data.sample import DataSet, Entry, Sample
from nucseg.data.synthetic.drawing import draw
from nucseg.data.synthetic.tissues import TISSUES, Slide
from nucseg.errors import ConfigError

RELEASE = Release(
    name="synthetic",
    title="Synthetic images",
    contents="drawings of six tissues with overlapping nuclei, stain variation and blur, 512 x 512 px",
    n_images=60,
    licence="none needed, drawn by nucseg",
    home="",
    download_gb=None,
    layout=("nothing: images are generated when they are read, always the same",),
    instructions=("There is nothing to download; leave out --source.",),
)

_MPP = 0.25
"""Nuclei are drawn at this resolution, that of a 40x objective."""


@dataclass(frozen=True, kw_only=True)
class SyntheticEntry(Entry):
    """An image that is drawn when it is read, always the same."""

    seed: int
    tissue: int
    """Index into TISSUES."""
    slide: int
    """Index of the slide among those of the tissue."""
    number: int
    """Index of the image among those of the tissue."""
    side_px: int

    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the drawing, which has to be drawn for this."""
        return self.read()[1:]

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Draw the image."""
        sample, image_digest, _ = self.read()
        return sample.image, image_digest

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Draw. Digests cover the parameters and the pixels, so that they change with either."""
        tissue = TISSUES[self.tissue]
        slide = Slide.drawn(np.random.default_rng((self.seed, self.tissue, self.slide)))
        rng = np.random.default_rng((self.seed, self.tissue, self.slide, self.number))
        image, canvas = draw(tissue, slide, self.side_px, rng)
        sample = self._sample(image, canvas.instances, canvas.ignore)
        return sample, self._digest(image), self._digest(canvas.instances, canvas.ignore)

    def _digest(self, *arrays: npt.NDArray[np.generic]) -> bytes:
        digest = hashlib.sha256(repr(self).encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).data)
        return digest.digest()


def synthetic_dataset(n_images: int = 60, *, side_px: int = 512, seed: int = 0) -> DataSet:
    """Six tissues in turn, each from two or three slides; more images do not change the first ones.

    Raises ConfigError for less than one image, a side of less than 64 pixels or a negative seed.
    """
    if n_images < 1 or side_px < 64 or seed < 0:
        raise ConfigError(
            "Synthetic images: expected at least 1 image, a side of at least 64 pixels and a seed of at least 0, "
            f"got n_images={n_images}, side_px={side_px}, seed={seed}."
        )
    return DataSet(
        name="synthetic",
        source="",
        entries=tuple(_entry(index, side_px, seed) for index in range(n_images)),
        notes=(f"Synthetic: {n_images} drawings of {side_px} x {side_px} pixels, seed {seed}; no real tissue.",),
    )


def _entry(index: int, side_px: int, seed: int) -> SyntheticEntry:
    number, tissue = divmod(index, len(TISSUES))
    slide = number % (3 if tissue % 2 == 0 else 2)
    name = TISSUES[tissue].name
    return SyntheticEntry(
        id=f"{name}/{number:04d}",
        group=f"{name}/slide {slide + 1}",
        stratum=name,
        mpp=_MPP,
        seed=seed,
        tissue=tissue,
        slide=slide,
        number=number,
        side_px=side_px,
    )
