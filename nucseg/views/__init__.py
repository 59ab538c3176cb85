"""Views: an image in another orientation or in other colours, of which the exact embedding is computed."""

from nucseg.views.base import View
from nucseg.views.registry import view_names, views_named

__all__ = ["View", "view_names", "views_named"]
