"""Data sets of image and mask files: decode them, and compute their digests."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.files import file_bytes, file_digest
from nucseg.data.images import decode_image, decode_values, image_size
from nucseg.data.masks import Labels, MaskFacts, instances_from
from nucseg.data.outlines import has_outlines, instances_from_outlines
from nucseg.data.sample import Entry, Sample
from nucseg.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ImageFileEntry(Entry):
    """An image file with one or more mask files, which a subclass combines."""

    image_file: Path
    convert: str = "none"
    """How images of more than 8 bits are read, see `conversion`."""

    @abstractmethod
    def _mask_files(self) -> tuple[Path, ...]:
        """At least one mask file, in a fixed order."""

    @abstractmethod
    def _combined(self, contents: Sequence[bytes], size: tuple[int, int]) -> Labels:
        """Decode and combine the contents of the mask files, to instances and ignore of `size` (H, W)."""

    def _mask_contents(self) -> list[bytes]:
        return [file_bytes(file) for file in self._mask_files()]

    def _mask_digests(self) -> list[bytes]:
        return [file_digest(file) for file in self._mask_files()]

    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the image file and of the mask files, see `mask_digest`."""
        return file_digest(self.image_file), mask_digest(self._mask_digests())

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Decode the image file."""
        data = file_bytes(self.image_file)
        return decode_image(data, self.image_file, self.convert), hashlib.sha256(data).digest()

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Decode all files. Raises DataError if a mask and the image differ in size."""
        image, image_digest = self.read_image()
        contents = self._mask_contents()
        labels = self._combined(contents, (image.shape[0], image.shape[1]))
        sample = self._sample(image, labels.instances, labels.ignore, labels.facts)
        return sample, image_digest, mask_digest([hashlib.sha256(content).digest() for content in contents])

    def read_mask_facts(self) -> MaskFacts:
        """Decode the masks, and of the image only the header."""
        size = image_size(file_bytes(self.image_file), self.image_file)
        return self._combined(self._mask_contents(), size).facts

    def _decode_mask(self, data: bytes, file: Path, size: tuple[int, int]) -> npt.NDArray[Any]:
        values = decode_values(data, file)
        if values.shape != size:
            (mask_h, mask_w), (image_h, image_w) = values.shape, size
            raise DataError(
                f"{file} is {mask_w} x {mask_h} pixels, but its image {self.image_file} is {image_w} x {image_h}. "
                "They must have the same size: replace the wrong file."
            )
        return values


@dataclass(frozen=True, kw_only=True)
class FileEntry(ImageFileEntry):
    """An image file, its instance file and, optionally, the file of its ignored area."""

    instances_file: Path
    """A mask of the image's size, or outlines in GeoJSON or COCO JSON."""
    ignore_file: Path | None = None
    """A mask of the image's size, of which everything but 0 is ignored, or outlines."""
    instance_map: bool = False
    """Whether the data set guarantees that masks are instance maps, so that none is read as binary."""

    def _mask_files(self) -> tuple[Path, ...]:
        return (self.instances_file, self.ignore_file) if self.ignore_file else (self.instances_file,)

    def _combined(self, contents: Sequence[bytes], size: tuple[int, int]) -> Labels:
        labels = self._nuclei(contents[0], size)
        if not self.ignore_file:
            return labels
        return replace(labels, ignore=labels.ignore | self._ignored(contents[1], self.ignore_file, size))

    def _ignored(self, content: bytes, file: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        if has_outlines(file):
            labels = instances_from_outlines(content, file, self.image_file, size)
            return labels.ignore | (labels.instances > 0)
        return np.asarray(self._decode_mask(content, file, size) != 0)

    def _nuclei(self, content: bytes, size: tuple[int, int]) -> Labels:
        if has_outlines(self.instances_file):
            return instances_from_outlines(content, self.instances_file, self.image_file, size)
        values = self._decode_mask(content, self.instances_file, size)
        instances, facts = instances_from(values, self.instances_file, instance_map=self.instance_map)
        return Labels(instances=instances, ignore=np.zeros(size, np.bool_), facts=facts)


@dataclass(frozen=True, kw_only=True)
class CocoEntry(FileEntry):
    """An image file whose nuclei are a part of a COCO file of several images, `instances_file`."""

    part: bytes = field(repr=False)
    """The part of this image, see `outlines.coco_parts`; its digest stands for the mask."""

    def _mask_contents(self) -> list[bytes]:
        return [self.part, *([file_bytes(self.ignore_file)] if self.ignore_file else [])]

    def _mask_digests(self) -> list[bytes]:
        others = [file_digest(self.ignore_file)] if self.ignore_file else []
        return [hashlib.sha256(self.part).digest(), *others]


def mask_digest(digests: Sequence[bytes]) -> bytes:
    """Combine the digests of an image's mask files, in their order.

    The digest of a single file is unchanged, the one that `sha256sum` prints; of several, it is the SHA-256 of their
    concatenated 32-byte digests.
    """
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
