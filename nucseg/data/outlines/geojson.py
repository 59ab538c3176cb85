"""GeoJSON in pixel coordinates, as exported by QuPath and written by `nucseg predict`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucseg.data.outlines.shapes import Ring, Shape, as_ring
from nucseg.errors import DataError

_OBJECT_TYPES = (None, "annotation", "cell", "detection")
"""QuPath's types of objects that may be nuclei; others are tiles, cores of tissue microarrays, and the whole image."""
_IGNORED = "ignore"
"""QuPath's class of areas to ignore is called `Ignore*`."""


def features_in(content: Any) -> list[Any] | None:
    """The features of a FeatureCollection, a list of features, or a single one; None if it is no GeoJSON."""
    if isinstance(content, Mapping) and content.get("type") == "Feature":
        return [content]
    features = content.get("features") if isinstance(content, Mapping) else content
    if not isinstance(features, list):
        return None
    is_geojson = isinstance(content, Mapping) or all(
        isinstance(feature, Mapping) and feature.get("type") == "Feature" for feature in features
    )
    return features if is_geojson else None


def geojson_shapes(features: list[Any], file: Path) -> list[Shape]:
    """The objects of features, detections as well as annotations.

    Of a QuPath cell, the nucleus is taken; a cell without one is empty. Points, lines, empty geometries, tiles and the
    cores of tissue microarrays are empty, too. Objects of a class whose name starts with "Ignore" are areas to ignore.
    Raises DataError, with the file and the feature, for anything that is no feature.
    """
    return [_shape(feature, f"feature {number}", file) for number, feature in enumerate(features, start=1)]


def _shape(feature: Any, name: str, file: Path) -> Shape:
    if not isinstance(feature, Mapping) or not isinstance(feature.get("properties") or {}, Mapping):
        raise DataError(f"{file}: {name} is not a GeoJSON feature with a geometry and properties. Export it again.")
    properties = feature.get("properties") or {}
    if isinstance(properties.get("name"), str):
        name = f"{name} ({properties['name']})"
    object_type = properties.get("objectType")
    geometry = feature.get("nucleusGeometry" if object_type == "cell" else "geometry")
    class_name = _class_name(properties.get("classification"))
    return Shape(
        name=name,
        class_name=class_name,
        polygons=_polygons(geometry, f"{file}: {name}") if object_type in _OBJECT_TYPES else [],
        is_ignored=class_name.casefold().startswith(_IGNORED),
        is_detected=object_type in ("detection", "cell"),
    )


def _class_name(classification: Any) -> str:
    """QuPath writes {"name": "Tumor: Positive"}, newer versions {"names": ["Tumor", "Positive"]}."""
    if isinstance(classification, Mapping):
        names = classification.get("names")
        if isinstance(names, list):
            return ": ".join(str(name) for name in names)
        classification = classification.get("name")
    return classification if isinstance(classification, str) else ""


def _polygons(geometry: Any, what: str) -> list[list[Ring]]:
    if geometry is None:
        return []
    if not isinstance(geometry, Mapping) or not isinstance(geometry.get("type"), str):
        raise DataError(f"{what} has a geometry without a type. Export it again.")
    if geometry["type"] == "GeometryCollection":
        parts = geometry.get("geometries")
        return [rings for part in (parts if isinstance(parts, list) else []) for rings in _polygons(part, what)]
    coordinates = geometry.get("coordinates")
    if geometry["type"] == "Polygon":
        coordinates = [coordinates]
    elif geometry["type"] != "MultiPolygon":
        return []
    if not isinstance(coordinates, list) or not all(isinstance(rings, list) for rings in coordinates):
        raise DataError(f"{what} has no list of rings as its coordinates. Export it again.")
    polygons = [[as_ring(ring, what) for ring in rings if ring != []] for rings in coordinates]
    return [rings for rings in polygons if rings and len(rings[0]) > 2]
