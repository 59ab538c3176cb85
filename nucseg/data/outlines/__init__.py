"""Masks that are given as outlines: GeoJSON as written by QuPath and `nucseg predict`, and COCO JSON."""

from nucseg.data.outlines.reading import OUTLINE_SUFFIXES, coco_parts, has_outlines, instances_from_outlines

__all__ = ["OUTLINE_SUFFIXES", "coco_parts", "has_outlines", "instances_from_outlines"]
