"""Masks that are given as outlines: GeoJSON as written by QuPath and `nucseg predict`, and COCO JSON."""

from nucseg.data.outlines.coco import ImageNames
from nucseg.data.outlines.reading import coco_parts, has_outlines, instances_from_outlines

__all__ = ["ImageNames", "coco_parts", "has_outlines", "instances_from_outlines"]
