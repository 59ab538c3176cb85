"""COCO JSON (https://cocodataset.org/#format-data): polygons or run-length encoded masks, for one or several images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.files import composed
from nucseg.data.outlines.shapes import Ring, Shape, as_ring
from nucseg.errors import DataError

_LISTS = ("images", "annotations", "categories")


class ImageNames:
    """Image files, found by a COCO file's file_name: the file's name, with or without the suffix and the subfolder.

    Either Unicode form and either slash will do. Another suffix is accepted if no image has exactly this name, and
    other folders for images directly in `images/`.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        """Index the images by their names."""
        self._images: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            for name in {composed(image.name), composed(image.stem)}:
                self._images[name].append(image)

    def find(self, file_name: str) -> list[Path]:
        """The images that a file_name fits; several if it leaves open which one is meant."""
        path = PurePosixPath(composed(file_name.replace("\\", "/")))
        return self._in_folder(path.name, path) or self._in_folder(path.stem, path)

    def _in_folder(self, name: str, path: PurePosixPath) -> list[Path]:
        """The images of a name whose subfolder is that of the path, if both have one."""
        return [
            image
            for image in self._images.get(name, ())
            if image.parent.name == "images" or path.parent.name in ("", composed(image.parent.name))
        ]


def is_coco(content: Any) -> bool:
    """Whether parsed JSON has COCO's lists of images and annotations."""
    return isinstance(content, Mapping) and all(isinstance(content.get(name), list) for name in _LISTS[:2])


def one_per_image(content: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """File name of each image -> the content of a COCO file of this image alone.

    Raises DataError for images without a name or a size, repeated ids or names, and annotations of no image.
    """
    lists = [content.get(name, []) for name in _LISTS]
    if not all(isinstance(listed, list) and all(isinstance(record, Mapping) for record in listed) for listed in lists):
        raise DataError(f"{file} has images, annotations or categories that are no lists of objects. Export it again.")
    images = {_key(image, "id", f"{file}: an image"): image for image in content["images"]}
    names = {str(_key(image, "file_name", f"{file}: an image")): image for image in content["images"]}
    if not len(images) == len(names) == len(content["images"]):
        raise DataError(f"{file} has images with the same id or file_name. Number and name them differently.")
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        image_id = _key(annotation, "image_id", f"{file}: annotation {annotation.get('id')}")
        if image_id not in images:
            raise DataError(
                f"{file}: annotation {annotation.get('id')} belongs to image {image_id}, which is not among its "
                f"{len(images)} images. Add the image, or remove the annotation."
            )
        annotations[image_id].append(annotation)
    categories = content.get("categories", [])
    return {
        name: {"images": [image], "annotations": annotations[image["id"]], "categories": categories}
        for name, image in names.items()
    }


def coco_shapes(content: Mapping[str, Any], size: tuple[int, int], file: Path) -> list[Shape]:
    """The objects of a file of one image, which must have this size (H, W); crowds are areas to ignore.

    Raises DataError, with the file and the annotation, for another size and for segmentations that are neither polygons
    nor run-length encoded.
    """
    (image,) = content["images"]
    stated = image.get("height"), image.get("width")
    if stated != size:
        raise DataError(
            f"{file} is for an image {image.get('file_name')} of {stated[1]} x {stated[0]} pixels, but the image has "
            f"{size[1]} x {size[0]}. Replace the wrong file, or correct width and height."
        )
    categories = content["categories"]
    names = {_key(category, "id", f"{file}: a category"): str(category.get("name", "")) for category in categories}
    return [_shape(annotation, names, size, file) for annotation in content["annotations"]]


def _key(record: Mapping[str, Any], name: str, what: str) -> int | str:
    value = record.get(name)
    if not isinstance(value, int | str):
        raise DataError(f"{what} has no {name}. Export it again.")
    return value


def _shape(annotation: Mapping[str, Any], names: Mapping[Any, str], size: tuple[int, int], file: Path) -> Shape:
    name, category = f"annotation {annotation.get('id')}", annotation.get("category_id")
    class_name = names.get(category, f"category {category}") if isinstance(category, int | str) else ""
    known: dict[str, Any] = {"name": name, "class_name": class_name, "is_ignored": annotation.get("iscrowd") == 1}
    segmentation, what = annotation.get("segmentation"), f"{file}: {name}"
    if isinstance(segmentation, Mapping):
        return Shape(**known, runs=_runs(segmentation, size, what))
    if not isinstance(segmentation, list | None):
        raise DataError(f"{what} has a segmentation that is neither polygons nor run-length encoded. Export it again.")
    polygons = [[ring] for part in segmentation or [] if len(ring := _ring(part, what)) > 2]
    return Shape(**known, polygons=polygons)


def _ring(part: Any, what: str) -> Ring:
    if not isinstance(part, list) or len(part) % 2:
        raise DataError(f"{what} has a polygon that is not a list x, y, x, y, ... Export it again.")
    return as_ring([part[i : i + 2] for i in range(0, len(part), 2)], what) if part else np.empty((0, 2))


def _runs(encoded: Mapping[str, Any], size: tuple[int, int], what: str) -> npt.NDArray[np.int64]:
    counts = encoded.get("counts")
    runs = _decoded(counts) if isinstance(counts, str) else counts
    is_whole = isinstance(runs, list) and all(type(run) is int and 0 <= run <= size[0] * size[1] for run in runs)
    if encoded.get("size") != list(size) or not is_whole or sum(runs or []) != size[0] * size[1]:
        raise DataError(
            f"{what} has a run-length encoded mask of size {encoded.get('size')} whose runs do not fill the image of "
            f"{list(size)} (height, width). Export it again."
        )
    return np.array(runs, np.int64)


def _decoded(text: str) -> list[int]:
    """Runs of COCO's compressed form.

    As `rleFrString` of pycocotools: numbers are in groups of 5 bits, from the fourth number on as differences to the
    last but one. Bit 5 of a character (less 48) says that more follow, and bit 4 of the last one is the sign.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
