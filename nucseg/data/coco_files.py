"""COCO files of several images: find the part of each image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nucseg.data.files import file_bytes, some
from nucseg.data.outlines import ImageNames, coco_parts
from nucseg.errors import DataError


@dataclass
class CocoParts:
    """The parts of images in COCO files."""

    parts: dict[Path, tuple[Path, bytes]] = field(default_factory=dict)
    """Image file -> the COCO file, and the part of this image."""
    files: list[Path] = field(default_factory=list)
    """Those of the given files that are COCO files."""
    notes: list[str] = field(default_factory=list)


def find_parts(files: Sequence[Path], images: Sequence[Path]) -> CocoParts:
    """Find images in those of the JSON files that are COCO files.

    Images are found by file_name, see `ImageNames`. Raises DataError if a file is damaged, if a file_name fits several
    images, or an image is described twice.
    """
    found = CocoParts()
    names = ImageNames(images)
    for file in files:
        parts = coco_parts(file_bytes(file), file)
        missing = [name for name, part in parts.items() if not _add(found, file, name, part, names.find(name))]
        if parts:
            found.files.append(file)
        if missing:
            found.notes.append(
                f"{len(missing)} of the {len(parts)} images that {file.name} describes are not in images/: "
                f"{some(missing)}."
            )
    return found


def _add(found: CocoParts, file: Path, name: str, part: bytes, fitting: Sequence[Path]) -> bool:
    """Add the part of an image whose file_name `name` fits these images; False if there are none."""
    if len(fitting) > 1:
        raise DataError(
            f"{file}: the file_name {name} could be any of {some([str(image) for image in fitting])}. Write it with "
            "the image's folder and suffix, as <patient>/<name>.png."
        )
    for image in fitting:
        if image in found.parts:
            raise DataError(f"{image} is described twice, in {found.parts[image][0]} and {file}. Remove one of them.")
        found.parts[image] = file, part
    return bool(fitting)
