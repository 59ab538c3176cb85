"""Data sets of patches stored in two NumPy files, one of images and one of labels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.masks import instances_from
from nucseg.data.sample import Entry, Sample
from nucseg.errors import DataError

PATCH_PX = (256, 256)
"""Height and width of a patch."""


@dataclass(frozen=True, kw_only=True)
class PatchEntry(Entry):
    """One patch. Its files are memory-mapped for each access, so that none stays open and little is read."""

    images_file: Path
    labels_file: Path
    index: int
    """Index of the patch in both files."""

    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the image and of its instances, over type, shape and values; classes are not included."""
        return _digest(self._image()), _digest(self._ids())

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Copy the image from its file."""
        image = self._image()
        return image, _digest(image)

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Copy image and instances from their files. Raises DataError for ids that cannot be instances."""
        image, ids = self._image(), self._ids()
        patch = f"Patch {self.index} ({self.id}) of {self.labels_file}"
        instances, facts = instances_from(ids, patch, instance_map=True)
        sample = self._sample(image, instances, np.zeros(ids.shape, np.bool_), facts)
        return sample, _digest(image), _digest(ids)

    def _image(self) -> npt.NDArray[np.uint8]:
        return np.array(self._patch(image_stack(self.images_file), self.images_file))

    def _ids(self) -> npt.NDArray[Any]:
        return np.array(self._patch(label_stack(self.labels_file), self.labels_file)[..., 0])

    def _patch(self, stack: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
        if self.index >= len(stack):
            raise DataError(
                f"{file} has {len(stack)} patches now, but had at least {self.index + 1} when it was listed. It has "
                "been replaced since: start again."
            )
        patch: npt.NDArray[Any] = stack[self.index]
        return patch


def image_stack(file: Path) -> npt.NDArray[np.uint8]:
    """Memory-map the images (patches, 256, 256, 3) of a NumPy file; only its header is read.

    Raises DataError if it holds another array, is truncated, or is not a NumPy file.
    """
    stack = _mapped(file)
    if stack.shape[1:] != (*PATCH_PX, 3) or stack.dtype != np.uint8:
        raise _other_array(file, stack, "(patches, 256, 256, 3) of uint8, RGB")
    return stack


def label_stack(file: Path) -> npt.NDArray[Any]:
    """Memory-map the labels (patches, 256, 256, 2), instance and class, of any integer type; see `image_stack`."""
    stack = _mapped(file)
    if stack.shape[1:] != (*PATCH_PX, 2) or stack.dtype.kind not in "iu":
        raise _other_array(file, stack, "(patches, 256, 256, 2) of integers, instance and class")
    return stack


def _mapped(file: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(file, mode="r")  # refuses Python objects, so no pickle is loaded
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}.") from cause
    except Exception as cause:  # for damaged headers, NumPy's parser raises errors of many types
        raise DataError(
            f"{file} ({file.stat().st_size:,} bytes) is not a complete NumPy array of numbers: {cause}. It is damaged, "
            "truncated or another file: copy it again."
        ) from cause


def _other_array(file: Path, stack: npt.NDArray[Any], expected: str) -> DataError:
    return DataError(f"{file} holds {stack.shape} of {stack.dtype}; expected {expected}. Copy it from the release.")


def _digest(values: npt.NDArray[Any]) -> bytes:
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
