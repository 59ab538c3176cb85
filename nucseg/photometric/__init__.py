"""Photometric transforms: they change the colours of an image and move no pixel."""
