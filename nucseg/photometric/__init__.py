"""Photometric transforms: they change the colours of an image and move no pixel."""

from nucseg.photometric.recipe import PhotometricRecipe, photometric_names

__all__ = ["PhotometricRecipe", "photometric_names"]
