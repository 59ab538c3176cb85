"""Masks that are given as outlines: GeoJSON as written by QuPath and `nucseg predict`, and COCO JSON."""

from nucseg.data.outlines.coco import one_per_image
from nucseg.data.outlines.reading import OUTLINE_SUFFIXES, coco_parts, instances_from_outlines

__all__ = ["OUTLINE_SUFFIXES", "coco_parts", "instances_from_outlines", "one_per_image"]
