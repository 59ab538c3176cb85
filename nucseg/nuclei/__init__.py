"""Nuclei as instances: separation, measurement, outlines, and stitching across tiles."""
