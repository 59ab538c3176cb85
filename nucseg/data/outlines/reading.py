"""Tell GeoJSON from COCO JSON, and read either as an instance map."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucseg.data.files import OUTLINE_SUFFIXES
from nucseg.data.masks import Labels
from nucseg.data.outlines.coco import ImageNames, coco_shapes, is_coco, one_per_image
from nucseg.data.outlines.geojson import features_in, geojson_shapes
from nucseg.data.outlines.shapes import labels_from
from nucseg.errors import DataError


def instances_from_outlines(data: bytes, file: Path, image: Path, size: tuple[int, int]) -> Labels:
    """Read the nuclei of one image of `size` (H, W) from GeoJSON or COCO JSON.

    In a COCO file of several images, the image is found by its file_name, see `ImageNames`. Raises DataError for other
    JSON, and as `labels_from` and the readers of both formats.
    """
    content = _parsed(data, file)
    if is_coco(content):
        return labels_from(coco_shapes(_of_image(content, file, image), size, file), size, file)
    features = features_in(content)
    if features is None:
        raise DataError(
            f"{file} is JSON, but neither GeoJSON (features) nor COCO (images and annotations). Export the outlines as "
            "one of them."
        )
    return labels_from(geojson_shapes(features, file), size, file)


def has_outlines(file: Path) -> bool:
    """Whether a file is one of outlines, by its suffix."""
    return file.suffix.lower() in OUTLINE_SUFFIXES


def coco_parts(data: bytes, file: Path) -> dict[str, bytes]:
    """File name of each image -> its part of a COCO file; empty for other JSON.

    A part is a COCO file itself, see `one_per_image`, always with the same bytes for the same annotations.
    """
    content = _parsed(data, file)
    parts = one_per_image(content, file) if is_coco(content) else {}
    return {name: json.dumps(part, sort_keys=True).encode() for name, part in parts.items()}


def _parsed(data: bytes, file: Path) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{file} is not valid JSON ({cause}). Export it again.") from cause


def _of_image(content: Mapping[str, Any], file: Path, image: Path) -> Any:
    parts = one_per_image(content, file)
    names = ImageNames([image])
    found = [part for name, part in parts.items() if len(parts) == 1 or names.find(name)]
    if len(found) != 1:
        raise DataError(
            f"{file} describes {len(parts)} images, of which {len(found)} are named like {image.name}; expected one. "
            "Correct its file_name."
        )
    return found[0]
