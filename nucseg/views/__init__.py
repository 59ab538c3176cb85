"""Exact views: an image in another orientation or other colours, whose true embedding is worth computing."""

from nucseg.views.named import view_names, views_named
from nucseg.views.view import View

__all__ = ["View", "view_names", "views_named"]
