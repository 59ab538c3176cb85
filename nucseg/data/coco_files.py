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

    The file_name of an image is its file's name, with any folders, or without the suffix. Raises DataError if a file is
    damaged, if a file_name fits several images, or an image is described twice.
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
    path = PurePosixPath(composed(name.replace("\\", "/")))
    fitting = by_name.get(path.name) or by_name.get(path.stem) or []
    if len(fitting) > 1:
        fitting = [image for image in fitting if composed(image.parent.name) == path.parent.name]
    if len(fitting) > 1 or (not fitting and len(by_name.get(path.name, ())) > 1):
        raise DataError(
            f"{file}: the file_name {name} could be any of {some([str(image) for image in by_name[path.name]])}. Write "
            "it with the image's folder, as <patient>/<name>."
        )
    if not fitting:
        return False
    if fitting[0] in found.parts:
        raise DataError(
            f"{fitting[0]} is described twice, in {found.parts[fitting[0]][0]} and {file}. Remove one of them."
        )
    found.parts[fitting[0]] = file, part
    return True
