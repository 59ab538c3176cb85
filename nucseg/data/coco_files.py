"""COCO files of several images: find the part of each image."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nucseg.data.files import composed, file_bytes, some
from nucseg.data.outlines import coco_parts
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

    The file_name of an image is its file's name, with or without the suffix and the subfolder. Raises DataError if a
    file is damaged, if a file_name fits several images, or an image is described twice.
    """
    found = CocoParts()
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        for name in {composed(image.name), composed(image.stem)}:
            by_name[name].append(image)
    for file in files:
        parts = coco_parts(file_bytes(file), file)
        missing = [name for name, part in parts.items() if not _add(found, file, name, part, by_name)]
        if parts:
            found.files.append(file)
        if missing:
            found.notes.append(
                f"{len(missing)} of the {len(parts)} images that {file.name} describes are not in images/: "
                f"{some(missing)}."
            )
    return found


def _add(found: CocoParts, file: Path, name: str, part: bytes, by_name: dict[str, list[Path]]) -> bool:
    """Add the part of an image with the file_name `name`; False if there is no such image."""
    path = PurePosixPath(composed(name.replace("\\", "/")))
    fitting = _fitting(path, by_name.get(path.name, [])) or _fitting(path, by_name.get(path.stem, []))
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


def _fitting(path: PurePosixPath, images: Sequence[Path]) -> list[Path]:
    """Those of the images whose subfolder is that of the path, if both have one."""
    folder = path.parent.name
    return [image for image in images if image.parent.name == "images" or folder in ("", composed(image.parent.name))]
