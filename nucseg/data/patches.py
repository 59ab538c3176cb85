"""Data sets whose patches lie in two stacks, NumPy files of images and of labels: the entry that reads one patch."""

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
    """One patch of the two stacks. They are memory-mapped for each access: nothing stays open, little is read."""

    images_file: Path
    labels_file: Path
    index: int
    """Position of the patch in both stacks."""

    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the patch and of its instances, each over type, shape and values; classes do not count."""
        return _digest(self._image()), _digest(self._ids())

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Copy the patch out of the stack."""
        image = self._image()
        return image, _digest(image)

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Copy the patch and its instances out of the stacks. Ids that cannot be instances are a DataError."""
        image, ids = self._image(), self._ids()
        # one byte that holds only 0 and 1 would pass for a binary mask, here it is one nucleus
        wide = ids.astype(np.promote_types(ids.dtype, np.uint16), copy=False)
        sample = Sample(
            id=self.id,
            group=self.group,
            stratum=self.stratum,
            mpp=self.mpp,
            image=image,
            instances=instances_from(wide, f"Patch {self.index} ({self.id}) of {self.labels_file}"),
            ignore=np.zeros(ids.shape, np.bool_),
        )
        return sample, _digest(image), _digest(ids)

    def _image(self) -> npt.NDArray[np.uint8]:
        return np.array(self._patch(image_stack(self.images_file), self.images_file))

    def _ids(self) -> npt.NDArray[Any]:
        return np.array(self._patch(label_stack(self.labels_file), self.labels_file)[..., 0])

    def _patch(self, stack: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
        if self.index >= len(stack):
            raise DataError(
                f"{file} holds {len(stack)} patches now, but held {self.index + 1} at least when it was listed. It was "
                "replaced meanwhile: start again."
            )
        patch: npt.NDArray[Any] = stack[self.index]
        return patch


def image_stack(file: Path) -> npt.NDArray[np.uint8]:
    """Map the images (patches, 256, 256, 3) of a NumPy file into memory; nothing is read but its header.

    Raises DataError if it is another array, cut short, or no NumPy file.
    """
    stack = _mapped(file)
    if stack.shape[1:] != (*PATCH_PX, 3) or stack.dtype != np.uint8:
        raise _other_array(file, stack, "(patches, 256, 256, 3) of uint8, RGB")
    return stack


def label_stack(file: Path) -> npt.NDArray[Any]:
    """Map the labels (patches, 256, 256, 2) of any integer type, instance and class; see `image_stack`."""
    stack = _mapped(file)
    if stack.shape[1:] != (*PATCH_PX, 2) or stack.dtype.kind not in "iu":
        raise _other_array(file, stack, "(patches, 256, 256, 2) of whole numbers, instance and class")
    return stack


def _mapped(file: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(file, mode="r")  # refuses Python objects: no pickle is ever loaded
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}.") from cause
    except Exception as cause:  # on damaged bytes the parser of the header raises whatever it stumbles over
        raise DataError(
            f"{file} ({file.stat().st_size:,} bytes) is no whole NumPy array of numbers: {cause}. It is damaged, cut "
            "short or something else under that name: copy it again."
        ) from cause


def _other_array(file: Path, stack: npt.NDArray[Any], expected: str) -> DataError:
    return DataError(f"{file} holds {stack.shape} of {stack.dtype}; {expected} expected. Copy it from the release.")


def _digest(values: npt.NDArray[Any]) -> bytes:
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
