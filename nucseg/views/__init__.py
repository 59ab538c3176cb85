"""Exact views: an image in another orientation or other colours, whose true embedding is worth computing."""

from nucseg.views.base import View
from nucseg.views.registry import view_names, views_named

__all__ = ["View", "view_names", "views_named"]
