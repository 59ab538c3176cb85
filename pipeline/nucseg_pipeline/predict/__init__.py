"""Nuclei in new images and whole slides."""
