"""Nuclei as instances: separation, stitching across windows, outlines and measurements."""
